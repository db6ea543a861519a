// What a tenant is promised, and what its quota leaves. Sums over the records, so they cannot drift from them.

import type { QuotaViolation } from "../errors.ts";
import { type Amount, exceeding } from "../sandbox/admission.ts";
import { holdsCapacity, type Resources, type SandboxRecord } from "../sandbox/record.ts";
import { promisedOf, type WorkspaceRecord } from "../workspace/record.ts";
import { type Quota, type QuotaKey, quotaKeys, quotaNames } from "./record.ts";

export type TenantPromises = Readonly<Record<QuotaKey, number>>;

/** What is promised to these sandboxes and workspaces, which are all of one tenant. */
export function promisedTo(
  records: Iterable<SandboxRecord>,
  workspaces: Iterable<Pick<WorkspaceRecord, "limits" | "snapshots">> = [],
): TenantPromises {
  const sums: Record<QuotaKey, number> = {
    sandboxes: 0,
    runningSandboxes: 0,
    cpuRequestMillis: 0,
    cpuMillis: 0,
    memoryRequestBytes: 0,
    memoryBytes: 0,
    pids: 0,
    workspaces: 0,
    diskBytes: 0,
    inodes: 0,
  };
  for (const record of records) {
    sums.sandboxes++;
    sums.diskBytes += record.spec.rootBytes ?? 0;
    if (!holdsCapacity(record)) continue;
    for (const key of quotaKeys) sums[key] += key === "sandboxes" ? 0 : amountOf(record.spec.resources, key);
  }
  for (const workspace of workspaces) {
    const { bytes, inodes } = promisedOf(workspace);
    sums.workspaces++;
    sums.diskBytes += bytes;
    sums.inodes += inodes;
  }
  return sums;
}

/** A sandbox that is there already, and what it holds if it holds any capacity. */
export interface Present {
  readonly held: Resources | undefined;
}

/** Resources of a sandbox, and the size of its root layer, if that can be written to. */
export interface Asked {
  readonly resources: Resources;
  readonly rootBytes?: number | undefined;
}

/** Every field of the quota that does not suffice for a sandbox beside what is promised to the others. */
export function quotaViolations(
  { resources, rootBytes = 0 }: Asked,
  others: TenantPromises,
  quota: Quota,
  present?: Present,
): readonly QuotaViolation[] {
  const heldOf = (key: QuotaKey) => {
    if (key === "sandboxes") return present === undefined ? 0 : 1;
    // a layer is there as long as its sandbox
    if (key === "diskBytes") return present === undefined ? 0 : rootBytes;
    return present?.held === undefined ? 0 : amountOf(present.held, key);
  };
  return quotaKeys.flatMap((key) => {
    const limit = quota[key];
    if (limit === undefined) return [];
    const asked = key === "diskBytes" ? rootBytes : amountOf(resources, key);
    const amount: Amount = { asked, held: heldOf(key) };
    return exceeding("TENANT", quotaNames[key], limit, others[key], amount) ?? [];
  });
}

/** The fields of the quota of which more is promised than it allows. */
export function overQuota(promised: TenantPromises, quota: Quota): readonly QuotaKey[] {
  return quotaKeys.filter((key) => promised[key] > (quota[key] ?? Number.POSITIVE_INFINITY));
}

/** What one running sandbox takes of a field. */
function amountOf(resources: Resources, key: QuotaKey): number {
  switch (key) {
    case "sandboxes":
    case "runningSandboxes":
      return 1;
    // of workspaces, which sandboxes only use
    case "workspaces":
    case "diskBytes":
    case "inodes":
      return 0;
    default:
      return resources[key];
  }
}
