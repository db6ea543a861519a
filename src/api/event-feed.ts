// Reads the event log for one reader at the reader's own pace: nothing is buffered, so a slow reader costs nothing.

import { SandboxdError } from "../errors.ts";
import type { EventLog, StoredEvent } from "../store/event-log.ts";

const batch = 100;
const quietMs = 30_000;

/** Refuses a number that this log cannot resume from. @throws SandboxdError SEQUENCE_TRUNCATED. */
export function checkResumable(events: EventLog, after: number): void {
  const oldest = events.oldest();
  const newest = events.newest();
  if (after + 1 >= oldest && after <= newest) return;
  throw new SandboxdError(
    "SEQUENCE_TRUNCATED",
    `events after ${after} cannot be told: ${oldest} to ${newest} are retained`,
    {
      hint: "list what is there now and resume from its sequence number; another state_epoch of the host means a new count",
      metadata: { oldest_sequence: String(oldest), newest_sequence: String(newest) },
    },
  );
}

/** One step of a feed: everything up to `sequence` is known; `told` is absent where there is nothing to tell. */
export interface Step<T> {
  readonly sequence: number;
  readonly told?: T;
}

/**
 * What `select` makes of each event after a number, without end; and where it makes nothing for about 30 s, a step that
 * tells nothing, so that a reader can tell quiet from dead. Ends by throwing the signal's reason.
 */
export async function* followEvents<T>(
  events: EventLog,
  after: number,
  signal: AbortSignal,
  select: (stored: StoredEvent) => T | undefined,
): AsyncGenerator<Step<T>> {
  let cursor = after;
  let lastStepMs = performance.now();
  for (;;) {
    signal.throwIfAborted();
    checkResumable(events, cursor);
    const found = events.readAfter(cursor, batch);
    for (const stored of found) {
      cursor = stored.sequence;
      const told = select(stored);
      if (told === undefined) continue;
      yield { sequence: cursor, told };
      lastStepMs = performance.now();
    }
    const quietForMs = performance.now() - lastStepMs;
    if (quietForMs >= quietMs) {
      yield { sequence: cursor };
      lastStepMs = performance.now();
    } else if (found.length === 0) {
      await changed(events, cursor, quietMs - quietForMs, signal);
    }
  }
}

/** Waits until there is an event after the number, at most a while. */
function changed(events: EventLog, cursor: number, waitMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      unsubscribe();
      signal.removeEventListener("abort", onAbort);
    };
    const onAbort = () => {
      end();
      reject(signal.reason);
    };
    const unsubscribe = events.subscribe(() => {
      end();
      resolve();
    });
    const timer = setTimeout(() => {
      end();
      resolve();
    }, waitMs);
    signal.addEventListener("abort", onAbort, { once: true });
    if (events.newest() > cursor) {
      end();
      resolve();
    }
  });
}
