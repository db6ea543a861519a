// Builds what knows tenants, and joins it to the configuration, the store and the kernel.

import type { Config } from "./config/config.ts";
import { tenantRulesOf } from "./daemon-config.ts";
import { createParentCgroups, type ParentCgroups } from "./engine/parent-cgroup.ts";
import type { Host } from "./host/host.ts";
import type { Sampler } from "./monitor/sampler-loop.ts";
import type { Log } from "./observe/log.ts";
import type { MetricsRegistry } from "./observe/metrics.ts";
import type { Clock } from "./sandbox/clock.ts";
import type { Actor } from "./sandbox/record.ts";
import type { Repository } from "./sandbox/repository.ts";
import type { Store } from "./store/store.ts";
import { createGroups, type GroupPlace, type Groups } from "./tenant/groups.ts";
import { createMetering, type Metering } from "./tenant/metering.ts";
import { overQuota, promisedTo } from "./tenant/quota.ts";
import { quotaNames } from "./tenant/record.ts";
import { createTenants, type Tenant, type Tenants } from "./tenant/tenants.ts";
import type { WorkspaceRepository } from "./workspace/repository.ts";

export interface TenancyOptions {
  /** As it is now: a reload may change what tenants have that were never put. */
  readonly currentConfig: () => Config;
  readonly host: Host;
  readonly store: Store;
  readonly repository: Repository;
  readonly sampler: Sampler;
  readonly clock: Clock;
  /** Has a sandbox deleted; returns at once. */
  readonly deleteSandbox: (id: string, actor: Actor) => void;
  readonly workspaceRepository: WorkspaceRepository;
  /** Has a workspace deleted that no sandbox is with; returns at once. */
  readonly deleteWorkspace: (id: string) => void;
  /** Has the kernel hold what a policy says of networks. Rejects with nothing changed. */
  readonly holdNetworks: (tenant: Tenant) => Promise<void>;
  readonly registry: MetricsRegistry;
  readonly log: Log;
}

export interface Tenancy {
  readonly tenants: Tenants;
  readonly groups: Groups;
  readonly metering: Metering;
  close(): Promise<void>;
}

export function createTenancy(options: TenancyOptions): Tenancy {
  const { currentConfig, host, store, repository, log } = options;
  const tenants = createTenants({
    store,
    repository,
    rules: () => tenantRulesOf(currentConfig()),
    hold: holdAll,
    deleteSandbox: options.deleteSandbox,
    workspaces: options.workspaceRepository,
    deleteWorkspace: options.deleteWorkspace,
    log: log.child("tenants"),
  });

  /** All that the kernel holds of a tenant, or nothing of it. */
  async function holdAll(tenant: Tenant): Promise<void> {
    const before = tenants.get(tenant.name);
    await options.holdNetworks(tenant);
    try {
      await groups.hold(tenant);
    } catch (error) {
      if (before !== undefined) await options.holdNetworks(before).catch(() => undefined);
      throw error;
    }
  }

  /** Made once the version is known; an engine that was replaced under the daemon may have another. */
  const byVersion = new Map<1 | 2, ParentCgroups>();
  function place(): GroupPlace | undefined {
    const facts = host.facts();
    if (facts === undefined) return undefined;
    const { cgroupVersion: version, cgroupParent: hostParent } = facts;
    const cgroups = byVersion.get(version) ?? createParentCgroups({ version });
    byVersion.set(version, cgroups);
    return { hostParent, cgroups };
  }
  const groups = createGroups({
    repository,
    tenants,
    allocatable: host.capacity.allocatable,
    place,
    log: log.child("groups"),
  });
  const metering = createMetering({
    ...options,
    isTenant: (name) => tenants.get(name) !== undefined,
    log: log.child("metering"),
  });
  meterTenants(options.registry, tenants, repository, options.workspaceRepository);
  return {
    tenants,
    groups,
    metering,
    async close() {
      metering.close();
      tenants.close();
      await groups.close();
    },
  };
}

/** Sums over all tenants, and how many are over their quota: names of tenants are no labels, there may be thousands. */
function meterTenants(
  { metrics, onRender }: MetricsRegistry,
  tenants: Tenants,
  repository: Repository,
  workspaces: WorkspaceRepository,
): void {
  onRender(() => {
    const owned = Map.groupBy(repository.all(), ({ tenant }) => tenant);
    const spaces = Map.groupBy(workspaces.all(), ({ tenant }) => tenant);
    const all = tenants.all();
    metrics.tenants.set({}, all.length);
    const over = new Map<string, number>(Object.values(quotaNames).map((name) => [name, 0]));
    for (const { name, policy } of all) {
      for (const key of overQuota(promisedTo(owned.get(name) ?? [], spaces.get(name)), policy.quota)) {
        over.set(quotaNames[key], (over.get(quotaNames[key]) ?? 0) + 1);
      }
    }
    for (const [resource, count] of over) metrics.tenantsOverQuota.set({ resource }, count);
  });
}
