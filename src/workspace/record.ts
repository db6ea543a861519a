// What is kept of a workspace: what was asked, and what is. Plain values, stored as JSON.

import type { BackendKind, Space, SpaceUsage } from "./backend/backend.ts";

/** Complete; what is absent is not bounded. */
export interface WorkspaceLimits {
  readonly bytes: number;
  /** Absent where the backend bounds none. */
  readonly inodes?: number;
  readonly softBytes?: number;
  readonly softInodes?: number;
  /** How long a soft limit may be exceeded before it holds. Absent: for ever. */
  readonly softGraceMs?: number;
}

export type WorkspaceState = "CREATING" | "READY" | "UNAVAILABLE" | "DELETING" | "DELETED";

/** Kinds of events of a workspace; mirrors `sandboxd.v1.EventType`. */
export type WorkspaceEventType =
  | "WORKSPACE_CREATED"
  | "WORKSPACE_STATE_CHANGED"
  | "WORKSPACE_UPDATED"
  | "WORKSPACE_DELETED"
  | "WORKSPACE_SOFT_LIMIT"
  | "SNAPSHOT_CREATED"
  | "SNAPSHOT_DELETED"
  | "SNAPSHOT_RESTORED";

export interface SnapshotRecord {
  readonly id: string;
  readonly createdAtMs: number;
  /** What it is counted as. */
  readonly counted: SpaceUsage;
  /** Whether all of it is there. One that is not, when the daemon starts, is removed. */
  readonly isComplete: boolean;
}

export interface BackupRecord {
  /** When it began, by the wall clock. */
  readonly timeMs: number;
  readonly bytes: number;
  /** Why it failed. Empty if it did not. */
  readonly error: string;
}

/** Of soft limits that are exceeded. */
export interface Excess {
  readonly limits: readonly ("soft_bytes" | "soft_inodes")[];
  /** By the wall clock. */
  readonly sinceMs: number;
  /** Steady time. */
  readonly graceEndMs?: number;
  /** Once the grace is over: what the kernel holds instead of the hard limits. */
  readonly held?: { readonly bytes: number; readonly inodes?: number };
}

export interface WorkspaceRecord {
  readonly id: string;
  /** Made anew with each accepted create. */
  readonly instance: string;
  readonly tenant: string;
  readonly uid: number;
  readonly projectId: number;
  readonly backend: BackendKind;
  readonly limits: WorkspaceLimits;
  readonly labels: Readonly<Record<string, string>>;
  /** Of the request as the caller made it: the same request again means the same workspace. */
  readonly requestHash: string;
  readonly generation: number;
  readonly createdAtMs: number;
  readonly state: WorkspaceState;
  /** Why it is UNAVAILABLE, or not deleted yet. */
  readonly message: string;
  readonly excess?: Excess;
  /** Oldest first. */
  readonly snapshots: readonly SnapshotRecord[];
  /** The snapshot that it is being made to hold; finished when the daemon starts. */
  readonly restoring?: string;
  /** The newest try. */
  readonly backup?: BackupRecord;
}

/** What a backend is told of it. The name of its folder tells an operator whose it is, and is never another's. */
export function spaceOf({
  id,
  instance,
  uid,
  projectId,
  limits,
  excess,
}: Pick<WorkspaceRecord, "id" | "instance" | "uid" | "projectId" | "limits" | "excess">): Space {
  const { bytes, inodes } = excess?.held ?? limits;
  return {
    name: `${id.slice(0, 46)}-${instance.slice(0, 8)}`,
    uid,
    projectId,
    limits: { bytes, ...(inodes === undefined ? {} : { inodes }) },
  };
}

/** What a workspace whose inodes nothing bounds is counted as having of them. */
const bytesPerUnboundedInode = 4_096;

/** What its tenant and the host are promised to it, its snapshots included. */
export function promisedOf({ limits, snapshots }: Pick<WorkspaceRecord, "limits" | "snapshots">): {
  readonly bytes: number;
  readonly inodes: number;
} {
  const all: readonly SpaceUsage[] = [limits, ...snapshots.map(({ counted }) => counted)];
  return {
    bytes: all.reduce((sum, { bytes }) => sum + bytes, 0),
    inodes: all.reduce((sum, { bytes, inodes }) => sum + (inodes ?? inodesCounted(bytes)), 0),
  };
}

function inodesCounted(bytes: number): number {
  return Math.ceil(bytes / bytesPerUnboundedInode);
}
