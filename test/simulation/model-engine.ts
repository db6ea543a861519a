// The engine as the daemon cannot see it: containers, who did what to them, and what it tells of it. Acts are carried out at
// once here; how they are asked for, and what becomes of the answers, is in `model-runtime.ts`.

import type { ContainerPlan } from "../../src/engine/container-plan.ts";
import type { Container, EngineEvent, LiveLimits } from "../../src/engine/runtime.ts";
import type { Random } from "./random.ts";
import type { VirtualTime } from "./virtual-time.ts";

/** How one run of a main command goes. */
export interface Run {
  /** Absent: until it is ended. */
  readonly forMs?: number;
  readonly end: "exit" | "signal" | "oom";
  readonly code: number;
  /** Time that it takes to end when told to. Endless until SIGKILL: -1. Not even then, for so long: below -1. */
  readonly endsInMs: number;
  /** The engine cannot start it; or its init process cannot execute it. */
  readonly unusable?: "engine" | "init";
}

/** Who ended a run, or changed a container. */
export type Doer = "daemon" | "itself" | "external" | "engine" | "reboot";

export interface ModelContainer {
  readonly id: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly imageId: string;
  readonly runs: readonly Run[];
  name: string;
  limits: LiveLimits;
  state: Container["state"];
  /** Starts so far. */
  run: number;
  pid: number;
  startedAt: string;
  finishedAt: string;
  exitCode: number;
  oomKilled: boolean;
  oomKills: number;
  error: string;
  /** In true time. */
  ranSinceMs: number;
  startedBy: Doer | undefined;
  endedBy: Doer | undefined;
  endedAtMs: number;
  /** Of a run that is frozen, what was left of it. */
  leftMs: number | undefined;
  /** A run whose main command could not be executed. */
  initFailed: boolean;
  limitsHold: boolean;
}

export type EventFault = "lose" | "duplicate" | "delay" | "reorder";

export interface ModelEngine {
  readonly containers: Map<string, ModelContainer>;
  /** Images that are there, and those that can be pulled. */
  images: Set<string>;
  pullable: Set<string>;
  /** What befalls the next events. */
  readonly eventFaults: EventFault[];
  limitsHold: boolean;
  isUp: boolean;
  byName(name: string): ModelContainer | undefined;
  find(idOrName: string): ModelContainer | undefined;
  create(plan: ContainerPlan): ModelContainer | undefined;
  /** Returns what the engine says against it. */
  start(container: ModelContainer, by: Doer): "command" | "paused" | undefined;
  /** Sends the signal to end. Calls back once it has ended. */
  stop(container: ModelContainer, graceMs: number, by: Doer, ended: () => void): void;
  kill(container: ModelContainer, by: Doer): void;
  remove(container: ModelContainer, by: Doer): void;
  pause(container: ModelContainer, by: Doer): void;
  unpause(container: ModelContainer, by: Doer): void;
  rename(container: ModelContainer, name: string): void;
  /** A container that nobody here made. */
  squat(name: string, labels: Readonly<Record<string, string>>): void;
  /** Every container ends, as the engine or the machine goes down. */
  endAll(by: "engine" | "reboot"): void;
  /** As it does when it is restarted. */
  forgetEvents(): void;
  /** Also of what happened since, as far as it remembers: what a stream has lost is told by the next. */
  subscribe(listener: (event: EngineEvent) => void, sinceNanos?: bigint): () => void;
}

export interface EngineHooks {
  /** Before a run begins. */
  readonly starts: (container: ModelContainer, by: Doer) => void;
  /** After anything changed. */
  readonly changed: (container: ModelContainer, what: string, by: Doer) => void;
}

const runOf = (container: ModelContainer): Run =>
  container.runs[Math.min(container.run, container.runs.length) - 1] as Run;

export const isLive = ({ state }: ModelContainer) => state === "running" || state === "paused";

