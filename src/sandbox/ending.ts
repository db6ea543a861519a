// How a run of the main command ended, and what that makes of the sandbox.

import type { Container } from "../engine/runtime.ts";
import { judgeOom } from "../monitor/oom.ts";
import type { Now, Present, Settlement } from "./decide.ts";
import { type Actor, actors, type Exit, type SandboxRecord, type TransitionReason } from "./record.ts";
import { underPolicy } from "./restart.ts";

/** Where a sandbox goes whose main command ended although it was to run. */
export function ended(record: SandboxRecord, observed: Present, wasRebooted: boolean, now: Now): Settlement {
  const { container } = observed;
  const killRequested = observed.touchedExternally || record.state === "STOPPING";
  const exit = exitOf(container, observed.oomKills, killRequested);
  const run = { containerId: container.id, endedRun: container.startedAt, exit };
  const end = { ...reasonOf(record, observed, exit, wasRebooted), ...run };
  // what somebody on the host has ended is not undone
  return end.reason === "EXTERNAL"
    ? end
    : underPolicy(record, end, lengthOf(record, container, now), now.nowMs);
}

/** How long the run was: not longer than the engine says, as its end may be seen late, nor than the steady clock allows. */
function lengthOf({ ranSinceMs }: SandboxRecord, container: Container, { nowMs }: Now): number {
  return ranSinceMs === undefined ? 0 : Math.min(ageOf(container), nowMs - ranSinceMs);
}

/** From start to end of a container that has ended, by the engine's clock. Unit: milliseconds. */
export function ageOf({ startedAt, finishedAt }: Container): number {
  const ageMs = Date.parse(finishedAt) - Date.parse(startedAt);
  return Number.isFinite(ageMs) ? Math.max(0, ageMs) : 0;
}

function reasonOf(
  record: SandboxRecord,
  { touchedExternally, initFailure }: Present,
  exit: Exit,
  wasRebooted: boolean,
): Settlement {
  if (wasRebooted) {
    const message = "the host was rebooted while it ran";
    return { state: "STOPPED", reason: "HOST_REBOOT", message, actor: actors.host, wanted: "STOPPED" };
  }
  if (record.state === "STOPPING") {
    // stopped by a policy that wants it to run again
    const { reason, message, actor } = record.transition;
    return failed(reason, message, actor);
  }
  if (touchedExternally) {
    const message = `stopped or killed behind the daemon; exit code ${exit.code}`;
    return failed("EXTERNAL", message, actors.external);
  }
  if (initFailure !== undefined) return failed("COMMAND_UNUSABLE", initFailure, actors.sandbox);
  if (exit.oomKilled) {
    const message = `killed at its memory limit of ${record.spec.resources.memoryBytes} bytes`;
    return failed("OOM_KILLED", message, actors.sandbox);
  }
  if (exit.signal !== 0) return failed("SIGNALED", `ended by signal ${exit.signal}`, actors.sandbox);
  if (exit.code !== 0) return failed("EXITED", `ended with exit code ${exit.code}`, actors.sandbox);
  const message = "ended with exit code 0";
  return { state: "STOPPED", reason: "COMPLETED", message, actor: actors.sandbox, wanted: "STOPPED" };
}

/** A settlement in FAILED, after which nothing more is wanted. */
export function failed(reason: TransitionReason, message: string, actor: Actor): Settlement {
  return { state: "FAILED", reason, message, actor, wanted: "STOPPED" };
}

const highestSignal = 64;

/** How a container's main command ended. Whether it died of its memory limit is judged by `judgeOom`. */
export function exitOf(container: Container, oomKills: number, killRequested = false): Exit {
  const code = container.exitCode;
  const oom = judgeOom({
    exitCode: code,
    engineOomKilled: container.oomKilled,
    killRequested,
    last: { oomKills, oomEvents: oomKills },
  });
  const finishedAtMs = Date.parse(container.finishedAt);
  return {
    code,
    signal: code > 128 && code <= 128 + highestSignal ? code - 128 : 0,
    oomKilled: oom.mainProcessKilledByOom,
    oomKills: Math.max(oom.oomKills, container.oomKilled ? 1 : 0),
    finishedAtMs: Number.isNaN(finishedAtMs) ? 0 : finishedAtMs,
  };
}
