// The way to the engine, for one life of the daemon: what is asked may get lost before it is done or after, may be done late,
// may hang, and takes its time in any case. It keeps the promise of every Runtime: each call ends by its deadline.

import type { ContainerPlan } from "../../src/engine/container-plan.ts";
import type {
  Container,
  EngineEvent,
  LiveLimits,
  LogChunk,
  Runtime,
  Waiting,
} from "../../src/engine/runtime.ts";
import { SandboxdError } from "../../src/errors.ts";
import type { Life } from "./model-disk.ts";
import { isLive, type ModelContainer, type ModelEngine } from "./model-engine.ts";
import type { Random } from "./random.ts";
import type { VirtualTime } from "./virtual-time.ts";

export type Verb =
  | "list"
  | "inspect"
  | "image"
  | "pull"
  | "create"
  | "compare"
  | "start"
  | "verify"
  | "update"
  | "pause"
  | "resume"
  | "stop"
  | "remove"
  | "logs";

/**
 * What becomes of one call. `error`: refused, not done. `refused`: nobody answers, not done. `lost`: done, and the answer is
 * lost. `late`: no answer by the deadline, done after it. `hang`: no answer by the deadline, never done. `slow`: takes long.
 * `die-before`, `die-after`, `die-late`: the daemon is killed before it is done, after it, or it is done after that.
 */
export type CallFault =
  | "error"
  | "refused"
  | "lost"
  | "late"
  | "hang"
  | "slow"
  | "die-before"
  | "die-after"
  | "die-late";

export interface ArmedFault {
  readonly verb: Verb | "any";
  readonly fault: CallFault;
  /** Calls of the verb that still go well before. */
  skip: number;
}

/** What the daemon asks for, told before it is done. Undefined container: a create. */
export interface Asked {
  readonly verb: Verb;
  readonly container: ModelContainer | undefined;
  readonly plan?: ContainerPlan;
}

export interface RuntimeHooks {
  readonly asked: (asked: Asked) => void;
  readonly answered: (asked: Asked, error: SandboxdError | undefined) => void;
  readonly die: () => void;
  readonly delivered: (event: EngineEvent) => void;
}

export interface ModelRuntimeOptions {
  readonly engine: ModelEngine;
  readonly time: VirtualTime;
  readonly random: Random;
  readonly life: Life;
  readonly armed: ArmedFault[];
  readonly hooks: RuntimeHooks;
  /** Ends event streams from outside. */
  readonly streams: Set<() => void>;
}

/** Deadlines. The order of magnitude of the daemon's own, which are its configuration's. */
const deadlinesMs: Readonly<Record<Verb, number>> = {
  list: 5_000,
  inspect: 5_000,
  image: 5_000,
  pull: 30_000,
  create: 10_000,
  compare: 5_000,
  start: 10_000,
  verify: 5_000,
  update: 5_000,
  pause: 5_000,
  resume: 5_000,
  stop: 5_000,
  remove: 10_000,
  logs: 5_000,
};

