// What is done to one workspace at its backend, and told as its state. Each step is the only one of its workspace.

import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { FileIdentity } from "./backend/backend.ts";
import type { Backends } from "./backends.ts";
import { spaceOf, type WorkspaceRecord, type WorkspaceState } from "./record.ts";
import type { WorkspaceRepository } from "./repository.ts";
import type { Sidecars } from "./sidecars.ts";
import { isRefusal } from "./subject.ts";

export interface Steps {
  /** Writes that it is in another state, and why. */
  changed(record: WorkspaceRecord, state: WorkspaceState, message?: string): WorkspaceRecord;
  /** Makes it, or removes what was made of it. */
  make(record: WorkspaceRecord): Promise<WorkspaceRecord>;
  /** Files first, then what tells of them: a workspace is forgotten only once nothing of it is left. */
  erase(record: WorkspaceRecord): Promise<void>;
  /** Finishes what was begun with it, and has it there to be mounted. What comes of it is its state. */
  mounted(record: WorkspaceRecord): Promise<{ readonly path: string; readonly identity: FileIdentity }>;
}

export interface StepsOptions {
  readonly repository: WorkspaceRepository;
  readonly backends: Backends;
  readonly sidecars: Sidecars;
  readonly log: Log;
}

export function createSteps({ repository, backends, sidecars, log }: StepsOptions): Steps {
  function changed(record: WorkspaceRecord, state: WorkspaceState, message = ""): WorkspaceRecord {
    // what is to be deleted does not come back, whatever was begun before
    const isGoing = (now: WorkspaceRecord) => now.state === "DELETING" && state !== "DELETING";
    const change = (now: WorkspaceRecord) => (isGoing(now) ? now : { ...now, state, message });
    return repository.edit(record, change, "WORKSPACE_STATE_CHANGED");
  }

  async function make(record: WorkspaceRecord): Promise<WorkspaceRecord> {
    try {
      const backend = await backends.of(record.backend);
      // beside each other: what power goes out under, before the intent is on disk, is an empty space that `strangers` tells of
      await Promise.all([repository.durable(), backend.create(spaceOf(record))]);
      // before it is READY, so that none is that could not be taken back
      await sidecars.write({ ...record, state: "READY" });
      const made = changed(record, "READY");
      await repository.durable();
      return made;
    } catch (error) {
      try {
        await erase(changed(record, "DELETING", messageOf(error)));
      } catch {
        // it is tried again; why it could not be made tells more
      }
      throw error;
    }
  }

  async function erase(record: WorkspaceRecord): Promise<void> {
    try {
      await repository.durable();
      const backend = await backends.of(record.backend);
      await backend.remove(spaceOf(record));
      await sidecars.remove(record);
    } catch (error) {
      const message = messageOf(error);
      log.warn({ workspace: record.id, err: message }, "workspace cannot be removed; it is tried again");
      if (record.message !== message) changed(record, "DELETING", message);
      throw error;
    }
    repository.remove({ ...record, state: "DELETED", message: "" });
    await repository.durable();
  }

  async function mounted(record: WorkspaceRecord) {
    try {
      const backend = await backends.of(record.backend);
      // a sandbox that starts before `resume` came to it must not see what is half restored
      const found = await backend.ready(spaceOf(await finished(record)));
      if (record.state === "UNAVAILABLE") changed(record, "READY");
      return found;
    } catch (error) {
      const message = messageOf(error);
      if (record.state !== "UNAVAILABLE" || record.message !== message) {
        log.warn({ workspace: record.id, err: message }, "workspace cannot be used");
        changed(record, "UNAVAILABLE", message);
      }
      throw new SandboxdError(
        "WORKSPACE_UNAVAILABLE",
        `workspace "${record.id}" cannot be used: ${message}`,
        {
          hint: "CheckHost says what the host lacks; it is tried again every 30 s",
          cause: error,
        },
      );
    }
  }

  /** Snapshots that were begun and not completed go; a restore that was begun is completed. */
  async function finished(record: WorkspaceRecord): Promise<WorkspaceRecord> {
    const { restoring } = record;
    const torn = record.snapshots.filter(({ isComplete }) => !isComplete);
    if (restoring === undefined && torn.length === 0) return record;
    const backend = await backends.of(record.backend);
    if (restoring !== undefined) {
      await backend.restore(spaceOf(record), restoring).catch((error: unknown) => {
        if (!isRefusal(error)) throw error;
      });
    }
    for (const { id } of torn) await backend.removeSnapshot(spaceOf(record), id);
    return repository.edit(record, ({ restoring: _, ...now }) => ({
      ...now,
      snapshots: now.snapshots.filter(({ isComplete }) => isComplete),
    }));
  }

  return { changed, make, erase, mounted };
}
