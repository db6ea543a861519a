// The room that is left for workspaces in a tenant's quota and on the host's disk, updates under way included. Both levels are looked at in
// one step.

import { exceeding, refuseIfAny } from "../sandbox/admission.ts";
import type { Quota } from "../tenant/record.ts";
import { promisedOf, type WorkspaceRecord } from "./record.ts";
import type { WorkspaceRepository } from "./repository.ts";

/** What one workspace takes, its snapshots included. */
export interface SpaceAmounts {
  readonly bytes: number;
  readonly inodes: number;
}

export interface WorkspaceRoom {
  /** @throws SandboxdError TENANT_QUOTA_EXCEEDED or HOST_CAPACITY_EXCEEDED unless a new workspace of this size fits. */
  admitNew(tenant: string, asked: SpaceAmounts): void;
  /** The same for one that is there and is to take so much. What it has is not refused to it. */
  admit(record: WorkspaceRecord, asked: SpaceAmounts): void;
  /** Sets aside what a change asks for while it goes on. */
  during<T>(id: string, asked: SpaceAmounts, change: () => Promise<T>): Promise<T>;
  /** What is promised to all. */
  promised(): SpaceAmounts;
}

export interface WorkspaceRoomOptions {
  readonly repository: Pick<WorkspaceRepository, "all">;
  readonly quotaOf: (tenant: string) => Quota;
  /** What the root layers of a tenant's sandboxes take of the same quota. */
  readonly rootBytesOf: (tenant: string) => number;
  /** Bytes of the host's disk that may be promised. Undefined while that is not known. */
  readonly allocatableBytes: () => number | undefined;
}

const hint = "ask for less, delete a workspace or a snapshot, or raise the tenant's quota with PutTenant";

export function createWorkspaceRoom({
  repository,
  quotaOf,
  rootBytesOf,
  allocatableBytes,
}: WorkspaceRoomOptions): WorkspaceRoom {
  const changing = new Map<string, SpaceAmounts>();

  const taken = (record: WorkspaceRecord): SpaceAmounts => {
    const [now, then] = [promisedOf(record), changing.get(record.id)];
    if (then === undefined) return now;
    return { bytes: Math.max(now.bytes, then.bytes), inodes: Math.max(now.inodes, then.inodes) };
  };

  const sumOf = (records: readonly WorkspaceRecord[]): SpaceAmounts =>
    records
      .map(taken)
      .reduce((sum, { bytes, inodes }) => ({ bytes: sum.bytes + bytes, inodes: sum.inodes + inodes }), {
        bytes: 0,
        inodes: 0,
      });

  function admit(tenant: string, asked: SpaceAmounts, record?: WorkspaceRecord): void {
    const others = repository.all().filter(({ id }) => id !== record?.id);
    const ofTenant = others.filter((other) => other.tenant === tenant);
    const held = record === undefined ? { bytes: 0, inodes: 0 } : taken(record);
    const [tenants, all] = [sumOf(ofTenant), sumOf(others)];
    const quota = quotaOf(tenant);
    const ofQuota = (
      resource: "workspaces" | "disk_bytes" | "inodes",
      limit: number | undefined,
      promised: number,
      amount: { readonly asked: number; readonly held: number },
    ) => (limit === undefined ? undefined : exceeding("TENANT", resource, limit, promised, amount));
    const allocatable = allocatableBytes();
    const bytes = { asked: asked.bytes, held: held.bytes };
    const violations = [
      ofQuota("workspaces", quota.workspaces, ofTenant.length, {
        asked: 1,
        held: record === undefined ? 0 : 1,
      }),
      ofQuota("disk_bytes", quota.diskBytes, tenants.bytes + rootBytesOf(tenant), bytes),
      ofQuota("inodes", quota.inodes, tenants.inodes, { asked: asked.inodes, held: held.inodes }),
      allocatable === undefined ? undefined : exceeding("HOST", "disk_bytes", allocatable, all.bytes, bytes),
    ].filter((violation) => violation !== undefined);
    refuseIfAny(violations, tenant, hint);
  }

  return {
    admitNew: (tenant, asked) => admit(tenant, asked),
    admit: (record, asked) => admit(record.tenant, asked, record),
    async during(id, asked, change) {
      changing.set(id, asked);
      try {
        return await change();
      } finally {
        changing.delete(id);
      }
    },
    promised: () => sumOf(repository.all()),
  };
}