export function createModelRuntime(options: ModelRuntimeOptions): Runtime {
  const { engine, time, random, life, armed, hooks } = options;

  function faultOf(verb: Verb): CallFault | undefined {
    for (const [index, one] of armed.entries()) {
      if (one.verb !== verb && one.verb !== "any") continue;
      if (one.skip-- > 0) continue;
      armed.splice(index, 1);
      return one.fault;
    }
    return undefined;
  }

  /** `act` does it and calls back with what came of it, at once or later. */
  function call<T>(
    asked: Asked,
    act: (done: (result: T) => void, failed: (error: SandboxdError) => void) => void,
    { signal }: Waiting = {},
    extraMs = 0,
  ): Promise<T> {
    const { verb } = asked;
    if (!life.isAlive()) return new Promise(() => undefined);
    const fault = engine.isUp ? faultOf(verb) : "refused";
    hooks.asked(asked);
    return new Promise<T>((resolve, reject) => {
      let isOver = false;
      const finish = (error: SandboxdError | undefined, end: () => void) => {
        if (isOver) return;
        isOver = true;
        signal?.removeEventListener("abort", onAbort);
        if (!life.isAlive()) return;
        hooks.answered(asked, error);
        end();
      };
      const fail = (error: SandboxdError) => finish(error, () => reject(error));
      const onAbort = () => finish(undefined, () => reject(signal?.reason));
      if (signal?.aborted) return onAbort();
      signal?.addEventListener("abort", onAbort, { once: true });

      const latency = () => random.between(1, 15);
      const limitMs = deadlinesMs[verb] + extraMs;
      const doIt = () =>
        act(
          (result) => {
            if (fault === "die-after") hooks.die();
            else if (fault === "lost") time.after(latency(), () => fail(unavailable("the answer was cut")));
            else if (fault !== "late") time.after(latency(), () => finish(undefined, () => resolve(result)));
          },
          (error) => time.after(latency(), () => fail(error)),
        );
      if (verb !== "pull" || fault === "hang" || fault === "late") {
        time.after(limitMs, () =>
          fail(new SandboxdError("ENGINE_TIMEOUT", `engine ${verb}: no answer within ${limitMs} ms`)),
        );
      }
      switch (fault) {
        case "die-before":
        case "die-late":
          time.after(latency(), () => {
            hooks.die();
            if (fault === "die-late") time.after(random.between(5, 8_000), doIt);
          });
          return;
        case "error":
          time.after(latency(), () =>
            fail(new SandboxdError("ENGINE_FAILED", `engine ${verb}: (HTTP code 500) no such luck`)),
          );
          return;
        case "refused":
          time.after(latency(), () => fail(unavailable("connection refused")));
          return;
        case "hang":
          return;
        case "late":
          time.after(limitMs + random.between(-200, 5_000), () => engine.isUp && doIt());
          return;
        case "slow":
          time.after(random.between(500, Math.min(limitMs - 100, 8_000)), doIt);
          return;
        default:
          time.after(latency(), () => (engine.isUp ? doIt() : fail(unavailable("connection reset"))));
      }
    });
  }

  const on = (verb: Verb, id: string): Asked => ({ verb, container: engine.find(id) });

  return {
    describe: (waiting) =>
      call(
        { verb: "list", container: undefined },
        (done) =>
          done({
            version: "27.0.0",
            apiVersion: "1.46",
            cgroupVersion: 2,
            cgroupDriver: "systemd",
            storageDriver: "overlay2",
            runtimes: ["runc"],
            dataRoot: "/nonexistent",
          }),
        waiting,
      ),
    isOpen: async () => true,
    ping: (waiting) => call({ verb: "list", container: undefined }, (done) => done(undefined), waiting),
    list: (label, waiting) =>
      call(
        { verb: "list", container: undefined },
        (done) => {
          const [key = "", value] = label.split("=");
          const found = [...engine.containers.values()].filter(({ labels }) => labels[key] === value);
          done(found.map(({ id, labels, state }) => ({ id, labels, state })));
        },
        waiting,
      ),
    inspect: (idOrName, waiting) =>
      call(on("inspect", idOrName), (done) => done(seen(engine.find(idOrName))), waiting),
    image: (reference, waiting) =>
      call(
        { verb: "image", container: undefined },
        (done) =>
          done(
            engine.images.has(reference)
              ? { id: `sha256:${reference}`, digests: [], tags: [reference], labels: {}, volumes: [] }
              : undefined,
          ),
        waiting,
      ),
    pull: (reference, waiting) =>
      call(
        { verb: "pull", container: undefined },
        (done, failed) => {
          if (!engine.pullable.has(reference)) {
            return failed(new SandboxdError("IMAGE_UNAVAILABLE", `image ${reference} cannot be pulled`));
          }
          time.after(random.between(50, 2_000), () => {
            engine.images.add(reference);
            done(undefined);
          });
        },
        waiting,
      ),
    create: (plan, waiting) =>
      call(
        { verb: "create", container: engine.byName(plan.name), plan },
        (done) => {
          const container = engine.create(plan);
          done(container === undefined ? "taken" : { id: container.id });
        },
        waiting,
      ),
    compare: (id, plan, { isNew, ...waiting }) =>
      call(
        { ...on("compare", id), plan },
        (done, failed) => {
          const container = engine.find(id);
          const wrong = container === undefined ? [] : differences(container, plan, isNew);
          if (wrong.length === 0) return done(undefined);
          failed(new SandboxdError("HARDENING_MISMATCH", `another container than asked for: ${wrong}`));
        },
        waiting,
      ),
    start: (id, waiting) =>
      call(
        on("start", id),
        (done, failed) => {
          const container = engine.find(id);
          const problem = container === undefined ? "no such container" : engine.start(container, "daemon");
          if (problem === undefined) return done(undefined);
          const reason = problem === "command" ? "COMMAND_UNUSABLE" : "ENGINE_FAILED";
          failed(new SandboxdError(reason, `engine start: ${problem}`));
        },
        waiting,
      ),
    verify: (id, plan, waiting) =>
      call(
        { ...on("verify", id), plan },
        (done, failed) => {
          const container = engine.find(id);
          if (container === undefined || !isLive(container) || container.initFailed) return done(undefined);
          const wrong = differentLimits(container.limits, plan.limits);
          if (!container.limitsHold) wrong.push("memory_bytes: the kernel holds none");
          if (wrong.length === 0) return done(cgroup);
          failed(new SandboxdError("LIMIT_UNENFORCEABLE", `this host does not enforce: ${wrong}`));
        },
        waiting,
      ),
    update: (found, limits, waiting) =>
      call(
        on("update", found.id),
        (done, failed) => {
          const container = engine.find(found.id);
          if (container === undefined) {
            return failed(new SandboxdError("LIMIT_UNENFORCEABLE", "the new limits do not hold"));
          }
          if (!engine.limitsHold) {
            return failed(new SandboxdError("LIMIT_UNENFORCEABLE", "the new limits do not hold"));
          }
          container.limits = limits;
          done(undefined);
        },
        waiting,
      ),
    pause: (id, waiting) => {
      const asked = on("pause", id);
      return call(
        asked,
        (done) => {
          if (asked.container !== undefined) engine.pause(asked.container, "daemon");
          done(undefined);
        },
        waiting,
      );
    },
    resume: (id, waiting) => {
      const asked = on("resume", id);
      return call(
        asked,
        (done) => {
          if (asked.container !== undefined) engine.unpause(asked.container, "daemon");
          done(undefined);
        },
        waiting,
      );
    },
    stop: (id, graceSeconds, waiting) =>
      call(
        on("stop", id),
        (done) => {
          const container = engine.find(id);
          if (container === undefined) return done(undefined);
          engine.stop(container, graceSeconds * 1_000, "daemon", () => done(undefined));
        },
        waiting,
        graceSeconds * 1_000,
      ),
    remove: (id, waiting) =>
      call(
        on("remove", id),
        (done) => {
          const container = engine.find(id);
          if (container !== undefined) engine.remove(container, "daemon");
          done("gone");
        },
        waiting,
      ),
    async *logs(id, { signal }) {
      const lines = await call<readonly LogChunk[]>(
        on("logs", id),
        (done) => {
          const words = engine.find(id)?.initFailed
            ? "[FATAL tini (7)] exec nothing failed: No such file"
            : "bye";
          done([{ timeNanoseconds: 1n, stream: "stderr", data: Buffer.from(`${words}\n`) }]);
        },
        signal === undefined ? {} : { signal },
      );
      yield* lines;
    },
    exec: () =>
      Promise.reject(new Error("no sandbox of the simulation has a health check that runs a command")),
    launch: () => Promise.reject(new Error("nothing is done inside of sandboxes in the simulation")),
    async *events(label, { onOpen, sinceNanos, signal }) {
      await call({ verb: "list", container: undefined }, (done) => done(undefined), { signal });
      const [key = "", value] = label.split("=");
      const waiting: EngineEvent[] = [];
      let wake: (() => void) | undefined;
      let isCut = false;
      const cut = () => {
        isCut = true;
        wake?.();
      };
      const unsubscribe = engine.subscribe((event) => {
        if (event.labels[key] !== value) return;
        waiting.push(event);
        wake?.();
      }, sinceNanos);
      options.streams.add(cut);
      signal.addEventListener("abort", cut, { once: true });
      try {
        onOpen();
        for (;;) {
          for (let event = waiting.shift(); event !== undefined; event = waiting.shift()) {
            if (!life.isAlive()) await new Promise(() => undefined);
            hooks.delivered(event);
            yield event;
          }
          if (isCut || signal.aborted) throw unavailable("the engine ended its event stream");
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      } finally {
        unsubscribe();
        options.streams.delete(cut);
        signal.removeEventListener("abort", cut);
      }
    },
    close: () => undefined,
  };
}

const unavailable = (why: string) =>
  new SandboxdError("ENGINE_UNAVAILABLE", `the engine cannot be reached: ${why}`);

/** What an inspect shows. */
export function seen(container: ModelContainer | undefined): Container | undefined {
  if (container === undefined) return undefined;
  const { id, name, labels, imageId, limits, state, pid, startedAt, finishedAt, exitCode, oomKilled, error } =
    container;
  return { id, name, labels, imageId, limits, state, pid, startedAt, finishedAt, exitCode, oomKilled, error };
}

function differentLimits(found: LiveLimits, wanted: LiveLimits): string[] {
  const names = ["cpuMillis", "cpuWeight", "memoryBytes", "pids"] as const;
  return names.filter((name) => found[name] !== wanted[name]).map((name) => `${name} ${found[name]}`);
}

function differences(container: ModelContainer, plan: ContainerPlan, isNew: boolean): readonly string[] {
  const labels = Object.keys(plan.labels).filter((key) => plan.labels[key] !== container.labels[key]);
  return [...(isNew ? labels : []), ...differentLimits(container.limits, plan.limits)];
}

const cgroup = {
  version: 2,
  memory: "/m",
  cpu: "/m",
  cpuacct: "/m",
  pids: "/m",
  blkio: "/m",
  freezer: "/m",
} as const;
