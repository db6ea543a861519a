// How the kernel holds tenants: one cgroup above all sandboxes of the host, and below it one for each tenant that runs something.
// They bound what the ledger promises a second time, so that no error of ours, and no sum of sandboxes each within its own
// limits, exceeds a tenant's or the host's total.

import type { GroupLimits, GroupState, ParentCgroups } from "../engine/parent-cgroup.ts";
import { messageOf } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Amounts } from "../sandbox/admission.ts";
import { parentOf, sharesOf } from "../sandbox/plan.ts";
import { holdsCapacity } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import { promisedTo, type TenantPromises } from "./quota.ts";
import type { Quota } from "./record.ts";
import type { Tenant, Tenants } from "./tenants.ts";

export interface Groups {
  /**
   * Sees to it that the groups above a tenant's sandboxes are there and hold, before one is started. Rejects with
   * LIMIT_UNENFORCEABLE when the kernel refuses.
   */
  ensure(tenant: string): Promise<void>;
  /** Changes the group of a tenant that runs something to a quota. Rejects as `ensure` does, with the group as it was. */
  hold(tenant: Tenant): Promise<void>;
  /** Why a group does not hold what it should, as last seen; undefined if all do. */
  problem(): string | undefined;
  /** What the kernel says of a tenant; undefined while nothing of it runs. */
  read(tenant: Tenant): (GroupState & { readonly parent: string }) | undefined;
  close(): Promise<void>;
}

/** Where groups are, once the engine was reached. */
export interface GroupPlace {
  /** Of all sandboxes, as the engine is told it. */
  readonly hostParent: string;
  readonly cgroups: ParentCgroups;
}

export interface GroupsOptions {
  readonly repository: Repository;
  readonly tenants: Pick<Tenants, "get" | "all" | "subscribe">;
  readonly allocatable: Amounts;
  /** Undefined while the engine was never reached. */
  readonly place: () => GroupPlace | undefined;
  readonly log: Log;
}

type HoldOptions = NonNullable<Parameters<ParentCgroups["hold"]>[2]>;

/** Changes closer together than this are told to the kernel as one: weights matter only under contention. */
const settleMs = 1_000;
/** How often groups are compared with what they should be, whoever changed them. */
const checkEveryMs = 30_000;

