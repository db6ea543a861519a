// What is done about workspaces without being asked: finishing what an earlier daemon began, taking back what the state does not know, and trying
// again what could not be done.

import { messageOf } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Tenants } from "../tenant/tenants.ts";
import type { Backend } from "./backend/backend.ts";
import { spaceOf, type WorkspaceRecord } from "./record.ts";
import type { WorkspaceRepository } from "./repository.ts";
import type { Sidecars } from "./sidecars.ts";
import type { Steps } from "./steps.ts";

export interface Recovery {
  /**
   * Takes back what the state does not know, from beside the files themselves. Before anybody is served: else their owners' uids could be given to
   * others.
   */
  takeBack(): Promise<void>;
  /** Finishes what an earlier daemon began. */
  resume(): Promise<void>;
  /** Tries again what could not be done, and takes back what was put beside the files since. Does not fail. */
  look(): Promise<void>;
  /** Names of spaces of a backend that no record is of: of a state that was lost, or a power cut. They are left alone. */
  strangers(backend: Backend): Promise<readonly string[]>;
  /** Begins nothing more by itself. */
  close(): void;
}

export interface RecoveryOptions extends Pick<Steps, "make" | "erase" | "mounted"> {
  readonly repository: WorkspaceRepository;
  readonly sidecars: Sidecars;
  readonly tenants: Pick<Tenants, "adopt">;
  /** Does a step in the workspace's queue, with its record as it is then, if it is there. */
  readonly queued: (id: string, step: (record: WorkspaceRecord) => Promise<unknown>) => Promise<void>;
  readonly isBeingMade: (record: WorkspaceRecord) => boolean;
  readonly log: Log;
}

export function createRecovery(options: RecoveryOptions): Recovery {
  const { repository, sidecars, tenants, queued, isBeingMade, make, erase, mounted, log } = options;
  let isClosed = false;

  async function takeBack(): Promise<void> {
    const known = new Set(repository.all().map((record) => spaceOf(record).name));
    for (const record of await sidecars.except(known)) {
      if (repository.get(record.id) !== undefined) continue;
      try {
        tenants.adopt(record.tenant, record.uid);
        repository.adopt(record);
        log.warn({ workspace: record.id }, "workspace taken back; the daemon's state did not know it");
      } catch (error) {
        log.warn({ workspace: record.id, err: messageOf(error) }, "workspace cannot be taken back yet");
      }
    }
  }

  /** The copy beside the files is written again: the earlier daemon may have been killed between a change and it. */
  async function asItWas(record: WorkspaceRecord): Promise<void> {
    await mounted(record);
    await sidecars.write(repository.get(record.id) ?? record);
  }

  return {
    takeBack,

    async resume() {
      for (const { id } of repository.all()) {
        if (isClosed) return;
        await queued(id, async (record) => {
          if (record.state === "CREATING") await make(record);
          else if (record.state === "DELETING") await erase(record);
          else await asItWas(record);
        }).catch((error: unknown) =>
          log.warn({ workspace: id, err: messageOf(error) }, "workspace is not as it should be"),
        );
      }
    },

    async strangers(backend) {
      const known = new Set(repository.all().map((record) => spaceOf(record).name));
      return (await backend.list()).filter((name) => !known.has(name));
    },

    close() {
      isClosed = true;
    },

    async look() {
      await takeBack();
      for (const { id, state } of repository.all()) {
        if (isClosed) return;
        if (state === "READY") continue;
        await queued(id, async (record) => {
          if (record.state === "DELETING") await erase(record);
          if (record.state === "UNAVAILABLE") await mounted(record);
          // one that could neither be made nor given up, as the state could not be written
          if (record.state === "CREATING" && !isBeingMade(record)) await make(record);
        }).catch(() => undefined);
      }
    },
  };
}
