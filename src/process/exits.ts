// How a process ended, as it is kept: by its keeper's word, or by what else is known where there is none.

import type { Connection } from "../toolbox/connection.ts";
import { ask, type KeeperExit } from "./keeper.ts";
import type { ProcessExit, ProcessRecord } from "./record.ts";

export interface ExitEvidence {
  readonly record: ProcessRecord;
  /** Out-of-memory kills that the sandbox has seen; undefined if it is not known. */
  readonly oomKills: () => number | undefined;
}

export function exitOf(
  { sequence: _, ...told }: KeeperExit,
  { record, oomKills }: ExitEvidence,
): ProcessExit {
  const wasKilled = told.signal === 9 && told.cause === "SELF";
  return { ...told, oomKilled: wasKilled && (oomKills() ?? 0) > record.oomKills };
}

/** Of one whose keeper was ended from inside of the sandbox. */
export const lostExit = (record: ProcessRecord, nowMs: number): ProcessExit => ({
  ...unknownFigures(record, nowMs),
  exitCode: 255,
  signal: 0,
  cause: "UNKNOWN",
});

/** Of one whose sandbox ended: the kernel kills all that is in it. */
export const sandboxExit = (record: ProcessRecord, nowMs: number): ProcessExit => ({
  ...unknownFigures(record, nowMs),
  exitCode: 137,
  signal: 9,
  cause: "SANDBOX_ENDED",
});

const unknownFigures = ({ acceptedAtMs }: ProcessRecord, nowMs: number) => ({
  oomKilled: false,
  durationUs: Math.max(0, Math.round((nowMs - acceptedAtMs) * 1_000)),
  userUs: 0,
  systemUs: 0,
  maxResidentBytes: 0,
  exitedAtMs: Date.now(),
});

/** A keeper that was told to go. */
const farewellMs = 1_000;

/** The end was taken: the keeper closes, and goes with the last of its process's descendants. */
export async function dismiss(keeper: Connection): Promise<void> {
  const timer = setTimeout(() => keeper.close(), farewellMs);
  try {
    await keeper.send(ask.forget());
    while ((await keeper.receive()) !== undefined);
  } catch {
    // what it says after its end is nobody's
  } finally {
    clearTimeout(timer);
    keeper.close();
  }
}
