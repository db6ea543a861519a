// When each sandbox is looked at: whenever somebody has a reason to, one look after the other, and again, later each time, after
// a look that failed.

import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import { createQueues } from "./queue.ts";

export interface LooksOptions {
  /** Looks at the sandbox and does what is to do. `fresh`: it was just accepted. Resolves to whether there still is one. */
  readonly look: (id: string, fresh: boolean) => Promise<boolean>;
  /** Whether the engine is known not to be usable now: then it is not asked, and the next list wakes those who wait. */
  readonly isEngineAway: () => boolean;
  readonly log: Log;
}

export interface Looks {
  /** Has it looked at, unless it waits for that already. */
  kick(id: string, options?: { readonly fresh?: boolean }): void;
  /** Whether it was looked at in this life of the daemon, and no look was left out since because the engine was away. */
  hasLookedAt(id: string): boolean;
  /** Does `job` after all that the sandbox waits for already. */
  run<T>(id: string, job: () => Promise<T>): Promise<T>;
  /** Resolves when nothing is going on. */
  idle(): Promise<void>;
  isClosed(): boolean;
  close(): void;
}

/** Wait before a look that failed is tried again: the first time, and the most. */
const firstRetryMs = 1_000;
const mostRetryMs = 30_000;

export function createLooks({ look, isEngineAway, log }: LooksOptions): Looks {
  const queues = createQueues();
  const kicked = new Set<string>();
  const lookedAt = new Set<string>();
  const retries = new Map<string, NodeJS.Timeout>();
  /** Failures in a row, by sandbox. */
  const failures = new Map<string, number>();
  let closed = false;

  function kick(id: string, { fresh = false }: { readonly fresh?: boolean } = {}): void {
    if (closed || (kicked.has(id) && !fresh)) return;
    kicked.add(id);
    cancelRetry(id);
    void queues.run(id, async () => {
      kicked.delete(id);
      lookedAt.delete(id);
      if (isEngineAway()) return;
      try {
        if (await look(id, fresh)) lookedAt.add(id);
        failures.delete(id);
      } catch (error) {
        if (!closed) retryLater(id, error);
      }
    });
  }

  function retryLater(id: string, error: unknown): void {
    const reason = error instanceof SandboxdError ? error.reason : undefined;
    const count = failures.get(id) ?? 0;
    const delayMs = Math.min(mostRetryMs, firstRetryMs * 2 ** count);
    failures.set(id, count + 1);
    cancelRetry(id);
    log.warn({ sandbox: id, reason, err: messageOf(error), delayMs }, "step failed; will look again");
    retries.set(id, setTimeout(() => kick(id), delayMs).unref());
  }

  function cancelRetry(id: string): void {
    clearTimeout(retries.get(id));
    retries.delete(id);
  }

  return {
    kick,
    hasLookedAt: (id) => lookedAt.has(id),
    run: (id, job) => queues.run(id, job),
    idle: () => queues.idle(),
    isClosed: () => closed,
    close() {
      closed = true;
      for (const id of [...retries.keys()]) cancelRetry(id);
    },
  };
}