export function createModelEngine(time: VirtualTime, random: Random, hooks: EngineHooks): ModelEngine {
  const containers = new Map<string, ModelContainer>();
  const listeners = new Set<(event: EngineEvent) => void>();
  /** Who waits for the end of a container. */
  const stopping = new Map<string, (() => void)[]>();
  /** What it tells to who asks for what happened since. */
  const history: EngineEvent[] = [];
  let told = 0;
  /** Until when events that are late hold up the others. */
  let freeAtMs = 0;
  let made = 0;
  let processes = 100;
  let lastText = 0;

  /** The engine's text for now; two starts never have the same one. */
  function text(): string {
    lastText++;
    const fraction = String(lastText).padStart(6, "0");
    return new Date(time.wallMs()).toISOString().replace("Z", `${fraction}Z`);
  }

  function tell(container: ModelContainer, action: string): void {
    const event = {
      containerId: container.id,
      action,
      labels: container.labels,
      timeNanos: BigInt(time.wallMs()) * 1_000_000n + BigInt(++told),
    };
    history.push(event);
    const fault = engine.eventFaults.shift();
    if (fault === "lose") return;
    const copies = fault === "duplicate" ? 2 : 1;
    // what is told late holds up what is told after it
    const delayMs = fault === "delay" ? random.between(50, 3_000) : 1;
    const atMs = Math.max(time.nowMs() + delayMs, freeAtMs);
    if (fault !== "reorder") freeAtMs = atMs;
    const afterMs = atMs - time.nowMs() + (fault === "reorder" ? 30 : 0);
    for (let copy = 0; copy < copies; copy++) {
      for (const listener of listeners) {
        time.after(afterMs + copy * 20, () => {
          if (listeners.has(listener)) listener(event);
        });
      }
    }
  }

  function end(container: ModelContainer, by: Doer, exitCode: number, oom = false): void {
    if (!isLive(container)) return;
    Object.assign(container, {
      state: "exited",
      pid: 0,
      exitCode,
      oomKilled: oom,
      oomKills: container.oomKills + (oom ? 1 : 0),
      finishedAt: text(),
      endedBy: by,
      endedAtMs: time.nowMs(),
    });
    tell(container, "die");
    hooks.changed(container, `ended with ${exitCode}`, by);
    for (const ended of stopping.get(container.id) ?? []) ended();
    stopping.delete(container.id);
  }

  /** Ends by itself when its time is over, unless it was frozen or ended before. */
  function letRun(container: ModelContainer, ms: number): void {
    const { run } = container;
    const dueMs = time.nowMs() + ms;
    container.leftMs = dueMs;
    time.after(ms, () => {
      if (container.run !== run || container.state !== "running" || container.leftMs !== dueMs) return;
      const plan = runOf(container);
      end(container, "itself", plan.end === "exit" ? plan.code : 128 + plan.code, plan.end === "oom");
    });
  }

  const engine: ModelEngine = {
    containers,
    images: new Set(),
    pullable: new Set(),
    eventFaults: [],
    limitsHold: true,
    isUp: true,
    byName: (name) => [...containers.values()].find((one) => one.name === name),
    find: (idOrName) => containers.get(idOrName) ?? engine.byName(idOrName),
    create(plan) {
      if (engine.byName(plan.name) !== undefined) return undefined;
      const { cpuMillis, cpuWeight, memoryBytes, pids } = plan.limits;
      const container: ModelContainer = {
        id: `c${++made}`,
        name: plan.name,
        labels: plan.labels,
        imageId: plan.imageId,
        runs: JSON.parse(plan.env["RUNS"] ?? "[]") as readonly Run[],
        limits: { cpuMillis, cpuWeight, memoryBytes, pids },
        ...fresh,
      };
      containers.set(container.id, container);
      tell(container, "create");
      hooks.changed(container, "created", "daemon");
      return container;
    },
    start(container, by) {
      if (container.state === "running") return undefined;
      if (container.state === "paused") return "paused";
      hooks.starts(container, by);
      container.run++;
      const run = runOf(container);
      if (run.unusable === "engine") {
        container.error = "exec: no such file or directory";
        container.run--;
        return "command";
      }
      Object.assign(container, {
        state: "running",
        pid: ++processes,
        startedAt: text(),
        finishedAt: "",
        exitCode: 0,
        oomKilled: false,
        oomKills: 0,
        error: "",
        ranSinceMs: time.nowMs(),
        startedBy: by,
        endedBy: undefined,
        initFailed: run.unusable === "init",
        limitsHold: engine.limitsHold,
      });
      tell(container, "start");
      hooks.changed(container, `run ${container.run} begins`, by);
      if (run.unusable === "init") time.after(2, () => end(container, "itself", 127));
      else if (run.forMs !== undefined) letRun(container, run.forMs);
      return undefined;
    },
    stop(container, graceMs, by, ended) {
      if (!isLive(container)) return ended();
      tell(container, "kill");
      hooks.changed(container, "is told to stop", by);
      const { endsInMs } = runOf(container);
      const obeys = endsInMs >= 0 && endsInMs <= graceMs && container.state === "running";
      const { run } = container;
      time.after(obeys ? endsInMs : graceMs + (endsInMs < -1 ? -endsInMs : 5), () => {
        if (container.run === run) end(container, by, obeys ? 143 : 137);
      });
      stopping.set(container.id, [...(stopping.get(container.id) ?? []), ended]);
    },
    kill(container, by) {
      if (!isLive(container)) return;
      tell(container, "kill");
      end(container, by, 137);
    },
    remove(container, by) {
      if (!containers.has(container.id)) return;
      if (isLive(container)) engine.kill(container, by);
      containers.delete(container.id);
      tell(container, "destroy");
      hooks.changed(container, "removed", by);
    },
    pause(container, by) {
      if (container.state !== "running") return;
      container.state = "paused";
      if (container.leftMs !== undefined) container.leftMs -= time.nowMs();
      tell(container, "pause");
      hooks.changed(container, "paused", by);
    },
    unpause(container, by) {
      if (container.state !== "paused") return;
      container.state = "running";
      tell(container, "unpause");
      hooks.changed(container, "unpaused", by);
      if (container.leftMs !== undefined) letRun(container, Math.max(1, container.leftMs));
    },
    rename(container, name) {
      if (engine.byName(name) !== undefined) return;
      container.name = name;
      tell(container, "rename");
      hooks.changed(container, `renamed to ${name}`, "external");
    },
    squat(name, labels) {
      if (engine.byName(name) !== undefined) return;
      const container: ModelContainer = {
        id: `f${++made}`,
        name,
        labels,
        imageId: "sha256:foreign",
        runs: [{ end: "exit", code: 0, endsInMs: 5 }],
        limits: { cpuMillis: 1, cpuWeight: 2, memoryBytes: 1, pids: 1 },
        ...fresh,
        state: "running",
        run: 1,
      };
      containers.set(container.id, container);
      hooks.changed(container, `takes the name ${name}`, "external");
    },
    endAll(by) {
      for (const container of containers.values()) end(container, by, by === "reboot" ? 255 : 137);
    },
    forgetEvents: () => history.splice(0),
    subscribe(listener, sinceNanos) {
      listeners.add(listener);
      if (sinceNanos !== undefined) {
        for (const event of history) if (event.timeNanos >= sinceNanos) listener(event);
      }
      return () => void listeners.delete(listener);
    },
  };
  return engine;
}

const fresh = {
  state: "created",
  run: 0,
  pid: 0,
  startedAt: "",
  finishedAt: "",
  exitCode: 0,
  oomKilled: false,
  oomKills: 0,
  error: "",
  ranSinceMs: 0,
  startedBy: undefined,
  endedBy: undefined,
  endedAtMs: 0,
  leftMs: undefined,
  initFailed: false,
  limitsHold: true,
} as const;
