// Every change of a sandbox has a cause, and a daemon may not make one up: a caller who asked, a policy that was due, an end
// that was seen, or somebody on the host.

import { containerName } from "../../src/sandbox/plan.ts";
import type { SandboxRecord } from "../../src/sandbox/record.ts";
import type { ModelContainer, ModelEngine } from "./model-engine.ts";
import { hostId, labels } from "./model-host.ts";
import { expiryOf, type Story } from "./story.ts";

export interface World {
  readonly engine: ModelEngine;
  readonly steadyMs: number;
  readonly nowMs: number;
  readonly hasDrained: boolean;
  /** Whether a caller asked to delete the tenant with all that it has. */
  readonly isTenantToGo: boolean;
  readonly isCalm: boolean;
  /** Whether the engine may do things long after they were asked for. */
  readonly isLate: boolean;
  readonly isWallSet: boolean;
  readonly isIdle: boolean;
  readonly wasIll: boolean;
}

/** What is wrong with a change; undefined if nothing. Notes in the story what follows from it. */
export function causeProblem(
  story: Story,
  before: SandboxRecord,
  next: SandboxRecord,
  type: string,
  world: World,
): string | undefined {
  if (type === "SANDBOX_RENEWED") return renewalProblem(story, before, next, world);
  if (type === "SANDBOX_EXPIRING") return warningProblem(story, next, world);
  if (next.expiresAtMs !== before.expiresAtMs) return `${next.id}: its lease moved by ${type}`;
  if (next.state === "PENDING") story.backoff = undefined;
  if (next.wanted === "DELETED") story.isToGo = true;
  if (next.state === "BACKING_OFF" && type === "SANDBOX_STATE_CHANGED")
    return backoffProblem(story, before, next, world);
  if (next.wanted === before.wanted) return undefined;
  const what = `${next.id} became ${next.state}, wanted ${next.wanted}, for ${next.transition.reason}`;
  const problem = wantedProblem(story, next, world);
  return problem === undefined ? undefined : `I2: ${what}; but ${problem}`;
}

/** An end is decided on before its report is put together. */
const reportMs = 600;

const verbs = {
  RUNNING: ["start", "resume"],
  PAUSED: ["pause"],
  STOPPED: ["stop"],
  DELETED: ["delete"],
} as const;

function wantedProblem(story: Story, next: SandboxRecord, world: World): string | undefined {
  const { reason } = next.transition;
  switch (reason) {
    case "REQUESTED":
      if (next.wanted === "DELETED" && world.isTenantToGo) return undefined;
      return verbs[next.wanted].some((verb) => story.asked.has(verb)) ? undefined : "nobody asked for it";
    case "EXPIRED":
    case "MAX_LIFETIME":
      return expiryProblem(story, next, world);
    case "IDLE":
      return world.isIdle ? undefined : "it is not idle";
    case "UNHEALTHY":
      if (story.wish.life.healthCheck === undefined) return "it has no health check";
      return world.wasIll ? undefined : "it was never ill";
    case "DRAINED":
      return world.hasDrained ? undefined : "nobody drains the host";
    case "HOST_REBOOT":
      return story.reboots > 0 ? undefined : "the host was not rebooted";
    case "COMPLETED":
    case "EXITED":
    case "SIGNALED":
    case "OOM_KILLED":
      return story.ends === 0 ? "its main command has not ended" : undefined;
    case "EXTERNAL":
      return story.touches > 0 || world.isLate ? undefined : "nobody touched it";
    case "CONTAINER_LOST":
      // a loss of power may take the record of a removal that was the daemon's own
      return story.touches > 0 || story.reboots > 0 || world.isLate
        ? undefined
        : "nobody removed its container";
    default: {
      const named = world.engine.byName(containerName(hostId, story.id));
      const isNameTaken = named !== undefined && labels.decode(named.labels)?.instance !== story.instance;
      return story.refusals > 0 || isNameTaken ? undefined : "nothing failed";
    }
  }
}

function expiryProblem(story: Story, next: SandboxRecord, { steadyMs, isCalm }: World): string | undefined {
  const dueMs = expiryOf(story);
  if (steadyMs < dueMs) return `it expires only in ${dueMs - steadyMs} ms`;
  if (isCalm && steadyMs > dueMs + latenessMs(story)) return `it was due ${steadyMs - dueMs} ms ago`;
  const { warningMs = 0, ttlMs = Number.POSITIVE_INFINITY } = story.wish.life.lifetime ?? {};
  const isWarned = story.warnedOfMs.includes(dueMs);
  const noticeMs = Math.min(warningMs, ttlMs / 2);
  if (isCalm && noticeMs > latenessMs(story) && !isWarned && next.exit === undefined)
    return "nobody was warned";
  return undefined;
}

