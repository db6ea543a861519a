// Runs one schedule: the daemon, the engine and the disk under it, the callers and whoever else is about, until everything has
// come to rest and the daemon was closed; and says what was violated first.

import { SandboxdError } from "../../src/errors.ts";
import { noNetwork } from "../../src/network/policy.ts";
import { containerName } from "../../src/sandbox/plan.ts";
import { noRange } from "../../src/tenant/limit-range.ts";
import { caller, callVerbs, createCallers } from "./callers.ts";
import { createLedger } from "./ledger.ts";
import { createLives } from "./lives.ts";
import { createModelDisk, DaemonDied } from "./model-disk.ts";
import { createModelEngine } from "./model-engine.ts";
import { hostId, image } from "./model-host.ts";
import type { ArmedFault } from "./model-runtime.ts";
import { createRandom } from "./random.ts";
import { restProblem } from "./rest.ts";
import type { Schedule, Step } from "./schedule.ts";
import { tenant } from "./tenancy.ts";
import { beginTime, settled } from "./virtual-time.ts";
import { idOf, loggingTo, silent, wordsOf } from "./words.ts";

export interface Played {
  /** Undefined: everything held. */
  readonly violation: string | undefined;
  /** What happened, a line each; empty unless asked for. */
  readonly trace: readonly string[];
  /** Time that passed in it. Milliseconds. */
  readonly durationMs: number;
}

