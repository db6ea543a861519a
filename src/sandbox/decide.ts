// What to do next for one sandbox: a function of what is wanted, what is seen, and nothing else. All policy of a
// sandbox's life stands here.

import type { Container } from "../engine/runtime.ts";
import { judgeOom } from "../monitor/oom.ts";
import {
  type Actor,
  actors,
  type Exit,
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
    };

type Known = Exclude<Observed, { readonly kind: "foreign" }>;

type Present = Extract<Observed, { readonly kind: "present" }>;

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
}

export type Action =
  | { readonly do: "nothing" }
  | { readonly do: "create" }
  | { readonly do: "start"; readonly container: Container }
  /** Reads the limits back; only then is it RUNNING. */
  | { readonly do: "verify"; readonly container: Container }
  | { readonly do: "stop"; readonly containerId: string; readonly settle?: Settlement }
  | { readonly do: "remove"; readonly containerId: string }
  | { readonly do: "forget" }
  | { readonly do: "settle"; readonly settlement: Settlement };

/** The next step; `nothing` when what is seen is what is wanted. `bootId` is that of the machine now. */
export function decide(record: SandboxRecord, observed: Observed, bootId: string): Action {
  if (observed.kind === "foreign") return decideForeign(record, observed.containerId, bootId);
  switch (record.wanted) {
    case "DELETED":
      return observed.kind === "absent"
        ? { do: "forget" }
        : { do: "remove", containerId: observed.container.id };
    case "STOPPED":
      return decideStopped(record, observed);
    case "RUNNING":
      return decideRunning(record, observed, bootId);
  }
}

/** What is not ours is never touched: the sandbox has no container, and cannot get one. */
function decideForeign(record: SandboxRecord, containerId: string, bootId: string): Action {
  const action = decide(record, { kind: "absent" }, bootId);
  if (action.do !== "create") return action;
  const message = `container ${containerId}, which is not this host's, has the name that the sandbox needs`;
  return settle(failed("START_FAILED", message, actors.external));
}

function decideStopped(record: SandboxRecord, observed: Known): Action {
  const isEnded = record.state === "STOPPED" || record.state === "FAILED";
  if (observed.kind === "absent") {
    if (isEnded) return { do: "nothing" };
    return settle({
      state: "STOPPED",
      reason: "REQUESTED",
      message: "stopped; it had no container",
      actor: record.transition.actor,
      containerId: "",
    });
  }
  const { container } = observed;
  if (container.state === "running" || container.state === "paused") {
    if (!isEnded) return { do: "stop", containerId: container.id };
    return {
      do: "stop",
      containerId: container.id,
      settle: {
        state: "STOPPING",
        reason: "EXTERNAL",
        message: "started behind the daemon, where no capacity is set aside for it; it is stopped again",
        actor: actors.external,
      },
    };
  }
  if (isEnded) return { do: "nothing" };
  return settle({
    state: "STOPPED",
    reason: "REQUESTED",
    message: "stopped as asked",
    actor: record.transition.actor,
    endedRun: container.startedAt,
    ...(container.startedAt === "" ? {} : { exit: exitOf(container, observed.oomKills, true) }),
  });
}

function decideRunning(record: SandboxRecord, observed: Known, bootId: string): Action {
  const isStarting = record.state === "PENDING" || record.state === "PULLING" || record.state === "CREATING";
  if (observed.kind === "absent") {
    if (isStarting) return { do: "create" };
    return settle({
      state: "FAILED",
      reason: "CONTAINER_LOST",
      message: "the container was removed behind the daemon",
      actor: actors.external,
      wanted: "STOPPED",
      containerId: "",
    });
  }
  const { container } = observed;
  switch (container.state) {
    case "created":
      return isStarting
        ? { do: "start", container }
        : settle(failed("CONTAINER_LOST", "the container was replaced behind the daemon", actors.external));
    case "running":
      return record.state === "RUNNING" && record.bootId === bootId
        ? { do: "nothing" }
        : { do: "verify", container };
    case "paused":
      return record.state === "PAUSED"
        ? { do: "nothing" }
        : settle({
            state: "PAUSED",
            reason: "EXTERNAL",
            message: "paused behind the daemon",
            actor: actors.external,
          });
    case "exited":
      return isStarting && container.startedAt === record.endedRun
        ? { do: "start", container }
        : // of a run that was not yet seen running, the record's boot is that of the run before
          settle(ended(record, observed, !isStarting && record.bootId !== "" && record.bootId !== bootId));
  }
}

function ended(record: SandboxRecord, observed: Present, wasRebooted: boolean): Settlement {
  const { container } = observed;
  const exit = exitOf(container, observed.oomKills, observed.touchedExternally);
  const facts = { endedRun: container.startedAt, exit };
  if (wasRebooted) {
    const message = "the host was rebooted while it ran";
    return {
      state: "STOPPED",
      reason: "HOST_REBOOT",
      message,
      actor: actors.host,
      wanted: "STOPPED",
      ...facts,
    };
  }
  if (observed.touchedExternally) {
    const message = `stopped or killed behind the daemon; exit code ${exit.code}`;
    return { ...failed("EXTERNAL", message, actors.external), ...facts };
  }
  if (observed.initFailure !== undefined) {
    return { ...failed("COMMAND_UNUSABLE", observed.initFailure, actors.sandbox), ...facts };
  }
  if (exit.oomKilled) {
    const message = `killed at its memory limit of ${record.spec.resources.memoryBytes} bytes`;
    return { ...failed("OOM_KILLED", message, actors.sandbox), ...facts };
  }
  if (exit.signal !== 0) {
    return { ...failed("SIGNALED", `ended by signal ${exit.signal}`, actors.sandbox), ...facts };
  }
  if (exit.code !== 0) {
    return { ...failed("EXITED", `ended with exit code ${exit.code}`, actors.sandbox), ...facts };
  }
  const message = "ended with exit code 0";
  return {
    state: "STOPPED",
    reason: "COMPLETED",
    message,
    actor: actors.sandbox,
    wanted: "STOPPED",
    ...facts,
  };
}

/** A settlement in FAILED, after which nothing more is wanted. */
export function failed(reason: TransitionReason, message: string, actor: Actor): Settlement {
  return { state: "FAILED", reason, message, actor, wanted: "STOPPED" };
}

const settle = (settlement: Settlement): Action => ({ do: "settle", settlement });

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
