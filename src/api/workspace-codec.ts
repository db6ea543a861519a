// Between the contract's workspace and the domain's.

import { create } from "@bufbuild/protobuf";
import {
  type Workspace,
  WorkspaceBackend,
  type WorkspaceLimits as WorkspaceLimitsMessage,
  WorkspaceSchema,
  type WorkspaceSnapshot,
  WorkspaceSnapshotSchema,
  WorkspaceState,
} from "../../gen/sandboxd/v1/workspace_pb.ts";
import type { Clock } from "../sandbox/clock.ts";
import type { LimitsRequest } from "../workspace/limits.ts";
import type { Excess, SnapshotRecord, WorkspaceLimits, WorkspaceRecord } from "../workspace/record.ts";
import type { SeenUsage } from "../workspace/usage-watch.ts";
import { durationOf, millisecondsOf, timestampOf } from "./time-codec.ts";

/** What is known of a workspace beside its record. Left out in events. */
export interface WorkspaceFacts {
  readonly usage: SeenUsage | undefined;
  readonly sandboxIds: readonly string[];
}

/** The contract's workspace. Deadlines are told by the wall clock as it is set now. */
export function workspaceOf(record: WorkspaceRecord, clock: Clock, facts?: WorkspaceFacts): Workspace {
  const { excess, backup } = record;
  return create(WorkspaceSchema, {
    workspaceId: record.id,
    tenant: record.tenant,
    generation: BigInt(record.generation),
    createTime: timestampOf(record.createdAtMs),
    labels: { ...record.labels },
    limits: limitsOf(record.limits),
    status: {
      state: WorkspaceState[record.state],
      message: record.message,
      backend: WorkspaceBackend[record.backend],
      uid: BigInt(record.uid),
      ...(record.backend === "PROJECT_QUOTA" ? { projectId: BigInt(record.projectId) } : {}),
      ...(facts?.usage === undefined ? {} : { usage: usageOf(facts.usage) }),
      ...(excess === undefined ? {} : { softLimit: excessOf(excess, clock) }),
      sandboxIds: [...(facts?.sandboxIds ?? [])],
      snapshots: record.snapshots.filter(({ isComplete }) => isComplete).length,
      ...(backup === undefined
        ? {}
        : {
            lastBackup: {
              time: timestampOf(backup.timeMs),
              bytes: BigInt(backup.bytes),
              error: backup.error,
            },
          }),
    },
  });
}

export function snapshotOf(workspace: WorkspaceRecord, snapshot: SnapshotRecord): WorkspaceSnapshot {
  const { bytes, inodes } = snapshot.counted;
  return create(WorkspaceSnapshotSchema, {
    snapshotId: snapshot.id,
    workspaceId: workspace.id,
    tenant: workspace.tenant,
    createTime: timestampOf(snapshot.createdAtMs),
    bytes: BigInt(bytes),
    ...(inodes === undefined ? {} : { inodes: BigInt(inodes) }),
  });
}

/** The limits that a message sets. */
export function limitsRequestOf(message: WorkspaceLimitsMessage | undefined): LimitsRequest {
  if (message === undefined) return {};
  const { sizeBytes, inodes, softBytes, softInodes, softGrace } = message;
  return {
    ...(sizeBytes === undefined ? {} : { bytes: Number(sizeBytes) }),
    ...(inodes === undefined ? {} : { inodes: Number(inodes) }),
    ...(softBytes === undefined ? {} : { softBytes: Number(softBytes) }),
    ...(softInodes === undefined ? {} : { softInodes: Number(softInodes) }),
    ...(softGrace === undefined ? {} : { softGraceMs: millisecondsOf(softGrace) }),
  };
}

function limitsOf({ bytes, inodes, softBytes, softInodes, softGraceMs }: WorkspaceLimits) {
  return {
    sizeBytes: BigInt(bytes),
    ...(inodes === undefined ? {} : { inodes: BigInt(inodes) }),
    ...(softBytes === undefined ? {} : { softBytes: BigInt(softBytes) }),
    ...(softInodes === undefined ? {} : { softInodes: BigInt(softInodes) }),
    ...(softGraceMs === undefined ? {} : { softGrace: durationOf(softGraceMs) }),
  };
}

function usageOf({ timeMs, bytes, inodes }: SeenUsage) {
  return {
    time: timestampOf(timeMs),
    bytes: BigInt(bytes),
    ...(inodes === undefined ? {} : { inodes: BigInt(inodes) }),
  };
}

function excessOf({ limits, sinceMs, graceEndMs, held }: Excess, clock: Clock) {
  return {
    limits: [...limits],
    since: timestampOf(sinceMs),
    ...(graceEndMs === undefined ? {} : { graceEndTime: timestampOf(clock.wallMs(graceEndMs)) }),
    enforced: held !== undefined,
  };
}
