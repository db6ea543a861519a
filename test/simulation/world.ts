// Runs one schedule: the daemon, the engine and the disk under it, the callers and whoever else is about, until everything has
// come to rest and the daemon was closed; and says what was violated first.

import { SandboxdError } from "../../src/errors.ts";
import type { Log } from "../../src/observe/log.ts";
import { containerName } from "../../src/sandbox/plan.ts";
import type { SandboxRecord } from "../../src/sandbox/record.ts";
import { type Daemon, startDaemon } from "./daemon.ts";
import { type Call, createLedger } from "./ledger.ts";
import { createModelDisk, DaemonDied, type Life } from "./model-disk.ts";
import { createModelEngine, type ModelContainer } from "./model-engine.ts";
import { hostId, image, labels, requestOf } from "./model-host.ts";
import { type ArmedFault, createModelRuntime } from "./model-runtime.ts";
import { createRandom } from "./random.ts";
import { restProblem } from "./rest.ts";
import type { Schedule, Step } from "./schedule.ts";
import { beginTime, settled } from "./virtual-time.ts";

export interface Played {
  /** Undefined: everything held. */
  readonly violation: string | undefined;
  /** What happened, a line each; empty unless asked for. */
  readonly trace: readonly string[];
  /** Time that passed in it. Milliseconds. */
  readonly durationMs: number;
}

const caller = { kind: "CALLER", identity: "somebody" } as const;
const drainMs = 10_000;
/** After the last fault: two lists, and the orphan grace. */
const restMs = 12_000;
/** Seconds more for the longest wait before another try, after the longest call. */
const restLooks = 110;

type CallAction = Call["action"];

