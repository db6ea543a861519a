// Brings each sandbox from what is seen to what is wanted: asks decide() for one step, does it, records it, and goes on
// until there is nothing to do.

import type { Container, EngineEvent, Runtime } from "../engine/runtime.ts";
import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Clock } from "./clock.ts";
import { type Action, decide, type Observed, type Settlement } from "./decide.ts";
import { createExitReports } from "./exit-report.ts";
import type { LabelCodec } from "./labels.ts";
import { expiryOf } from "./lifetime.ts";
import { createLooks } from "./looks.ts";
import { lookUp } from "./lookup.ts";
import { type HostFacts, liveLimits } from "./plan.ts";
import type { SandboxRecord, TransitionReason } from "./record.ts";
import type { Repository } from "./repository.ts";
import { createStarter, type StarterOptions } from "./starter.ts";
import { createTouches } from "./touches.ts";
import { cameToRun, moved } from "./transition.ts";
import type { Vitals, Watch } from "./watch.ts";

export interface ReconcilerOptions {
  readonly runtime: Runtime;
  readonly repository: Repository;
  readonly labels: LabelCodec;
  /** Undefined while the engine was never reached. */
  readonly host: () => HostFacts | undefined;
  readonly bootId: string;
  readonly watch: Watch;
  readonly vitals: Vitals;
  readonly clock: Clock;
  /** Whether the engine is known not to be usable now: then it is not asked, and the next list wakes those who wait. */
  readonly isEngineAway: () => boolean;
  /** Whether this instance's deletion was confirmed once. */
  readonly isDeleted: (instance: string) => boolean;
  readonly pullImages: boolean;
  readonly concurrentStarts: number;
  /** Has the cgroups above a tenant's sandboxes hold. Rejects with LIMIT_UNENFORCEABLE. */
  readonly holdTenant: (tenant: string) => Promise<void>;
  /** Has a tenant's workspace there to be mounted. Rejects with WORKSPACE_UNAVAILABLE, or with WORKSPACE_IN_USE while it has to wait. */
  readonly workspace: StarterOptions["workspace"];
  /** Default: no sandbox has a network. */
  readonly networks?: StarterOptions["networks"];
  readonly log: Log;
}

export interface KickOptions {
  /** It was just accepted, so it has no container yet. */
  readonly fresh?: boolean;
  /** The engine lists this container as the sandbox's. */
  readonly listedAs?: string;
}

export interface Reconciler {
  /** Looks at the sandbox and does what is to do. */
  kick(id: string, options?: KickOptions): void;
  /** Whether it was looked at in this life of the daemon, and no look was left out since because the engine was away. */
  hasLookedAt(id: string): boolean;
  /** Does `job` between two steps of the sandbox. */
  between<T>(id: string, job: () => Promise<T>): Promise<T>;
  /** An engine event of a container of ours. */
  noticed(event: EngineEvent): void;
  /** Resolves when nothing is going on. */
  idle(): Promise<void>;
  close(): void;
}

/** A step that decides nothing new this often in a row is a defect, not work. */
const mostSteps = 20;

/** Reasons by which a rule, not a caller or the sandbox itself, changes what is wanted. */
const decided: ReadonlySet<TransitionReason> = new Set(["EXPIRED", "IDLE", "MAX_LIFETIME", "UNHEALTHY"]);