export function createGroups(options: GroupsOptions): Groups {
  const { repository, tenants, allocatable, place, log } = options;
  /** Tenants that have, or may have, a group, with their uids: at first all, as an earlier life of the daemon may have left some. */
  const known = new Map(tenants.all().map(({ name, uid }) => [name, uid]));
  const changed = new Set<string>();
  /** What the kernel refused, by group. */
  const refusals = new Map<string, string>();
  let queue: Promise<unknown> = Promise.resolve();
  let timer: NodeJS.Timeout | undefined;
  let isClosed = false;

  /** One after the other: a group is not removed while another step relies on it. */
  function inTurn<T>(step: () => Promise<T>): Promise<T> {
    const next = queue.then(step);
    queue = next.catch(() => undefined);
    return next;
  }

  const runningOf = (tenant: string) =>
    repository.all().filter((record) => record.tenant === tenant && holdsCapacity(record));

  /** Of the host: memory and processes as allocatable, CPU by weight alone, as the kubelet does for its pods. */
  const hostLimits: GroupLimits = {
    cpuWeight: sharesOf(allocatable.cpuMillis),
    memoryBytes: allocatable.memoryBytes,
    pids: allocatable.pids,
  };

  async function hold(
    cgroups: ParentCgroups,
    parent: string,
    limits: GroupLimits,
    options: HoldOptions = {},
  ): Promise<void> {
    try {
      await cgroups.hold(parent, limits, options);
      refusals.delete(parent);
    } catch (error) {
      refusals.set(parent, messageOf(error));
      throw error;
    }
  }

  const holdHost = ({ cgroups, hostParent }: GroupPlace) => hold(cgroups, hostParent, hostLimits);

  function holdTenant(
    { cgroups, hostParent }: GroupPlace,
    { name, uid, policy }: Tenant,
    options?: HoldOptions,
  ): Promise<void> {
    const limits = limitsOf(policy.quota, promisedTo(runningOf(name)));
    return hold(cgroups, parentOf(hostParent, uid), limits, options);
  }

  /** Adjusts what has changed, and removes the groups of those that run nothing any more. */
  async function settle(): Promise<void> {
    const here = place();
    if (here === undefined) return;
    for (const name of [...changed]) {
      changed.delete(name);
      try {
        const tenant = tenants.get(name);
        if (tenant !== undefined && runningOf(name).length > 0) await holdTenant(here, tenant);
        else await release(here, name);
      } catch (error) {
        log.warn({ tenant: name, err: messageOf(error) }, "the tenant's cgroup could not be changed");
      }
    }
    if (known.size === 0) await here.cgroups.remove(here.hostParent);
  }

  /** What ends leaves its cgroup a moment later: one that is not gone yet is tried again by the next comparison. */
  async function release({ cgroups, hostParent }: GroupPlace, name: string): Promise<void> {
    const uid = known.get(name);
    const parent = uid === undefined ? undefined : parentOf(hostParent, uid);
    if (parent !== undefined && !(await cgroups.remove(parent))) return later(name);
    known.delete(name);
    if (parent !== undefined) refusals.delete(parent);
  }

  function later(tenant: string): void {
    changed.add(tenant);
    if (isClosed) return;
    timer ??= setTimeout(() => {
      timer = undefined;
      void inTurn(settle);
    }, settleMs);
  }

  const owners = new Map(repository.all().map(({ id, tenant }) => [id, tenant]));
  const unsubscribe = repository.subscribe((id) => {
    const tenant = repository.get(id)?.tenant ?? owners.get(id);
    if (tenant === undefined) return;
    if (repository.get(id) === undefined) owners.delete(id);
    else owners.set(id, tenant);
    later(tenant);
  });
  const unfollow = tenants.subscribe((name) => {
    if (known.has(name)) later(name);
  });
  const checks = setInterval(() => {
    for (const name of known.keys()) later(name);
  }, checkEveryMs);

  return {
    ensure(name) {
      return inTurn(async () => {
        const [here, tenant] = [place(), tenants.get(name)];
        if (here === undefined || tenant === undefined) return;
        known.set(name, tenant.uid);
        await holdHost(here);
        // its weight changes with each start, and can wait where systemd has to be asked
        await holdTenant(here, tenant, { keepWeight: true });
      });
    },
    hold(tenant) {
      return inTurn(async () => {
        const here = place();
        if (here === undefined || runningOf(tenant.name).length === 0) return;
        try {
          await holdTenant(here, tenant);
        } catch (error) {
          later(tenant.name);
          throw error;
        }
      });
    },
    problem: () => refusals.values().next().value,
    read({ uid }) {
      const here = place();
      if (here === undefined) return undefined;
      const parent = parentOf(here.hostParent, uid);
      const state = here.cgroups.read(parent);
      return state && { ...state, parent };
    },
    async close() {
      isClosed = true;
      clearTimeout(timer);
      clearInterval(checks);
      unsubscribe();
      unfollow();
      // what changed a moment ago is not left as it was
      await (timer === undefined ? queue : inTurn(settle));
    },
  };
}

/**
 * The quota, or what is promised where that is more: a quota that was lowered takes nothing away. On cgroup v1 the kernel
 * refuses a total of CPU below that of one sandbox, and so does admission.
 */
function limitsOf(quota: Quota, promised: TenantPromises): GroupLimits {
  const bound = (key: "cpuMillis" | "memoryBytes" | "pids") => {
    const limit = quota[key];
    return limit === undefined ? undefined : Math.max(limit, promised[key]);
  };
  const limits = { cpuMillis: bound("cpuMillis"), memoryBytes: bound("memoryBytes"), pids: bound("pids") };
  return {
    cpuWeight: sharesOf(promised.cpuRequestMillis),
    ...Object.fromEntries(Object.entries(limits).filter(([, limit]) => limit !== undefined)),
  };
}
