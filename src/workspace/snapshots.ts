// What callers can do to snapshots of workspaces. Each is counted before it is made, and told once it is there.

import { randomBytes } from "node:crypto";
import { invalidField, SandboxdError } from "../errors.ts";
import type { Backend } from "./backend/backend.ts";
import {
  promisedOf,
  type SnapshotRecord,
  spaceOf,
  type WorkspaceEventType,
  type WorkspaceRecord,
} from "./record.ts";
import type { WorkspaceRepository } from "./repository.ts";
import type { WorkspaceRoom } from "./room.ts";
import type { Sidecars } from "./sidecars.ts";
import { isRefusal } from "./subject.ts";
import type { Workspaces } from "./workspaces.ts";

export interface Snapshots {
  /** `snapshotId` empty: one is made. */
  create(id: string, snapshotId: string): Promise<{ workspace: WorkspaceRecord; snapshot: SnapshotRecord }>;
  restore(id: string, snapshotId: string): Promise<WorkspaceRecord>;
  /** Gone is success. */
  delete(id: string, snapshotId: string): Promise<void>;
  /** What `read` yields, which is told where what a workspace, or a snapshot of it, holds can be read meanwhile. */
  reading<T>(
    id: string,
    snapshotId: string,
    read: (path: string, record: WorkspaceRecord) => AsyncIterable<T>,
  ): AsyncIterable<T>;
  /** The same of what it holds now: as of one moment, where that costs its sandboxes nothing. */
  readingNow<T>(
    id: string,
    read: (path: string, record: WorkspaceRecord) => AsyncIterable<T>,
  ): AsyncIterable<T>;
}

export interface SnapshotsOptions {
  readonly repository: WorkspaceRepository;
  readonly workspaces: Pick<Workspaces, "between" | "isInUse">;
  readonly room: WorkspaceRoom;
  readonly sidecars: Sidecars;
}

interface Opened {
  readonly path: string;
  readonly record: WorkspaceRecord;
  readonly close?: () => Promise<void>;
}

/** Of snapshots that are there only while they are read. Callers' ids do not begin like this. */
const reservedPrefix = "sandboxd-";
const momentary = `${reservedPrefix}now`;

/** Of one workspace: what all of it costs is seen at a glance, and the contract tells them in one answer. */
const mostSnapshots = 64;

