// Whether a main command that ended is started again, and when. Pure; all times are steady.

import { createHash } from "node:crypto";
import type { Settlement } from "./decide.ts";
import { seconds } from "./lifetime.ts";
import type { Restarts, SandboxRecord, TransitionReason } from "./record.ts";

/** Ends that say that something failed; COMPLETED is none, and what somebody asked for is no end to undo. */
const failures: ReadonlySet<TransitionReason> = new Set([
  "EXITED",
  "SIGNALED",
  "OOM_KILLED",
  "HOST_REBOOT",
  "UNHEALTHY",
  "START_FAILED",
]);

/**
 * What an end comes to under the sandbox's restart policy: itself, or a start that is due later. `ranMs` is how long the run
 * was; 0 for a start that failed.
 */
export function underPolicy(
  record: SandboxRecord,
  end: Settlement,
  ranMs: number,
  nowMs: number,
): Settlement {
  const { restart } = record.spec;
  if (!isWanted(record, end.reason)) return end;
  const recent = recentOf(record, ranMs, nowMs);
  if (recent.length >= restart.maxAttempts) {
    const message = `${end.message}; it is not started again after ${count(recent.length, "restart")} within ${seconds(restart.windowMs)}`;
    return { ...end, message };
  }
  const delayMs = delayOf(record, recent.length);
  const restarts: Restarts = {
    count: (record.restarts?.count ?? 0) + 1,
    recentMs: [...recent, nowMs],
    nextAtMs: nowMs + delayMs,
  };
  const message = `${end.message}; it is started again in ${seconds(delayMs)} (restart ${recent.length + 1} of ${restart.maxAttempts})`;
  return { ...end, state: "BACKING_OFF", message, wanted: "RUNNING", restarts };
}

function isWanted({ spec: { restart, healthCheck } }: SandboxRecord, reason: TransitionReason): boolean {
  if (reason === "UNHEALTHY") return healthCheck?.onUnhealthy === "RESTART";
  switch (restart.mode) {
    case "NEVER":
      return false;
    case "ON_FAILURE":
      return failures.has(reason);
    case "UNLESS_STOPPED":
      return failures.has(reason) || reason === "COMPLETED";
  }
}

/** Restarts that count: those in the window, unless it has run well for long enough since. */
export function recentOf(
  { spec, restarts, health }: SandboxRecord,
  ranMs: number,
  nowMs: number,
): readonly number[] {
  const { windowMs, resetAfterMs } = spec.restart;
  // what is being stopped as unhealthy has no health any more, and was not well either
  const isWell = spec.healthCheck === undefined || health?.state === "HEALTHY";
  if (isWell && ranMs >= resetAfterMs) return [];
  return (restarts?.recentMs ?? []).filter((timeMs) => nowMs - timeMs < windowMs);
}

/**
 * Doubles from one restart to the next, and is shortened by up to a half, so that sandboxes that ended together do not start
 * together ("equal jitter", https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). The random
 * part is drawn from the sandbox's own instance, so that the same record always gives the same answer.
 */
function delayOf({ instance, spec: { restart }, restarts }: SandboxRecord, attempt: number): number {
  const wholeMs = Math.min(restart.maxDelayMs, restart.delayMs * 2 ** attempt);
  const digest = createHash("sha256")
    .update(`${instance}/${restarts?.count ?? 0}`)
    .digest();
  const share = digest.readUInt32BE(0) / 2 ** 32;
  return Math.round(wholeMs * (1 - share / 2));
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