/** With nothing in the way, what is due is decided at the next sweep, after the step under way. */
function latenessMs({ wish }: Story): number {
  const stuckMs = wish.runs.reduce((most, run) => Math.max(most, -run.endsInMs), 0);
  return 2_500 + wish.stopGraceMs + stuckMs;
}

function renewalProblem(
  story: Story,
  before: SandboxRecord,
  next: SandboxRecord,
  { steadyMs }: World,
): string | undefined {
  if (next.generation !== before.generation + 1) return `${next.id}: a renewal makes the next generation`;
  const asked = story.renewals.filter(({ generation }) => generation === before.generation);
  const due = asked.find(({ ttlMs }) => Math.abs(steadyMs + ttlMs - (next.expiresAtMs ?? 0)) <= 2);
  if (due === undefined) return `${next.id} was renewed in generation ${before.generation}, as nobody asked`;
  story.expiresAtMs = next.expiresAtMs;
  return undefined;
}

function warningProblem(story: Story, { id }: SandboxRecord, { steadyMs }: World): string | undefined {
  const expiryMs = expiryOf(story);
  if (story.warnedOfMs.includes(expiryMs)) return `${id} was warned twice of one expiry`;
  if (steadyMs >= expiryMs) return `${id} was warned ${steadyMs - expiryMs} ms after its expiry`;
  const { warningMs = 0 } = story.wish.life.lifetime ?? {};
  if (steadyMs < expiryMs - warningMs) return `${id} was warned ${expiryMs - steadyMs} ms before its expiry`;
  story.warnedOfMs = [...story.warnedOfMs, expiryMs];
  return undefined;
}

function backoffProblem(
  story: Story,
  before: SandboxRecord,
  next: SandboxRecord,
  { engine, steadyMs, nowMs, isWallSet }: World,
): string | undefined {
  const { restart = {}, healthCheck } = story.wish.life;
  const { mode, delayMs = 5_000, maxDelayMs = 300_000, maxAttempts = 3, windowMs = 600_000 } = restart;
  const { resetAfterMs = windowMs } = restart;
  const { reason } = next.transition;
  const container = containerOf(story, engine);
  if (before.wanted === "STOPPED" || before.wanted === "DELETED") {
    return `${next.id} is to be restarted although it was wanted ${before.wanted}`;
  }
  if (reason === "UNHEALTHY" ? healthCheck?.onUnhealthy !== "RESTART" : mode === "NEVER") {
    return `${next.id} is to be restarted for ${reason}, against its policy`;
  }
  if (
    container !== undefined &&
    container.run > 0 &&
    story.knownExternal?.startedAt === container.startedAt
  ) {
    if (nowMs - story.knownExternal.atMs < reportMs) return undefined;
    return `${next.id} is to be restarted after somebody on the host ended it`;
  }
  // a run that was long enough begins the count anew; the engine's times of it mean nothing once the wall clock was set
  const endedAtMs = isWallSet ? nowMs : (container?.endedAtMs ?? 0);
  const ranMs = container === undefined || container.run === 0 ? 0 : endedAtMs - container.ranSinceMs;
  const isReset = ranMs + 1_000 >= resetAfterMs && story.lastRun !== next.endedRun;
  if (isReset) story.backoffs = [];
  story.lastRun = next.endedRun;
  const recent = story.backoffs.filter((atMs) => steadyMs - atMs < windowMs - reportMs);
  if (recent.length >= maxAttempts) {
    return `${next.id} is to be restarted although it was ${recent.length} times within its window`;
  }
  const wholeMs = Math.min(maxDelayMs, delayMs * 2 ** (isReset ? 0 : recent.length));
  // from the end of the run on, or of the start that failed
  const sinceMs =
    container?.state === "exited" && reason !== "START_FAILED" ? nowMs - container.endedAtMs : 0;
  story.backoff = { notBeforeMs: steadyMs - sinceMs + Math.min(delayMs, wholeMs) / 2 - 2 };
  story.backoffs = [...recent, steadyMs];
  return undefined;
}

/** Its container; of several, the one that ran last. */
function containerOf({ instance }: Story, engine: ModelEngine): ModelContainer | undefined {
  return [...engine.containers.values()]
    .filter((one) => labels.decode(one.labels)?.instance === instance)
    .sort((a, b) => b.ranSinceMs - a.ranSinceMs)[0];
}