export async function play(
  schedule: Schedule,
  { isTraced }: { readonly isTraced: boolean },
): Promise<Played> {
  const random = createRandom(schedule.seed ^ 0x5eed);
  const time = beginTime(createRandom(schedule.seed ^ 0x1d));
  const trace: string[] = [];
  let violation: string | undefined;
  const say = (who: string, words: () => string) => {
    if (isTraced) trace.push(`${(time.nowMs() / 1_000).toFixed(3).padStart(9)}  ${who.padEnd(9)} ${words()}`);
  };
  const violated = (message: string) => {
    if (violation !== undefined) return;
    violation = message;
    say("VIOLATED", () => message);
  };
  const onUnhandled = (error: unknown) => {
    if (!(error instanceof DaemonDied)) {
      violated(`an error that nobody handled: ${error instanceof Error ? error.stack : String(error)}`);
    }
  };
  process.on("unhandledRejection", onUnhandled);

  const idle = new Map<string, number>();
  const ill = new Set<string>();
  const engine = createModelEngine(time, random, {
    starts: (container, by) => {
      const id = idOf(container);
      idle.delete(id);
      ill.delete(id);
      ledger.starts(container, by);
    },
    changed(container, what, by) {
      say(
        "engine",
        () => `${container.id} (${idOf(container)}): ${what}${by === "daemon" ? "" : `, by ${by}`}`,
      );
      ledger.changed(container, what, by);
    },
  });
  engine.images.add(image);
  const disk = createModelDisk(time, random, (commit) => {
    for (const { sequence, document } of commit.events) {
      say("commit", () => `${sequence} ${wordsOf(document)}`);
    }
    ledger.committed(commit);
  });
  const armed: ArmedFault[] = [];
  const streams = new Set<() => void>();
  const isLate = schedule.steps.some(({ action }) => action.do === "fault" && /late|hang/.test(action.fault));
  const ledger = createLedger({
    engine,
    nowMs: time.nowMs,
    boot: () => `${boot.id}/${states}`,
    violated,
    isLate,
    isCalm: schedule.steps.every(({ action }) => calm.has(action.do)),
    diskSlownessMs: schedule.steps.some(({ action }) => action.do === "disk-slow") ? 6_100 : 20,
    isIdle: (id) => idle.has(id),
    isIll: (id) => ill.has(id),
  });
  ledger.books.durableBy(disk.durableCount);

  let boot = { id: "boot-1", sinceMs: -1_000 };
  let boots = 1;
  /** State files so far. */
  let states = 1;
  let life: Life & { alive: boolean } = { alive: false, isAlive: () => false, reached: () => undefined };
  let daemon: Daemon | undefined;
  let mayStart = true;
  let dieAt: { readonly point: string; skip: number; readonly downMs: number } | undefined;
  let calls = 0;

  const log: Log = isTraced
    ? loggingTo((fields, message) =>
        say("log", () => `${message} ${JSON.stringify({ ...fields, err: String(fields["err"] ?? "") })}`),
      )
    : silent;

  function rise(): void {
    if (life.alive || !mayStart || violation !== undefined) return;
    const mine: Life & { alive: boolean } = {
      alive: true,
      isAlive: () => mine.alive,
      reached(point) {
        if (dieAt?.point !== point || !mine.alive || dieAt.skip-- > 0) return;
        const { downMs } = dieAt;
        dieAt = undefined;
        die(`killed ${point}`, downMs);
      },
    };
    life = mine;
    time.revive();
    idle.clear();
    say("daemon", () => "starts");
    const runtime = createModelRuntime({
      engine,
      time,
      random,
      life,
      armed,
      streams,
      hooks: {
        asked(asked) {
          say("asks", () => `${asked.verb} ${asked.container?.id ?? ""}`);
          ledger.asked(asked);
        },
        answered(asked, error) {
          if (error !== undefined) say("answer", () => `${asked.verb}: ${error.reason} ${error.message}`);
          ledger.answered(asked, error);
        },
        delivered(event) {
          say("event", () => `${event.action} ${event.containerId}`);
          ledger.delivered(event);
        },
        die: () => mine.alive && die("killed", random.between(1, 3_000)),
      },
    });
    const monotonicMs = () => Math.floor(time.nowMs() - boot.sinceMs);
    startDaemon({
      medium: disk.medium(life),
      runtime,
      bootId: boot.id,
      monotonicMs,
      vitals: {
        idleSinceMs: (id) => idle.get(id),
        health: (id) => {
          const check = ledger.books.record(id)?.spec.healthCheck;
          if (check === undefined) return undefined;
          return ill.has(id)
            ? { state: "UNHEALTHY", failures: 3, message: "no answer" }
            : { state: "HEALTHY", failures: 0, message: "answers" };
        },
      },
      concerned: () => [...idle.keys(), ...ill],
      onClock: (clock) => {
        if (mine.alive) ledger.clock = clock;
      },
      oomKills: (id) => engine.byName(containerName(hostId, id))?.oomKills ?? 0,
      log,
    }).then(
      (started) => {
        if (!mine.alive) return;
        daemon = started;
        started.store.events.subscribe(() => mine.alive && ledger.told(started.store.events.newest()));
        say("daemon", () => "serves");
      },
      (error: unknown) => {
        if (!mine.alive) return;
        if (!(error instanceof SandboxdError && error.reason === "STATE_DISK_FULL")) onUnhandled(error);
        die("cannot start", 2_000);
      },
    );
  }

  function die(why: string, downMs: number): void {
    if (!life.alive) return;
    life.alive = false;
    daemon = undefined;
    time.killDaemon();
    streams.clear();
    ledger.died();
    say("daemon", () => why);
    time.after(downMs, rise);
  }

  async function closeDaemon(downMs: number): Promise<void> {
    const closing = daemon;
    const mine = life;
    if (closing === undefined) return;
    daemon = undefined;
    say("daemon", () => "is told to stop");
    for (const end of open) end(new SandboxdError("SHUTTING_DOWN", "the daemon stops"));
    await settled();
    let isClosed = false;
    time.after(drainMs, () => {
      if (!isClosed && mine.alive) violated("I9: the daemon does not close");
    });
    await closing.close();
    isClosed = true;
    if (!mine.alive) return;
    if (time.pending() > 0) violated(`${time.pending()} timers are left after the daemon closed`);
    die("is closed", downMs);
  }

  /** How to end each call under way. */
  const open = new Set<(reason: Error) => void>();

  function call(action: CallAction, patienceMs: number): void {
    const number = ++calls;
    say("caller", () => `${number}: ${wordsOfCall(action)}`);
    if (daemon === undefined) {
      say("caller", () => `${number}: nobody answers`);
      return;
    }
    const record = ledger.books.record(action.id);
    const story = record === undefined ? undefined : ledger.books.story(record.instance);
    const generation =
      action.do === "renew" ? (record?.generation ?? 1) - (action.isStale ? 1 : 0) : undefined;
    const one: Call = {
      number,
      action,
      story,
      isOver: false,
      ...(generation === undefined ? {} : { generation }),
    };
    const abort = new AbortController();
    const end = (reason: Error) => {
      if (one.isOver) return;
      one.gaveUpAtMs = time.nowMs();
      abort.abort(reason);
    };
    open.add(end);
    time.after(patienceMs, () => end(new Error("the caller gave up")));
    const mine = life;
    ledger.called(one);
    ask(daemon, action, generation ?? 0, abort.signal).then(
      (answer) => {
        open.delete(end);
        if (!mine.alive || one.isOver) return;
        say("caller", () => `${number}: answered ${answer === undefined ? "" : answer.state}`);
        ledger.returned(one, answer);
      },
      (error: unknown) => {
        open.delete(end);
        if (!mine.alive || one.isOver) return;
        say("caller", () => `${number}: ${error instanceof Error ? error.message : String(error)}`);
        if (!(error instanceof SandboxdError) && one.gaveUpAtMs === undefined) onUnhandled(error);
        ledger.failed(one, error);
      },
    );
  }

  function during(ms: number, begin: () => void, end: () => void): void {
    begin();
    time.after(ms, end);
  }

  function external(act: string, id: string) {
    if (!engine.isUp) return;
    const name = containerName(hostId, id);
    if (act === "squat") {
      for (const story of ledger.books.stories()) if (story.id === id) story.refusals++;
      return engine.squat(name, { "sandboxd.host": hostId });
    }
    const container = engine.byName(name);
    if (container === undefined) return;
    // before the daemon knows the container's id, and while a create may still come late, the name is all that it has
    const isKnown = ledger.books.record(id)?.containerId === container.id;
    if (act === "rename" && (!isKnown || isLate)) return;
    switch (act) {
      case "rm":
        return engine.remove(container, "external");
      case "stop":
        return engine.stop(container, 2_000, "external", () => undefined);
      case "kill":
        return engine.kill(container, "external");
      case "pause":
        return engine.pause(container, "external");
      case "unpause":
        return engine.unpause(container, "external");
      case "start":
        return void engine.start(container, "external");
      case "rename":
        return engine.rename(container, `${name}-${random.between(1, 9)}`);
    }
  }

  /** Open: whoever operates the host may start containers as soon as it is back. */
  function engineGoes(downMs: number, isOpen: boolean): void {
    engine.isUp = false;
    for (const cut of [...streams]) cut();
    time.after(downMs, () => {
      engine.isUp = true;
      say("engine", () => "is back");
      for (const container of engine.containers.values()) {
        if (isOpen && random.chance(0.2)) engine.start(container, "external");
      }
    });
  }

  function reboot(losesPower: boolean, downMs: number): void {
    mayStart = false;
    // somebody may be at the containers before the daemon is
    const upMs = downMs + random.between(1, 3_000);
    die("goes down with the machine", upMs);
    if (losesPower) ledger.powerLost(disk.losePower());
    ledger.rebooted();
    engine.endAll("reboot");
    engineGoes(downMs, true);
    armed.length = 0;
    boot = { id: `boot-${++boots}`, sinceMs: time.nowMs() + downMs - 5_000 };
    time.after(upMs, () => {
      mayStart = true;
      rise();
    });
  }

  async function take({ action, patienceMs }: Step): Promise<void> {
    if (!("wish" in action) && !callVerbs.has(action.do)) say("step", () => JSON.stringify(action));
    switch (action.do) {
      case "create":
      case "start":
      case "stop":
      case "delete":
      case "pause":
      case "resume":
      case "renew":
      case "update":
        return call(action, patienceMs);
      case "cordon":
      case "open":
        return void orRefused(() =>
          daemon?.scheduling.setSchedulable(action.do === "open", "simulated", caller),
        );
      case "drain":
        ledger.hasDrained = true;
        return void orRefused(() =>
          daemon?.scheduling.drain({ ...action, reason: "simulated", actor: caller }),
        );
      case "fault":
        return void armed.push({ verb: action.verb, fault: action.fault, skip: action.skip });
      case "events":
        for (let one = 0; one < action.count; one++) engine.eventFaults.push(action.fault);
        return;
      case "cut-events":
        for (const cut of [...streams]) cut();
        return;
      case "crash":
        return die("killed", action.downMs);
      case "crash-at":
        dieAt = { ...action };
        return;
      case "restart-daemon":
        return closeDaemon(action.downMs);
      case "restart-engine":
        if (!action.keepsSandboxes) engine.endAll("engine");
        return engineGoes(action.downMs, false);
      case "reboot":
        return reboot(action.losesPower, action.downMs);
      case "lose-state":
        die("is killed, and its state is lost", action.downMs);
        disk.wipe();
        states++;
        return ledger.stateLost();
      case "wall":
        return time.jumpWall(action.jumpMs);
      case "disk-full":
        return during(
          action.forMs,
          () => (disk.isFull = true),
          () => (disk.isFull = false),
        );
      case "disk-slow":
        return during(
          action.forMs,
          () => (disk.slownessMs = 3_000),
          () => (disk.slownessMs = 5),
        );
      case "limits-fail":
        return during(
          action.forMs,
          () => (engine.limitsHold = false),
          () => (engine.limitsHold = true),
        );
      case "image-gone":
        engine.images.delete(image);
        if (action.isPullable) engine.pullable.add(image);
        return;
      case "external":
        return external(action.act, action.id);
      case "idle":
        if (!action.isIdle) idle.delete(action.id);
        else if (daemon !== undefined) idle.set(action.id, daemon.clock.nowMs());
        return;
      case "health":
        if (action.isWell) ill.delete(action.id);
        else ill.add(action.id);
        return;
    }
  }

  async function orRefused(act: () => Promise<void> | undefined): Promise<void> {
    try {
      await act();
    } catch (error) {
      if (!(error instanceof SandboxdError) && !(error instanceof DaemonDied)) onUnhandled(error);
    }
  }

  const look = () => ledger.look(time.nowMs());
  async function pass(ms: number): Promise<void> {
    try {
      await time.pass(ms, look, () => violation !== undefined);
    } catch (error) {
      onUnhandled(error);
    }
  }

  /** No more faults: everything that was begun comes to its end. */
  async function rest(): Promise<void> {
    armed.length = 0;
    engine.eventFaults.length = 0;
    dieAt = undefined;
    disk.isFull = false;
    engine.limitsHold = true;
    engine.images.add(image);
    say("step", () => "no more faults");
    await pass(restMs);
    const view = () => ({
      daemon,
      engine,
      bootId: boot.id,
      idle,
      isStateLost: states > 1,
      isUpdateCut: (instance: string) => ledger.books.story(instance)?.isUpdateCut === true,
    });
    let problem = restProblem(view());
    for (let tries = 0; problem !== undefined && tries < restLooks && violation === undefined; tries++) {
      await pass(1_000);
      problem = restProblem(view());
    }
    if (problem !== undefined) violated(`no rest: ${problem}`);
  }

  try {
    rise();
    await pass(200);
    for (const step of schedule.steps) {
      await pass(step.afterMs);
      if (violation !== undefined) break;
      const isDone = take(step);
      await pass(1);
      void isDone;
    }
    if (violation === undefined) await rest();
    if (violation === undefined) {
      void closeDaemon(60_000);
      await pass(drainMs + 1);
    }
    return { violation, trace, durationMs: time.nowMs() };
  } finally {
    life.alive = false;
    await settled();
    process.off("unhandledRejection", onUnhandled);
    disk.close();
  }
}

