// Keeps the daemon and the engine of one mind: finds out whether the engine can be used, lists it on every connection and
// every period, adopts what is known, rebuilds what was lost, and removes what is certainly left over. Events only wake.

import { setTimeout as sleep } from "node:timers/promises";
import type { ContainerSummary, EngineDescription, Runtime } from "../engine/runtime.ts";
import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Store } from "../store/store.ts";
import type { Clock } from "./clock.ts";
import { assess, type EngineHealth, healthOfFailure } from "./engine-health.ts";
import { hostSelector, type LabelCodec } from "./labels.ts";
import { cpuRequestOf } from "./plan.ts";
import type { Reconciler } from "./reconciler.ts";
import { actors, isToLive, type SandboxRecord } from "./record.ts";
import type { Repository } from "./repository.ts";

export interface EngineWatchOptions {
  readonly runtime: Runtime;
  readonly repository: Repository;
  readonly reconciler: Reconciler;
  readonly store: Pick<Store, "isTombstone">;
  readonly labels: LabelCodec;
  readonly clock: Clock;
  readonly hostId: string;
  readonly bootId: string;
  readonly relistPeriodMs: number;
  readonly orphanGraceMs: number;
  /** A sandbox runs as recorded; it may not be watched yet. */
  readonly adopt: (record: SandboxRecord, containerId: string) => void;
  /** A tenant is known from a sandbox that was lost; it may be known already. */
  readonly adoptTenant: (name: string, uid: number) => void;
  readonly onHealth: (health: EngineHealth) => void;
  readonly log: Log;
}

export interface EngineWatch {
  /** Resolves after the first attempt to reach the engine and, if that succeeded, the first list. */
  start(): Promise<void>;
  /**
   * When, by `performance.now()`, it last got on: with a question to the engine, however that ended, or with a container. Not to
   * get on for longer than the engine's verbs may take is to be stuck.
   */
  lastProgress(): number;
  close(): Promise<void>;
}

const retryMs = 1_000;
/** With a ping's own deadline, an engine that hangs is known for it within 15 s. */
const pingMs = 5_000;

