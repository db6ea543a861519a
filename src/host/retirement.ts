// Which of the sandboxes that have ended are no longer kept. Pure.

import type { SandboxRecord } from "../sandbox/record.ts";

/** A sandbox that has ended, and since when. Steady time. */
export interface Rested {
  readonly record: SandboxRecord;
  readonly sinceMs: number;
}

export interface Retention {
  readonly ageMs: number;
  readonly count: number;
}

/** One that is to go, and why, in words. */
export interface Retired {
  readonly record: SandboxRecord;
  readonly why: string;
}

/** Whether it has ended, and nobody wants anything of it. */
export function isAtRest({ wanted, state }: SandboxRecord): boolean {
  return wanted === "STOPPED" && (state === "STOPPED" || state === "FAILED");
}

/** Those kept for long enough, and of the rest the oldest that are too many; the oldest first. */
export function chooseRetired(
  rested: readonly Rested[],
  { ageMs, count }: Retention,
  nowMs: number,
): readonly Retired[] {
  const oldestFirst = rested
    .filter(({ record }) => isAtRest(record))
    .toSorted((a, b) => a.sinceMs - b.sinceMs || (a.record.id < b.record.id ? -1 : 1));
  const tooMany = oldestFirst.length - count;
  return oldestFirst.flatMap(({ record, sinceMs }, index) => {
    const keptMs = nowMs - sinceMs;
    const state = record.state.toLowerCase();
    if (keptMs >= ageMs) {
      return [{ record, why: `${state} for ${wholeSeconds(keptMs)}, and kept for ${wholeSeconds(ageMs)}` }];
    }
    if (index >= tooMany) return [];
    return [{ record, why: `${state}, and the oldest of ${oldestFirst.length - index}; ${count} are kept` }];
  });
}

const wholeSeconds = (ms: number): string => `${Math.floor(ms / 1_000)} s`;