const callVerbs: ReadonlySet<string> = new Set([
  "create",
  "start",
  "stop",
  "delete",
  "pause",
  "resume",
  "renew",
  "update",
]);
const calm: ReadonlySet<string> = new Set([...callVerbs, "idle", "health"]);

/** As the API does with a request of this kind. */
async function ask(
  { manager }: Daemon,
  action: CallAction,
  generation: number,
  signal: AbortSignal,
): Promise<SandboxRecord | undefined> {
  const { id } = action;
  const asking = { actor: caller, signal };
  switch (action.do) {
    case "create": {
      const { wait, wish } = action;
      return await manager.create({ ...asking, id, tenant: "acme", spec: requestOf(wish), wait });
    }
    case "start":
      return await manager.start(id, asking);
    case "stop":
      return await manager.stop(id, {
        ...asking,
        ...(action.graceMs === undefined ? {} : { graceMs: action.graceMs }),
      });
    case "delete":
      await manager.delete(id, asking);
      return undefined;
    case "pause":
      return await manager.pause(id, asking);
    case "resume":
      return await manager.resume(id, asking);
    case "renew":
      return await manager.renew(id, { ...asking, generation, ttlMs: action.ttlMs });
    case "update":
      return await manager.update({
        ...asking,
        id,
        resources: action.memoryMiB === undefined ? {} : { memoryBytes: action.memoryMiB * 2 ** 20 },
        ...(action.label === undefined ? {} : { labels: { number: action.label } }),
      });
    default:
      throw new Error(`no call: ${action}`);
  }
}

const idOf = (container: ModelContainer) => labels.decode(container.labels)?.id ?? "foreign";

function wordsOf(document: string): string {
  const { type, sandbox, ...rest } = JSON.parse(document);
  if (sandbox === undefined) return `${type} ${JSON.stringify(rest)}`;
  const { reason, message, from } = sandbox.transition;
  const what =
    type === "SANDBOX_STATE_CHANGED" || type === "SANDBOX_DELETED"
      ? `${from} to ${sandbox.state}: ${reason}, ${message}`
      : `${type} in ${sandbox.state}`;
  return `${sandbox.id} ${what} (wanted ${sandbox.wanted}, generation ${sandbox.generation})`;
}

function wordsOfCall(action: CallAction): string {
  const { do: verb, id, ...rest } = action;
  return `${verb} ${id} ${JSON.stringify(rest)}`;
}

const silent = loggingTo(() => undefined);

function loggingTo(write: (fields: Readonly<Record<string, unknown>>, message: string) => void): Log {
  const log = {
    trace: () => undefined,
    debug: () => undefined,
    info: () => undefined,
    warn: write,
    error: write,
    fatal: write,
    child: () => log,
  } as unknown as Log;
  return log;
}
