// TenantService: what each owner of sandboxes may have, and what it has.

import type { ServiceImpl } from "@connectrpc/connect";
import type { TenantService } from "../../gen/sandboxd/v1/tenant_service_pb.ts";
import { invalidField, throwIfAny } from "../errors.ts";
import { type HostRules, tenantNetworkViolations } from "../network/violations.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import type { Groups } from "../tenant/groups.ts";
import { rangeViolations } from "../tenant/limit-range.ts";
import type { Metering } from "../tenant/metering.ts";
import { notFound, type Tenant, type Tenants } from "../tenant/tenants.ts";
import type { WorkspaceRepository } from "../workspace/repository.ts";
import { actorOfCaller, callerKey } from "./caller.ts";
import { policyOf, tenantOf, unboundable } from "./tenant-codec.ts";

export interface TenantServiceOptions {
  readonly tenants: Tenants;
  readonly groups: Pick<Groups, "read">;
  readonly metering: Pick<Metering, "ofTenant">;
  readonly repository: Repository;
  readonly workspaceRepository: Pick<WorkspaceRepository, "all">;
  /** What of this host policies of networks are held against, as it is now. */
  readonly hostRules: () => HostRules;
}

const defaultPage = 100;

export function createTenantService({
  tenants,
  groups,
  metering,
  repository,
  workspaceRepository,
  hostRules,
}: TenantServiceOptions): ServiceImpl<typeof TenantService> {
  const told = (tenant: Tenant, sandboxes: readonly SandboxRecord[]) =>
    tenantOf({
      tenant,
      sandboxes,
      workspaces: workspaceRepository.all().filter((one) => one.tenant === tenant.name),
      usage: metering.ofTenant(tenant.name),
      group: groups.read(tenant),
    });
  const toldOf = (tenant: Tenant) =>
    told(
      tenant,
      repository.all().filter((record) => record.tenant === tenant.name),
    );
  return {
    async putTenant({ tenant: name, quota, limitRange, network, generation }) {
      const policy = policyOf(quota, limitRange, network);
      throwIfAny([
        ...unboundable(limitRange),
        ...rangeViolations(policy.limitRange, "limit_range"),
        ...tenantNetworkViolations(policy.network, "network", hostRules()),
      ]);
      const given = generation === undefined ? undefined : Number(generation);
      return { tenant: toldOf(await tenants.put(name, policy, given)) };
    },
    getTenant({ tenant: name }) {
      const tenant = tenants.get(name);
      if (tenant === undefined) throw notFound(name, "ListTenants shows which there are");
      return { tenant: toldOf(tenant) };
    },
    listTenants({ pageSize, pageToken }) {
      const after = pageToken === "" ? "" : nameOfToken(pageToken);
      const rest = tenants.all().filter(({ name }) => name > after);
      const page = rest.slice(0, pageSize || defaultPage);
      const owned = Map.groupBy(repository.all(), ({ tenant }) => tenant);
      return {
        tenants: page.map((tenant) => told(tenant, owned.get(tenant.name) ?? [])),
        nextPageToken: rest.length > page.length ? tokenOf(page.at(-1)?.name ?? "") : "",
      };
    },
    async deleteTenant({ tenant, cascade }, { values, signal }) {
      await tenants.delete(tenant, { cascade, actor: actorOfCaller(values.get(callerKey)), signal });
      return {};
    },
  };
}

const tokenPrefix = "tenant:";

function tokenOf(name: string): string {
  return Buffer.from(`${tokenPrefix}${name}`).toString("base64url");
}

function nameOfToken(token: string): string {
  const text = Buffer.from(token, "base64url").toString("utf8");
  if (text.startsWith(tokenPrefix)) return text.slice(tokenPrefix.length);
  throw invalidField("page_token", "is not a token of this host", "start again without a page token");
}