export function createEngineWatch(options: EngineWatchOptions): EngineWatch {
  const { runtime, repository, reconciler, labels, log } = options;
  const selector = hostSelector(options.hostId);
  const closing = new AbortController();
  const { signal } = closing;
  /** When an orphan was first seen, by a clock that never jumps. */
  const orphans = new Map<string, number>();
  let engine: EngineDescription | undefined;
  /** Whether the last look found that it can be used; while it cannot, it is looked at every second. */
  let isUsable = false;
  let loops: Promise<unknown> = Promise.resolve();
  let progressAt = performance.now();

  async function look(): Promise<void> {
    isUsable = await compared();
  }

  /** One attempt: true if the engine can be used and what it has was compared with what is known. */
  async function compared(): Promise<boolean> {
    try {
      engine = await runtime.describe({ signal });
      const health = assess(engine);
      options.onHealth(health);
      if (health.problem !== undefined) return false;
      await relist();
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      if (error instanceof SandboxdError && error.reason === "STATE_DISK_FULL") {
        // not the engine's fault; what could not be written is done at the next look
        log.warn({ err: messageOf(error) }, "the comparison with the engine could not be written");
        return true;
      }
      options.onHealth(healthOfFailure(error, engine));
      return false;
    }
  }

  async function relist(): Promise<void> {
    const containers = await runtime.list(selector, { signal });
    const seen = new Map<string, ContainerSummary>();
    /** Of a sandbox that has one already. */
    const seconds = new Map<string, SandboxRecord>();
    for (const container of containers) {
      progressAt = performance.now();
      const identity = labels.decode(container.labels);
      if (identity === undefined) {
        log.warn(
          { container: container.id },
          "container carries this host's label without its signature; left alone",
        );
        continue;
      }
      const record = repository.get(identity.id);
      if (record?.instance === identity.instance) {
        const other = seen.get(identity.id);
        const [own, second] = other?.id === record.containerId ? [other, container] : [container, other];
        seen.set(identity.id, own);
        if (second !== undefined) seconds.set(second.id, record);
      } else if (record === undefined && !options.store.isTombstone(identity.instance)) {
        await rebuild(container.id);
      } else if (options.store.isTombstone(identity.instance)) {
        await removeOrphan(container.id, identity.id, "of a deleted sandbox");
      } else {
        log.warn(
          { container: container.id, sandbox: identity.id },
          "container is of another sandbox of this id; left alone",
        );
      }
    }
    for (const [containerId, { id }] of seconds)
      await removeOrphan(containerId, id, "of a sandbox that has another");
    for (const record of repository.all()) {
      const container = seen.get(record.id);
      if (container !== undefined) orphans.delete(container.id);
      const isOther = differs(record, container, options.bootId);
      // a list shows no limits, and an update may have got only half-way
      const isUncertain = container !== undefined && isToLive(record) && !reconciler.hasLookedAt(record.id);
      const found = container === undefined ? {} : { listedAs: container.id };
      if (isOther || isUncertain) reconciler.kick(record.id, found);
      if (!isOther && container !== undefined && record.state === "RUNNING")
        options.adopt(record, container.id);
    }
  }

  /** The state was lost, or is older than the container: what the container carries is the truth. */
  async function rebuild(containerId: string): Promise<void> {
    const container = await runtime.inspect(containerId, { signal });
    const identity = container === undefined ? undefined : labels.decode(container.labels);
    if (container === undefined || identity === undefined) return;
    // created, or rebuilt and deleted, while the engine was asked
    if (repository.get(identity.id) !== undefined || options.store.isTombstone(identity.instance)) return;
    const timeMs = Date.now();
    const message = "rebuilt from its container's labels; the daemon's state did not know it";
    const { cpuMillis, cpuWeight, memoryBytes, pids } = container.limits;
    const asked = identity.spec.resources;
    const resources = {
      ...asked,
      ...{ cpuMillis, memoryBytes, pids },
      cpuRequestMillis: cpuRequestOf(cpuWeight),
      memoryRequestBytes: Math.min(asked.memoryRequestBytes, memoryBytes),
    };
    const { ttlMs } = identity.spec.lifetime;
    const record: SandboxRecord = {
      ...identity,
      // when its lease ended is lost: too late rather than too soon
      ...(ttlMs === undefined ? {} : { expiresAtMs: options.clock.nowMs() + ttlMs }),
      spec: { ...identity.spec, resources },
      generation: 1,
      wanted: wantedOf(container.state),
      state: "CREATING",
      transition: {
        from: undefined,
        to: "CREATING",
        reason: "ADOPTED",
        message,
        actor: actors.policy,
        timeMs,
      },
      stopGraceMs: identity.spec.stopGraceMs,
      containerId,
      endedRun: "",
      bootId: "",
    };
    options.adoptTenant(record.tenant, record.uid);
    repository.insert(record);
    log.warn({ sandbox: record.id, container: containerId }, "sandbox rebuilt from its labels");
    reconciler.kick(record.id);
  }

  async function removeOrphan(containerId: string, sandbox: string, of: string): Promise<void> {
    const since = orphans.get(containerId) ?? performance.now();
    orphans.set(containerId, since);
    if (performance.now() - since < options.orphanGraceMs) return;
    log.warn({ container: containerId, sandbox }, `removing the left-over container ${of}`);
    try {
      await runtime.remove(containerId, { signal });
      orphans.delete(containerId);
    } catch (error) {
      const reason = error instanceof SandboxdError ? error.reason : undefined;
      if (reason !== "ENGINE_FAILED" && reason !== "ENGINE_TIMEOUT") throw error;
      // one that is stuck says nothing of the engine, and is tried again by the next look
      log.warn({ container: containerId, sandbox, err: messageOf(error) }, "container cannot be removed");
    }
  }

  /**
   * Listens, and looks whenever the connection was made anew. It then also hears what happened since it heard the last:
   * nothing but an event tells who ended a container.
   */
  async function followEvents(): Promise<void> {
    let sinceNanos: bigint | undefined;
    const onOpen = () => {
      sinceNanos ??= BigInt(Date.now()) * 1_000_000n;
      void look();
    };
    while (!signal.aborted) {
      const began = performance.now();
      try {
        const since = sinceNanos === undefined ? {} : { sinceNanos };
        for await (const event of runtime.events(selector, { signal, onOpen, ...since })) {
          sinceNanos = event.timeNanos + 1n;
          reconciler.noticed(event);
        }
      } catch (error) {
        if (signal.aborted) return;
        log.debug({ err: messageOf(error) }, "engine event stream ended");
      }
      // an engine that was restarted may answer at once, and what it is told to end then should be heard of
      if (performance.now() - began > retryMs) continue;
      await look();
      await pause(retryMs, signal);
    }
  }

  async function isAnswering(): Promise<boolean> {
    try {
      await runtime.ping({ signal });
      return true;
    } catch (error) {
      if (!signal.aborted) options.onHealth(healthOfFailure(error, engine));
      return false;
    }
  }

  async function lookPeriodically(): Promise<void> {
    let relistAt = performance.now() + options.relistPeriodMs;
    while (!signal.aborted) {
      const untilRelist = Math.max(0, relistAt - performance.now());
      await pause(isUsable ? Math.min(pingMs, untilRelist) : retryMs, signal);
      if (signal.aborted) return;
      const isDue = performance.now() >= relistAt;
      if (!isUsable || isDue) await look();
      else if (!(await isAnswering())) isUsable = false;
      progressAt = performance.now();
      if (isDue) relistAt = performance.now() + options.relistPeriodMs;
    }
  }

  return {
    async start() {
      await look();
      loops = Promise.all([followEvents(), lookPeriodically()]);
    },
    lastProgress: () => progressAt,
    async close() {
      closing.abort();
      await loops;
    },
  };
}

/** Of a sandbox that is rebuilt: what it is. */
function wantedOf(state: ContainerSummary["state"]): SandboxRecord["wanted"] {
  if (state === "paused") return "PAUSED";
  return state === "running" ? "RUNNING" : "STOPPED";
}

/** Waits, or until the signal. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined);
}

/** Whether the list shows something else than the record says; then it is worth an inspect. */
function differs(record: SandboxRecord, seen: ContainerSummary | undefined, bootId: string): boolean {
  switch (record.state) {
    case "RUNNING":
      // of another boot, its limits are to be read back again
      return seen?.state !== "running" || record.wanted !== "RUNNING" || record.bootId !== bootId;
    case "PAUSED":
      return seen?.state !== "paused" || record.wanted !== "PAUSED";
    case "BACKING_OFF":
      return seen !== undefined && seen.state !== "exited";
    case "STOPPED":
    case "FAILED":
      return seen?.state === "running" || seen?.state === "paused" || record.wanted !== "STOPPED";
    default:
      return true;
  }
}
