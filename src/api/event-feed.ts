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

/** Each event after a number, without end; `undefined` about every 30 s of quiet. Ends by throwing the signal's reason. */
export async function* followEvents(
  events: EventLog,
  after: number,
  signal: AbortSignal,
): AsyncGenerator<StoredEvent | undefined> {
  let cursor = after;
  for (;;) {
    signal.throwIfAborted();
    checkResumable(events, cursor);
    const found = events.readAfter(cursor, batch);
    for (const event of found) {
      cursor = event.sequence;
      yield event;
    }
    if (found.length === 0 && !(await changed(events, cursor, signal))) yield undefined;
  }
}

/** Whether there is an event after the number, waiting for one a while. */
function changed(events: EventLog, cursor: number, signal: AbortSignal): Promise<boolean> {
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
      resolve(true);
    });
    const timer = setTimeout(() => {
      end();
      resolve(false);
    }, quietMs);
    signal.addEventListener("abort", onAbort, { once: true });
    if (events.newest() > cursor) {
      end();
      resolve(true);
    }
  });
}