export function createReconciler(options: ReconcilerOptions): Reconciler {
  const { runtime, repository, labels, bootId, watch, vitals, clock, log } = options;
  const looks = createLooks({ look, isEngineAway: options.isEngineAway, log });
  /** The container that the engine was last heard to have for it, by sandbox: its name may change before its id is recorded. */
  const heardOf = new Map<string, string>();
  const touches = createTouches(runtime);
  const exitReports = createExitReports(runtime, log);
  const starter = createStarter({
    ...options,
    hostFacts,
    settle,
    touches,
    onMade: (id, made) => heardOf.set(id, made),
  });

  /** Until nothing is to do, or somebody has to wake it. Resolves to whether the sandbox is still there. */
  async function look(id: string, fresh: boolean): Promise<boolean> {
    await reconcile(id, fresh);
    if (repository.get(id) !== undefined) return true;
    heardOf.delete(id);
    return false;
  }

  async function reconcile(id: string, fresh: boolean): Promise<void> {
    let observed: Observed | undefined = fresh ? { kind: "absent" } : undefined;
    for (let step = 0; step < mostSteps && !looks.isClosed(); step++) {
      const before = repository.get(id);
      if (before === undefined) return;
      observed ??= await observe(before);
      // callers may have changed it while the engine was asked
      const record = repository.get(id);
      if (record?.instance !== before.instance) {
        observed = undefined;
        continue;
      }
      const action = decide(record, observed, { bootId, nowMs: clock.nowMs() });
      const next = await act(record, action, observed);
      if (next === "rest") return;
      observed = next === "again" ? undefined : next;
    }
    if (!looks.isClosed()) throw new Error(`no rest after ${mostSteps} steps`);
  }

  async function observe(record: SandboxRecord): Promise<Observed> {
    const heard = heardOf.get(record.id);
    const found = await lookUp(record, {
      runtime,
      labels,
      hostId: hostFacts().hostId,
      ...given("heardOf", heard),
    });
    if (found.kind === "absent" || found.kind === "foreign") return found;
    if (found.kind === "earlier") {
      // without that proof the state may be older than the container, which is no reason to remove it
      if (!options.isDeleted(found.instance)) return { kind: "foreign", containerId: found.containerId };
      await runtime.remove(found.containerId);
      return { kind: "absent" };
    }
    const { container } = found;
    const touchedExternally = await touches.wasBySomeoneElse(container.id);
    const failure = await initFailure(container);
    return {
      kind: "present",
      container,
      oomKills: watch.oomKills(record.id),
      touchedExternally,
      ...given("idleSinceMs", vitals.idleSinceMs(record.id)),
      ...given("health", vitals.health(record.id)),
      ...(failure === undefined ? {} : { initFailure: failure }),
    };
  }

  /** The engine starts its init process whatever the command is, so a command that does not exist is told by that alone. */
  async function initFailure({ id, state, exitCode }: Container): Promise<string | undefined> {
    if (state !== "exited" || (exitCode !== 126 && exitCode !== 127)) return undefined;
    for await (const { data } of runtime.logs(id, { follow: false, tailLines: 1, stream: "stderr" })) {
      const line = Buffer.from(data).toString("utf8").trim();
      if (/^\[FATAL tini \(\d+\)\] exec /.test(line)) return line.replace(/^\[FATAL tini \(\d+\)\] /, "");
    }
    return undefined;
  }

  /** Does one step. Resolves to what is seen after it, or to whether to look again or to rest until somebody wakes it. */
  async function act(
    record: SandboxRecord,
    action: Action,
    seen: Observed,
  ): Promise<Observed | "again" | "rest"> {
    switch (action.do) {
      case "nothing":
        return "rest";
      case "create":
        return afterStart(await starter.start(record.id, undefined));
      case "start":
        return afterStart(await starter.start(record.id, action.container));
      case "verify":
        await starter.verify(record, action.container, cameToRun(record));
        return "again";
      case "limit":
        await runtime.update(action.container, liveLimits(record.spec.resources));
        return "again";
      case "pause":
        await repository.durable();
        await runtime.pause(action.containerId);
        return "again";
      case "resume":
        await repository.durable();
        await runtime.resume(action.containerId);
        return "again";
      case "stop":
        if (action.settle !== undefined) settle(record, action.settle);
        await repository.durable();
        await end(record.id, action.containerId, () =>
          runtime.stop(action.containerId, Math.ceil(record.stopGraceMs / 1_000)),
        );
        return "again";
      case "remove": {
        await repository.durable();
        const remove = () => runtime.remove(action.containerId);
        const isAlive =
          seen.kind === "present" &&
          (seen.container.state === "running" || seen.container.state === "paused");
        const left = await (isAlive
          ? end(record.id, action.containerId, remove)
          : touches.byUs("end", action.containerId, remove));
        return left === "gone" ? "again" : "rest";
      }
      case "forget":
        watch.ended(record.id);
        repository.remove(
          moved(record, {
            state: "DELETED",
            reason: record.state === "DELETING" ? record.transition.reason : "REQUESTED",
            message: "gone",
            actor: record.transition.actor,
          }),
        );
        return "rest";
      case "settle": {
        const settlement = await withReport(record, action.settlement, seen);
        const now = repository.unmoved(record);
        if (now !== undefined) settle(now, settlement);
        return seen;
      }
      case "warn":
        repository.put({ ...record, warnedOfMs: expiryOf(record) }, "SANDBOX_EXPIRING");
        return seen;
      case "note":
        repository.put({ ...record, health: action.health }, "SANDBOX_HEALTH_CHANGED");
        return seen;
    }
  }

  function hostFacts(): HostFacts {
    const host = options.host();
    if (host === undefined) throw new SandboxdError("ENGINE_UNAVAILABLE", "the engine was not reached yet");
    return host;
  }

  /** An end that the kernel does not carry out is told once, with what is seen of it, and tried again. */
  async function end<T>(id: string, containerId: string, send: () => Promise<T>): Promise<T> {
    try {
      return await touches.byUs("end", containerId, send);
    } catch (error) {
      const isStuck =
        error instanceof SandboxdError &&
        (error.reason === "ENGINE_TIMEOUT" || error.reason === "ENGINE_FAILED") &&
        !options.isEngineAway();
      const record = repository.get(id);
      if (isStuck && record !== undefined && record.stuck === undefined) {
        const evidence = watch.evidence(id) ?? messageOf(error);
        repository.put({ ...record, stuck: { sinceMs: Date.now(), evidence } }, "SANDBOX_STUCK");
      }
      throw error;
    }
  }

  /** Of a run that is told as ended, also what its samples and its output say. */
  async function withReport(
    record: SandboxRecord,
    settlement: Settlement,
    seen: Observed,
  ): Promise<Settlement> {
    if (settlement.exit === undefined || seen.kind !== "present") return settlement;
    const report = await exitReports.of(seen.container, watch.summary(record.id));
    return { ...settlement, exit: { ...settlement.exit, report } };
  }

  function settle(record: SandboxRecord, settlement: Settlement): SandboxRecord {
    const to = moved(record, settlement);
    const isDecided = decided.has(settlement.reason) && to.wanted !== record.wanted;
    const next = isDecided ? { ...to, generation: record.generation + 1 } : to;
    repository.put(next, "SANDBOX_STATE_CHANGED");
    // what was seen of a run is forgotten only once it was told
    if (settlement.state !== "RUNNING" && settlement.state !== "PAUSED") watch.ended(record.id);
    if (settlement.endedRun !== undefined) touches.forget(next.containerId);
    // what goes on as it was asked is in the line of the call
    const level = settlement.reason === "PROGRESS" ? "debug" : "info";
    log[level](
      { sandbox: next.id, tenant: next.tenant, to: next.state, reason: settlement.reason },
      "sandbox changed",
    );
    return next;
  }

  return {
    kick(id, { fresh = false, listedAs } = {}) {
      if (listedAs !== undefined) heardOf.set(id, listedAs);
      looks.kick(id, { fresh });
    },
    hasLookedAt: looks.hasLookedAt,
    between: looks.run,
    noticed(event) {
      const { containerId, action } = event;
      const isOurs = touches.isOurs(event);
      // the engine tells in order, however late: signals that it told before a start met an earlier run
      if (action === "start") touches.forget(containerId);
      if (isOurs) return;
      const identity = labels.decode(event.labels);
      if (identity === undefined) return;
      // nothing is told any more of a run whose sandbox goes as well
      const isTold = action === "die" && repository.get(identity.id)?.wanted !== "DELETED";
      if (isTold) exitReports.hasEnded(containerId);
      if (action === "kill") touches.signalled(containerId);
      if (action === "destroy") touches.forget(containerId);
      else heardOf.set(identity.id, containerId);
      // a signal alone ends nothing; the end that follows is an event of its own
      if (action !== "kill") looks.kick(identity.id);
      if (isTold) void looks.run(identity.id, async () => exitReports.forget(containerId));
    },
    idle: looks.idle,
    close: looks.close,
  };
}

function given<K extends string, V>(name: K, value: V | undefined): { readonly [P in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [P in K]: V });
}

/** What runs and was told so was just seen: its end, and whatever else is to be done about it, wakes by itself. */
const afterStart = (isRunning: boolean) => (isRunning ? "rest" : "again");