export function createSnapshots({ repository, workspaces, room, sidecars }: SnapshotsOptions): Snapshots {
  const { between, isInUse } = workspaces;

  function refuseIfInUse({ id }: WorkspaceRecord, why: string): void {
    if (!isInUse(id)) return;
    throw new SandboxdError("WORKSPACE_IN_USE", `sandboxes run with workspace "${id}"; ${why}`, {
      hint: "stop them first",
      metadata: { workspace_id: id },
    });
  }

  /** What it is to be counted as, before it is there. */
  async function estimate(record: WorkspaceRecord, backend: Backend) {
    const { limits } = spaceOf(record);
    return backend.kind === "LOOP_IMAGE" ? limits : backend.usage(spaceOf(record));
  }

  async function remove(
    record: WorkspaceRecord,
    backend: Backend,
    snapshot: SnapshotRecord,
    event?: WorkspaceEventType,
  ): Promise<void> {
    await backend.removeSnapshot(spaceOf(record), snapshot.id);
    const isOther = ({ id }: SnapshotRecord) => id !== snapshot.id;
    repository.edit(record, (now) => ({ ...now, snapshots: now.snapshots.filter(isOther) }), event, snapshot);
  }

  async function* readOpened<T>(
    opened: Promise<Opened>,
    read: (path: string, record: WorkspaceRecord) => AsyncIterable<T>,
  ): AsyncIterable<T> {
    const { path, record, close } = await opened;
    // not in the queue: who reads may be slow, and sandboxes start with it meanwhile
    try {
      yield* read(path, record);
    } finally {
      await close?.();
    }
  }

  return {
    create(id, asked) {
      if (asked.startsWith(reservedPrefix)) {
        throw invalidField("snapshot_id", `ids beginning with "${reservedPrefix}" are reserved`);
      }
      return between(
        id,
        async (record, backend) => {
          const existing = record.snapshots.find((one) => one.id === asked);
          if (existing?.isComplete === true) return { workspace: record, snapshot: existing };
          // one whose removal was begun
          if (existing !== undefined) await remove(record, backend, existing);
          if (record.snapshots.length >= mostSnapshots) {
            throw new SandboxdError(
              "INVALID_STATE",
              `workspace "${id}" has ${mostSnapshots} snapshots, the most`,
              {
                hint: "delete one first",
              },
            );
          }
          if (!backend.isSnapshotAtomic) {
            refuseIfInUse(record, `${backend.kind} copies what should not change meanwhile`);
          }
          const begun: SnapshotRecord = {
            id: asked || `snap-${randomBytes(8).toString("hex")}`,
            createdAtMs: Date.now(),
            counted: await estimate(record, backend),
            isComplete: false,
          };
          const others = record.snapshots.filter((one) => one !== existing);
          room.admit(record, promisedOf({ ...record, snapshots: [...others, begun] }));
          // one that is torn when the daemon starts is removed
          repository.edit(record, (now) => ({ ...now, snapshots: [...now.snapshots, begun] }));
          try {
            await repository.durable();
            const counted = await backend.snapshot(spaceOf(record), begun.id);
            const snapshot = { ...begun, counted, isComplete: true };
            const whole = (one: SnapshotRecord) => (one.id === begun.id ? snapshot : one);
            const change = (now: WorkspaceRecord) => ({ ...now, snapshots: now.snapshots.map(whole) });
            await sidecars.write(change(repository.get(id) ?? record));
            const workspace = repository.edit(record, change, "SNAPSHOT_CREATED", snapshot);
            await repository.durable();
            return { workspace, snapshot };
          } catch (error) {
            // what cannot be removed now stays counted, and goes when the daemon starts again
            await remove(record, backend, begun).catch(() => undefined);
            throw error;
          }
        },
        { alone: "a snapshot is being taken" },
      );
    },

    restore(id, snapshotId) {
      return between(
        id,
        async (record, backend) => {
          const snapshot = found(record, snapshotId);
          refuseIfInUse(record, "what they see cannot be exchanged");
          const { bytes, inodes = Number.POSITIVE_INFINITY } = record.limits;
          const { counted } = snapshot;
          if (backend.kind !== "LOOP_IMAGE" && (counted.bytes > bytes || (counted.inodes ?? 0) > inodes)) {
            throw new SandboxdError(
              "LIMIT_UNENFORCEABLE",
              `snapshot "${snapshotId}" has ${counted.bytes} bytes; workspace "${id}" may hold ${bytes}`,
              { hint: "raise the limits with UpdateWorkspace first" },
            );
          }
          repository.edit(record, (now) => ({ ...now, restoring: snapshotId }));
          await repository.durable();
          const ended = ({ restoring: _, ...now }: WorkspaceRecord): WorkspaceRecord => now;
          try {
            await backend.restore(spaceOf(record), snapshotId);
          } catch (error) {
            // anything else may have been half done, and is finished when the daemon starts again
            if (isRefusal(error)) repository.edit(record, ended);
            throw error;
          }
          const restored = repository.edit(record, ended, "SNAPSHOT_RESTORED", snapshot);
          await repository.durable();
          return restored;
        },
        { alone: "a snapshot is being restored" },
      );
    },

    async delete(id, snapshotId) {
      await between(id, async (record, backend) => {
        const snapshot = record.snapshots.find((one) => one.id === snapshotId);
        if (snapshot === undefined) return;
        const torn = (one: SnapshotRecord) => (one.id === snapshotId ? { ...one, isComplete: false } : one);
        repository.edit(record, (now) => ({ ...now, snapshots: now.snapshots.map(torn) }));
        await repository.durable();
        await remove(record, backend, snapshot, "SNAPSHOT_DELETED");
        const left = repository.get(id);
        if (left !== undefined) await sidecars.write(left);
        await repository.durable();
      });
    },

    reading(id, snapshotId, read) {
      const opened = between<Opened>(id, async (record, backend) => {
        const space = spaceOf(record);
        if (snapshotId === "") return { path: (await backend.ready(space)).path, record };
        found(record, snapshotId);
        const snapshot = await backend.openSnapshot(space, snapshotId);
        return { path: snapshot.path, close: () => snapshot.close(), record };
      });
      return readOpened(opened, read);
    },

    readingNow(id, read) {
      const opened = between<Opened>(id, async (record, backend) => {
        const space = spaceOf(record);
        if (!backend.isSnapshotInstant) return { path: (await backend.ready(space)).path, record };
        // one that a daemon left that was killed meanwhile
        await backend.removeSnapshot(space, momentary);
        await backend.snapshot(space, momentary);
        const snapshot = await backend.openSnapshot(space, momentary);
        const close = async () => {
          await snapshot.close();
          await backend.removeSnapshot(space, momentary);
        };
        return { path: snapshot.path, close, record };
      });
      return readOpened(opened, read);
    },
  };
}

function found(record: WorkspaceRecord, snapshotId: string): SnapshotRecord {
  const snapshot = record.snapshots.find(({ id, isComplete }) => id === snapshotId && isComplete);
  if (snapshot !== undefined) return snapshot;
  throw new SandboxdError("SNAPSHOT_NOT_FOUND", `workspace "${record.id}" has no snapshot "${snapshotId}"`, {
    hint: "ListSnapshots shows which there are",
    metadata: { workspace_id: record.id },
  });
}