/** For which the daemon is down at the end: longer than it may take to close. */
const downMs = 20_000;
/** After the last fault: two lists, and the orphan grace. */
const restMs = 12_000;
/** Seconds more for the longest wait before another try, after the longest call. */
const restLooks = 110;

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
  const everIll = new Set<string>();
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
  const isLate = schedule.steps.some(
    ({ action }) => action.do === "fault" && /late|slow/.test(action.fault) && !reading.has(action.verb),
  );
  const ledger = createLedger({
    engine,
    nowMs: time.nowMs,
    boot: () => `${boot.id}/${states}`,
    violated,
    isLate,
    isWallSet: schedule.steps.some(({ action }) => action.do === "wall"),
    isCalm: schedule.steps.every(({ action }) => calm.has(action.do)),
    diskSlownessMs: schedule.steps.some(({ action }) => action.do === "disk-slow") ? 6_100 : 20,
    isDiskGood: schedule.steps.every(({ action }) => !/^disk|crash-at/.test(action.do)),
    isIdle: (id) => idle.has(id),
    wasIll: (id) => everIll.has(id),
  });
  ledger.books.durableBy(disk.durableCount);

  let boot = { id: "boot-1", sinceMs: -1_000 };
  let boots = 1;
  /** State files so far. */
  let states = 1;

  const log = isTraced
    ? loggingTo((fields, message) =>
        say("log", () => `${message} ${JSON.stringify({ ...fields, err: String(fields["err"] ?? "") })}`),
      )
    : silent;
  const callers = createCallers({
    time,
    ledger,
    say: (words) => say("caller", words),
    onUnknown: onUnhandled,
  });
  const lives = createLives({
    time,
    random,
    engine,
    disk,
    ledger,
    armed,
    streams,
    boot: () => boot,
    idle,
    ill,
    say,
    log,
    violated,
    onUnhandled,
    hangUp: callers.hangUp,
  });

  function during(ms: number, begin: () => void, end: () => void): void {
    begin();
    time.after(ms, end);
  }

  function external(act: string, id: string) {
    if (!engine.isUp) return;
    const name = containerName(hostId, id);
    const container = engine.byName(name);
    if (act === "squat") {
      engine.squat(name, { "sandboxd.host": hostId });
    }
    if (container === undefined) return;
    switch (act) {
      case "rm":
        engine.remove(container, "external");
        break;
      case "stop":
        engine.stop(container, 2_000, "external", () => undefined);
        break;
      case "kill":
        engine.kill(container, "external");
        break;
      case "pause":
        engine.pause(container, "external");
        break;
      case "unpause":
        engine.unpause(container, "external");
        break;
      case "start":
        engine.start(container, "external");
        break;
      case "rename": {
        // while a create may still come late, the name is all that keeps it from being a second one
        if (!isLate) engine.rename(container, `${name}-${random.between(1, 9)}`);
        break;
      }
    }
  }

  /** Open: whoever operates the host may start containers as soon as it is back. */
  function engineGoes(downMs: number, isOpen: boolean): void {
    engine.isUp = false;
    engine.forgetEvents();
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
    lives.mayRise = false;
    // somebody may be at the containers before the daemon is
    const upMs = downMs + random.between(1, 3_000);
    lives.die("goes down with the machine", upMs);
    if (losesPower) ledger.powerLost(disk.losePower());
    ledger.rebooted();
    engine.endAll("reboot");
    engineGoes(downMs, true);
    armed.length = 0;
    boot = { id: `boot-${++boots}`, sinceMs: time.nowMs() + downMs - 5_000 };
    time.after(upMs, () => {
      lives.mayRise = true;
      lives.rise();
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
        return callers.call(lives.daemon(), lives.present(), action, patienceMs);
      case "cordon":
      case "open":
        return void orRefused(() =>
          lives.daemon()?.scheduling.setSchedulable(action.do === "open", "simulated", caller),
        );
      case "put-tenant": {
        const { running, memoryMiB } = action;
        const quota = {
          ...(running === undefined ? {} : { runningSandboxes: running }),
          ...(memoryMiB === undefined ? {} : { memoryBytes: memoryMiB * 2 ** 20 }),
        };
        const { tenants } = lives.daemon() ?? {};
        return void orRefused(() => tenants?.put(tenant, { quota, limitRange: noRange, network: noNetwork }));
      }
      case "delete-tenant":
        ledger.tenancy.isDeletionAsked = true;
        return void orRefused(() => lives.daemon()?.tenants.delete(tenant, { cascade: true, actor: caller }));
      case "drain":
        ledger.hasDrained = true;
        return void orRefused(() =>
          lives.daemon()?.scheduling.drain({ ...action, reason: "simulated", actor: caller }),
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
        return lives.die("killed", action.downMs);
      case "crash-at":
        lives.trap = { ...action };
        return;
      case "restart-daemon":
        return await lives.close(action.downMs);
      case "restart-engine":
        if (!action.keepsSandboxes) engine.endAll("engine");
        return engineGoes(action.downMs, false);
      case "reboot":
        return reboot(action.losesPower, action.downMs);
      case "lose-state":
        lives.die("is killed, and its state is lost", action.downMs);
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
        else if (ledger.clock !== undefined) idle.set(action.id, ledger.clock.nowMs());
        return;
      case "health":
        if (action.isWell) ill.delete(action.id);
        else everIll.add(action.id);
        if (!action.isWell) ill.add(action.id);
        return;
    }
  }

  async function orRefused(act: () => Promise<unknown> | undefined): Promise<void> {
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
    lives.trap = undefined;
    disk.isFull = false;
    engine.limitsHold = true;
    engine.images.add(image);
    say("step", () => "no more faults");
    await pass(restMs);
    const view = () => ({
      daemon: lives.daemon(),
      engine,
      bootId: boot.id,
      idle,
      isStateLost: states > 1,
      isUpdateCut: (instance: string) => ledger.books.story(instance)?.isUpdateCut === true,
    });
    const findProblem = () => restProblem(view()) ?? ledger.tenancy.restProblem();
    let problem = findProblem();
    for (let tries = 0; problem !== undefined && tries < restLooks && violation === undefined; tries++) {
      await pass(1_000);
      problem = findProblem();
    }
    if (problem !== undefined) violated(`no rest: ${problem}`);
  }

  try {
    lives.rise();
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
      void lives.close(downMs);
      await pass(downMs - 1);
    }
    return { violation, trace, durationMs: time.nowMs() };
  } finally {
    lives.mayRise = false;
    lives.die("is no more", 1);
    await settled();
    process.off("unhandledRejection", onUnhandled);
    disk.close();
  }
}

/** Steps that put nothing in the way. */
const calm: ReadonlySet<string> = new Set([...callVerbs, "idle", "health"]);

/** Questions: that an answer is late changes nothing. */
const reading: ReadonlySet<string> = new Set(["list", "inspect", "image", "compare", "verify", "logs"]);
