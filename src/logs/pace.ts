// Bounds what the reading of logs may take of the daemon's one thread, whatever sandboxes write: beyond that their logs wait in the
// engine's files, and what is rotated away meanwhile is lost to the receiver, and told as a gap.

import { setTimeout as sleep } from "node:timers/promises";

export interface Pace {
  /** Resolves when the next batch may be read, by whomever, after one of this size was. */
  after(records: number, bytes: number, signal: AbortSignal): Promise<void>;
}

/** Measured: decoding and encoding take 5 to 10 µs for a line, and little for its length; this is about a fifth of a processor. */
const recordsPerSecond = 20_000;
const bytesPerSecond = 16 * 1024 * 1024;
/** So long reading may go on without a pause. */
const burstMs = 100;

export function createPace(nowMs = () => performance.now()): Pace {
  /** Until when the time that was granted so far is used up. */
  let usedUntilMs = nowMs();
  return {
    async after(records, bytes, signal) {
      const costMs = Math.max((records * 1_000) / recordsPerSecond, (bytes * 1_000) / bytesPerSecond);
      usedUntilMs = Math.max(usedUntilMs, nowMs()) + costMs;
      const waitMs = usedUntilMs - burstMs - nowMs();
      if (waitMs > 0) await sleep(waitMs, undefined, { signal });
    },
  };
}
