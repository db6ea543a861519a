// Has the engine's volumes removed that no sandbox has any more: soon after a sandbox with some is gone, and after the start.

import { messageOf } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { SandboxRecord } from "./record.ts";
import type { Repository } from "./repository.ts";

export interface VolumeSweepOptions {
  readonly repository: Repository;
  /** Resolves to the names of those that were removed; to undefined if it could not be looked now. */
  readonly sweep: () => Promise<readonly string[] | undefined>;
  readonly log: Log;
}

/** The engine knows of a container's end a moment later; what cannot be removed by then is tried again. */
const delayMs = 2_000;
const retryMs = 30_000;

export function createVolumeSweep({ repository, sweep, log }: VolumeSweepOptions): { close(): void } {
  const owners = new Set(
    repository
      .all()
      .filter(hasVolumes)
      .map(({ id }) => id),
  );
  let timer: NodeJS.Timeout | undefined;

  function later(ms: number): void {
    clearTimeout(timer);
    timer = setTimeout(() => void run(), ms);
  }

  async function run(): Promise<void> {
    try {
      const removed = await sweep();
      if (removed === undefined) later(retryMs);
      else if (removed.length > 0) log.info({ count: removed.length }, "volumes removed that no sandbox has");
    } catch (error) {
      log.warn({ err: messageOf(error) }, "volumes that no sandbox has could not be removed");
      later(retryMs);
    }
  }

  const unsubscribe = repository.subscribe((id) => {
    const record = repository.get(id);
    if (record !== undefined) {
      if (hasVolumes(record)) owners.add(id);
    } else if (owners.delete(id)) later(delayMs);
  });
  later(delayMs);
  return {
    close() {
      clearTimeout(timer);
      unsubscribe();
    },
  };
}

function hasVolumes({ spec }: SandboxRecord): boolean {
  return spec.shared !== undefined || spec.volumes !== undefined || spec.workspace?.readOnly === true;
}
