// Gathers what is known of a sandbox besides its record, and has it explained.

import type { Host } from "../host/host.ts";
import type { Sampler } from "../monitor/sampler-loop.ts";
import type { Clock } from "../sandbox/clock.ts";
import { type Explanation, explain, type Total, type WorkspaceRoom } from "../sandbox/explain.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Groups } from "../tenant/groups.ts";
import type { Tenants } from "../tenant/tenants.ts";
import type { WorkspaceRepository } from "../workspace/repository.ts";
import type { UsageWatch } from "../workspace/usage-watch.ts";
import type { NetworkView } from "./network-codec.ts";

const windowMs = 60_000;

export interface ExplainerOptions {
  readonly host: Host;
  readonly sampler: Sampler;
  readonly clock: Clock;
  readonly tenants: Pick<Tenants, "get">;
  readonly groups: Pick<Groups, "read">;
  readonly workspaces: Pick<WorkspaceRepository, "get">;
  readonly usageWatch: Pick<UsageWatch, "usage">;
  readonly network: (record: SandboxRecord) => NetworkView | undefined;
  readonly idleSinceMs: (id: string) => number | undefined;
  /** The record with what is known of the sandbox since its last event. */
  readonly current: (record: SandboxRecord) => SandboxRecord;
}

export function createExplainer({
  host,
  sampler,
  clock,
  tenants,
  groups,
  workspaces,
  usageWatch,
  network,
  idleSinceMs,
  current,
}: ExplainerOptions): (record: SandboxRecord) => Explanation {
  /** What the tenant's sandboxes share, as the kernel tells it. */
  function totalsOf({ tenant: name }: SandboxRecord): readonly Total[] {
    const tenant = tenants.get(name);
    const group = tenant && groups.read(tenant);
    if (group === undefined) return [];
    const { memoryBytes, pids, limits } = group;
    const whose = `the sandboxes of tenant "${name}"`;
    return [{ whose, memoryBytes, memoryLimitBytes: limits.memoryBytes, pids, pidsLimit: limits.pids }];
  }

  function workspaceOf({ spec }: SandboxRecord): WorkspaceRoom | undefined {
    const workspace = spec.workspace && workspaces.get(spec.workspace.workspaceId);
    if (workspace === undefined) return undefined;
    const usage = usageWatch.usage(workspace);
    if (usage === undefined) return undefined;
    const { bytes: limitBytes, inodes: limitInodes } = workspace.limits;
    return { id: workspace.id, bytes: usage.bytes, limitBytes, inodes: usage.inodes, limitInodes };
  }

  return (record) => {
    const workspace = workspaceOf(record);
    const window = sampler.history(record.id)?.summary(performance.now() - windowMs);
    const problems = host.conditions().filter(({ active }) => active);
    const idleMs = idleSinceMs(record.id);
    const seen = network(record);
    return explain(current(record), {
      nowMs: clock.nowMs(),
      totals: totalsOf(record),
      hostProblems: problems.map(({ type, message }) => `${type}: ${message}`),
      ...(window === undefined ? {} : { window }),
      ...(workspace === undefined ? {} : { workspace }),
      ...(seen === undefined ? {} : { network: seen }),
      ...(idleMs === undefined ? {} : { idleSinceMs: idleMs }),
    });
  };
}
