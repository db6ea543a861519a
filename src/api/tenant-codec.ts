// Between the contract's tenant and the domain's.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type LimitRange as LimitRangeMessage,
  type Tenant as TenantMessage,
  type TenantNetwork as TenantNetworkMessage,
  type TenantQuota,
  type TenantQuotaSchema,
  TenantSchema,
} from "../../gen/sandboxd/v1/tenant_pb.ts";
import type { GroupState } from "../engine/parent-cgroup.ts";
import type { FieldViolation } from "../errors.ts";
import { noNetwork } from "../network/policy.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Metered } from "../tenant/metering.ts";
import { overQuota, promisedTo } from "../tenant/quota.ts";
import {
  type LimitRange,
  type Quota,
  quotaKeys,
  quotaNames,
  type RangeAmounts,
  type TenantPolicy,
  type TenantRecord,
} from "../tenant/record.ts";
import type { Tenant } from "../tenant/tenants.ts";
import type { WorkspaceRecord } from "../workspace/record.ts";
import { tenantNetworkMessageOf, tenantNetworkOf } from "./network-codec.ts";
import { askedResources, limitsOf } from "./sandbox-codec.ts";
import { usageOf } from "./stats-codec.ts";
import { timestampOf } from "./time-codec.ts";

/** What a tenant is told from. */
export interface TenantView {
  readonly tenant: Tenant;
  readonly sandboxes: readonly SandboxRecord[];
  readonly workspaces: readonly WorkspaceRecord[];
  readonly usage: Metered | undefined;
  readonly group: (GroupState & { readonly parent: string }) | undefined;
}

/** The contract's tenant, with its status. */
export function tenantOf({ tenant, sandboxes, workspaces, usage, group }: TenantView): TenantMessage {
  const promised = promisedTo(sandboxes, workspaces);
  return create(TenantSchema, {
    ...policyOfTenant(tenant),
    status: {
      uid: BigInt(tenant.uid),
      promised: quotaOf(promised),
      overQuota: overQuota(promised, tenant.policy.quota).map((key) => quotaNames[key]),
      deleting: tenant.deleting ?? false,
      ...(group === undefined ? {} : { cgroup: cgroupOf(group) }),
      ...(usage === undefined ? {} : { usage: usageOf(usage) }),
    },
  });
}

/** The same without the status. */
export function policyOfTenant({ policy, ...tenant }: TenantRecord & { readonly isDefault?: boolean }) {
  return {
    tenant: tenant.name,
    generation: BigInt(tenant.generation),
    createTime: timestampOf(tenant.createdAtMs),
    updateTime: timestampOf(tenant.updatedAtMs),
    quota: quotaOf(policy?.quota ?? {}),
    limitRange: rangeOf(policy?.limitRange),
    network: tenantNetworkMessageOf(policy?.network ?? noNetwork),
    defaultPolicy: tenant.isDefault ?? false,
  };
}

/** What a caller puts. */
export function policyOf(
  quota: TenantQuota | undefined,
  range: LimitRangeMessage | undefined,
  network: TenantNetworkMessage | undefined,
): TenantPolicy {
  const { cpu, memory } = range?.maxLimitRequestRatio ?? {};
  return {
    quota: Object.fromEntries(
      quotaKeys.flatMap((key) => (quota?.[key] === undefined ? [] : [[key, Number(quota[key])]])),
    ),
    limitRange: {
      min: amountsOf(range?.min),
      max: amountsOf(range?.max),
      defaults: amountsOf(range?.default),
      maxRatio: {
        ...(cpu === undefined ? {} : { cpu }),
        ...(memory === undefined ? {} : { memory }),
      },
    },
    network: tenantNetworkOf(network),
  };
}

const parts = ["min", "max", "default"] as const;

/** What a limit range names and cannot bound. */
export function unboundable(range: LimitRangeMessage | undefined): readonly FieldViolation[] {
  return parts
    .filter((part) => range?.[part]?.blockIo !== undefined)
    .map((part) => ({
      field: `limit_range.${part}.block_io`,
      description: "cannot be part of a limit range",
    }));
}

function amountsOf(message: LimitRangeMessage["min"]): RangeAmounts {
  const { blockIo: _, ...amounts } = askedResources(message);
  return amounts;
}

function quotaOf(quota: Quota): MessageInitShape<typeof TenantQuotaSchema> {
  return Object.fromEntries(
    quotaKeys.flatMap((key) => (quota[key] === undefined ? [] : [[key, BigInt(quota[key])]])),
  );
}

function rangeOf(range: LimitRange | undefined) {
  return {
    min: limitsOf(range?.min ?? {}),
    max: limitsOf(range?.max ?? {}),
    default: limitsOf(range?.defaults ?? {}),
    maxLimitRequestRatio: { ...range?.maxRatio },
  };
}

function cgroupOf({ parent, limits, cpuUsageUsec, memoryBytes, pids }: NonNullable<TenantView["group"]>) {
  const { cpuMillis, cpuWeight, ...sums } = limits;
  return {
    parent,
    cpuWeight: BigInt(cpuWeight),
    ...(cpuMillis === undefined ? {} : { cpuMillis: BigInt(cpuMillis) }),
    ...(sums.memoryBytes === undefined ? {} : { memoryBytes: BigInt(sums.memoryBytes) }),
    ...(sums.pids === undefined ? {} : { pids: BigInt(sums.pids) }),
    cpuUsageUsec: BigInt(cpuUsageUsec),
    memoryUsedBytes: BigInt(memoryBytes),
    pidsUsed: BigInt(pids),
  };
}
