// What to do next for one sandbox: a function of what is wanted, what is seen, what time it is, and nothing else. All
// policy of a sandbox's life stands here and in the pure rooms beside it (`ending.ts`, `restart.ts`, `lifetime.ts`).

import type { Container } from "../engine/runtime.ts";
import { ended, exitOf, failed } from "./ending.ts";
import { canEnd, type EndOfLife, endOfLife, warningAt } from "./lifetime.ts";
import { liveLimits } from "./plan.ts";
import {
  type Actor,
  actors,
  type Exit,
  type Health,
  type Restarts,
  type SandboxRecord,
  type State,
  type TransitionReason,
} from "./record.ts";

/** What was seen of the container. Unknown is not absent: only the engine's 404 means gone. */
export type Observed =
  | { readonly kind: "absent" }
  /** A container that is not ours has the name that the sandbox's own must have. */
  | { readonly kind: "foreign"; readonly containerId: string }
  | {
      readonly kind: "present";
      readonly container: Container;
      /** Out-of-memory kills counted in its cgroup, where they were. */
      readonly oomKills: number;
      /** Someone other than this daemon sent it a signal, or removed it. */
      readonly touchedExternally: boolean;
      /** What the init process wrote when it could not execute the main command. */
      readonly initFailure?: string;
      /** Since when it was seen to do nothing. Steady time. */
      readonly idleSinceMs?: number;
      /** What its health check says. */
      readonly health?: Health;
    };

type Known = Exclude<Observed, { readonly kind: "foreign" }>;

export type Present = Extract<Observed, { readonly kind: "present" }>;

/** The machine's boot, and the steady time. */
export interface Now {
  readonly bootId: string;
  readonly nowMs: number;
}

/** Where a sandbox goes, with everything that the transition tells. */
export interface Settlement {
  readonly state: State;
  readonly reason: TransitionReason;
  readonly message: string;
  readonly actor: Actor;
  readonly wanted?: SandboxRecord["wanted"];
  readonly containerId?: string;
  readonly endedRun?: string;
  readonly exit?: Exit;
  readonly restarts?: Restarts;
}

export type Action =
  | { readonly do: "nothing" }
  | { readonly do: "create" }
  | { readonly do: "start"; readonly container: Container }
  /** Reads the limits back; only then is it RUNNING. */
  | { readonly do: "verify"; readonly container: Container }
  /** Gives it the limits that are recorded. */
  | { readonly do: "limit"; readonly container: Container }
  | { readonly do: "pause"; readonly containerId: string }
  | { readonly do: "resume"; readonly containerId: string }
  | { readonly do: "stop"; readonly containerId: string; readonly settle?: Settlement }
  | { readonly do: "remove"; readonly containerId: string }
  | { readonly do: "forget" }
  | { readonly do: "settle"; readonly settlement: Settlement }
  /** Tells that it expires soon. */
  | { readonly do: "warn" }
  /** Records what its health check says. */
  | { readonly do: "note"; readonly health: Health };

const nothing: Action = { do: "nothing" };

/** The next step; `nothing` when what is seen is what is wanted. */
export function decide(record: SandboxRecord, observed: Observed, now: Now): Action {
  if (observed.kind === "foreign") return decideForeign(record, observed.containerId, now);
  const end = byLifetime(record, observed, now);
  if (end !== undefined) return end;
  switch (record.wanted) {
    case "DELETED":
      return observed.kind === "absent"
        ? { do: "forget" }
        : { do: "remove", containerId: observed.container.id };
    case "STOPPED":
      return decideStopped(record, observed);
    case "PAUSED":
      return decidePaused(record, observed, now);
    case "RUNNING":
      return decideRunning(record, observed, now);
  }
}

/** What is not ours is never touched: the sandbox has no container, and cannot get one. */
function decideForeign(record: SandboxRecord, containerId: string, now: Now): Action {
  const action = decide(record, { kind: "absent" }, now);
  if (action.do !== "create") return action;
  const message = `container ${containerId}, which is not this host's, has the name that the sandbox needs`;
  return settle(failed("START_FAILED", message, actors.external));
}

function byLifetime(record: SandboxRecord, observed: Known, { nowMs }: Now): Action | undefined {
  if (!canEnd(record)) return undefined;
  const idleSinceMs = observed.kind === "present" ? observed.idleSinceMs : undefined;
  const end = endOfLife(record, idleSinceMs, nowMs);
  if (end !== undefined) return settle(endOf(record, end));
  return warningAt(record) <= nowMs ? { do: "warn" } : undefined;
}

function endOf({ spec: { lifetime }, state }: SandboxRecord, { reason, message }: EndOfLife): Settlement {
  const why = { reason, message, actor: actors.policy };
  if (lifetime.onExpiry === "DELETE") return { state: "DELETING", wanted: "DELETED", ...why };
  // what waits for its restart has nothing that could be frozen
  return lifetime.onExpiry === "PAUSE" && state === "RUNNING"
    ? { state: "PAUSING", wanted: "PAUSED", ...why }
    : { state: "STOPPING", wanted: "STOPPED", ...why };
}

function decideStopped(record: SandboxRecord, observed: Known): Action {
  const isEnded = record.state === "STOPPED" || record.state === "FAILED";
  if (observed.kind === "absent") {
    if (isEnded) return nothing;
    const { reason, message, actor } = causeOf(record, "stopped; it had no container");
    return settle({ state: "STOPPED", reason, message, actor, containerId: "" });
  }
  const { container } = observed;
  if (container.state === "running" || container.state === "paused") {
    if (!isEnded) return { do: "stop", containerId: container.id };
    const message = "started behind the daemon, where no capacity is set aside for it; it is stopped again";
    const again: Settlement = { state: "STOPPING", reason: "EXTERNAL", message, actor: actors.external };
    return { do: "stop", containerId: container.id, settle: again };
  }
  if (isEnded) return nothing;
  return settle({
    state: "STOPPED",
    ...causeOf(record, "stopped as asked"),
    endedRun: container.startedAt,
    // of a run that was told as ended already, that stands
    ...(container.startedAt === "" || container.startedAt === record.endedRun
      ? {}
      : { containerId: container.id, exit: exitOf(container, observed.oomKills, true) }),
  });
}

function decidePaused(record: SandboxRecord, observed: Known, now: Now): Action {
  if (observed.kind === "absent") return lost;
  const { container } = observed;
  switch (container.state) {
    case "created":
      return replaced;
    case "running":
      // what was seen paused was let go on by someone else
      if (record.state !== "PAUSED") return { do: "pause", containerId: container.id };
      return { do: isLimited(record, container) ? "verify" : "limit", container };
    case "paused":
      return record.state === "PAUSED"
        ? nothing
        : settle({ state: "PAUSED", ...causeOf(record, "paused as asked") });
    case "exited":
      return settle(ended(record, observed, wasRebooted(record, now), now));
  }
}

function decideRunning(record: SandboxRecord, observed: Known, now: Now): Action {
  const isBackingOff = record.state === "BACKING_OFF";
  const isDue = isBackingOff && now.nowMs >= (record.restarts?.nextAtMs ?? 0);
  const isStarting =
    isDue || record.state === "PENDING" || record.state === "PULLING" || record.state === "CREATING";
  if (observed.kind === "absent") {
    if (isStarting && !(isDue && record.containerId !== "")) return { do: "create" };
    // a start that failed leaves no container
    return isBackingOff && record.containerId === "" ? nothing : lost;
  }
  const { container } = observed;
  switch (container.state) {
    case "created":
      return isStarting ? { do: "start", container } : replaced;
    case "running":
      return decideAtWork(record, observed, now);
    case "paused":
      switch (record.state) {
        case "PAUSED":
          return nothing;
        case "RESUMING":
          return { do: "resume", containerId: container.id };
        default:
          return settle({
            state: "PAUSED",
            reason: "EXTERNAL",
            message: "paused behind the daemon",
            actor: actors.external,
            wanted: "PAUSED",
          });
      }
    case "exited":
      if (container.startedAt === record.endedRun) {
        if (isStarting) return { do: isLimited(record, container) ? "start" : "limit", container };
        if (isBackingOff) return nothing;
      }
      // of a run that was not yet seen running, the record's boot is that of the run before
      return settle(ended(record, observed, !isStarting && wasRebooted(record, now), now));
  }
}

/** Its main command runs, as it should. */
function decideAtWork(record: SandboxRecord, { container, health }: Present, { bootId }: Now): Action {
  // by a policy that wants it to run again
  if (record.state === "STOPPING") return { do: "stop", containerId: container.id };
  if (!isLimited(record, container)) return { do: "limit", container };
  if (record.state !== "RUNNING" || record.bootId !== bootId) return { do: "verify", container };
  if (health !== undefined && health.state !== record.health?.state) return { do: "note", health };
  if (record.health?.state !== "UNHEALTHY") return nothing;
  const why = {
    reason: "UNHEALTHY",
    message: `unhealthy: ${record.health.message}`,
    actor: actors.policy,
  } as const;
  switch (record.spec.healthCheck?.onUnhealthy) {
    case "STOP":
      return settle({ state: "STOPPING", wanted: "STOPPED", ...why });
    case "RESTART":
      return settle({ state: "STOPPING", ...why });
    default:
      return nothing;
  }
}

/** Whether it has the limits that are recorded: an update may have got only half-way. */
function isLimited({ spec }: SandboxRecord, { limits }: Container): boolean {
  const wanted = liveLimits(spec.resources);
  return (
    limits.cpuMillis === wanted.cpuMillis &&
    limits.cpuWeight === wanted.cpuWeight &&
    limits.memoryBytes === wanted.memoryBytes &&
    limits.pids === wanted.pids
  );
}

const wasRebooted = (record: SandboxRecord, { bootId }: Now): boolean =>
  record.bootId !== "" && record.bootId !== bootId;

/** Why it is on its way to where it is wanted: what set it on its way, if that was told. */
function causeOf(
  { state, transition }: SandboxRecord,
  message: string,
): Pick<Settlement, "reason" | "message" | "actor"> {
  const isOnItsWay = state === "STOPPING" || state === "PAUSING";
  const { reason, actor } = transition;
  if (!isOnItsWay || reason === "REQUESTED" || reason === "PROGRESS") {
    return { reason: "REQUESTED", message, actor };
  }
  return { reason, message: transition.message, actor };
}

const settle = (settlement: Settlement): Action => ({ do: "settle", settlement });

const lost = settle({
  ...failed("CONTAINER_LOST", "the container was removed behind the daemon", actors.external),
  containerId: "",
});

const replaced = settle(
  failed("CONTAINER_LOST", "the container was replaced behind the daemon", actors.external),
);
