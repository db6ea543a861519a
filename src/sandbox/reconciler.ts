// Brings each sandbox from what is seen to what is wanted: asks decide() for one step, does it, records it, and goes on
// until there is nothing to do. One serial queue per sandbox.

import type { CgroupPaths } from "../engine/cgroup-path.ts";
import type { Container, EngineEvent, Runtime } from "../engine/runtime.ts";
import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import { type Action, decide, failed, type Observed, type Settlement } from "./decide.ts";
import { type LabelCodec, labelPrefix } from "./labels.ts";
import { containerName, containerOf, type HostFacts, planOf } from "./plan.ts";
import { createQueues, createSlots } from "./queue.ts";
import { actors, type SandboxRecord } from "./record.ts";
import type { Repository } from "./repository.ts";
import { cameToRun, failureReason, moved, progress, starting, type Why } from "./transition.ts";

/** Who samples running sandboxes. */
export interface Watch {
  /** The sandbox runs. New: what its cgroup has counted so far was never told. */
  began(id: string, cgroup: CgroupPaths, options: { readonly isNew: boolean }): void;
  isWatching(id: string): boolean;
  /** It runs no more, or is gone. */
  ended(id: string): void;
  /** Out-of-memory kills counted in its cgroup since its start. */
  oomKills(id: string): number;
}

export interface ReconcilerOptions {
  readonly runtime: Runtime;
  readonly repository: Repository;
  readonly labels: LabelCodec;
  /** Undefined while the engine was never reached. */
  readonly host: () => HostFacts | undefined;
  readonly bootId: string;
  readonly watch: Watch;
  /** Whether this instance's deletion was confirmed once. */
  readonly isDeleted: (instance: string) => boolean;
  readonly pullImages: boolean;
  readonly concurrentStarts: number;
  readonly log: Log;
}

export interface Reconciler {
  /** Looks at the sandbox and does what is to do. `fresh`: it was just accepted, so it has no container yet. */
  kick(id: string, options?: { readonly fresh?: boolean }): void;
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
const retryDelayMs = 2_000;

/** Of the engine's events, those after which a container may be in another state than before. */
const tellingActions = new Set(["start", "die", "pause", "unpause", "destroy", "rename", "update"]);

export function createReconciler(options: ReconcilerOptions): Reconciler {
  const { runtime, repository, labels, bootId, watch, log } = options;
  const queues = createQueues();
  const slots = createSlots(options.concurrentStarts);
  const kicked = new Set<string>();
  const retries = new Map<string, NodeJS.Timeout>();
  /** Containers that this daemon is doing something to, and those that someone else sent a signal. */
  const ours = new Set<string>();
  const touched = new Set<string>();
  let closed = false;

  function kick(id: string, { fresh = false } = {}): void {
    if (closed || (kicked.has(id) && !fresh)) return;
    kicked.add(id);
    clearTimeout(retries.get(id));
    retries.delete(id);
    void queues.run(id, async () => {
      kicked.delete(id);
      try {
        await reconcile(id, fresh);
      } catch (error) {
        if (closed) return;
        const reason = error instanceof SandboxdError ? error.reason : undefined;
        log.warn({ sandbox: id, reason, err: messageOf(error) }, "step failed; will look again");
        retries.set(id, setTimeout(() => kick(id), retryDelayMs).unref());
      }
    });
  }

  async function reconcile(id: string, fresh: boolean): Promise<void> {
    let observed: Observed | undefined = fresh ? { kind: "absent" } : undefined;
    for (let step = 0; step < mostSteps && !closed; step++) {
      const asked = repository.get(id);
      if (asked === undefined) return;
      observed ??= await observe(asked);
      // a caller may have changed what is wanted while the engine was asked
      const record = repository.get(id) ?? asked;
      const action = decide(record, observed, bootId);
      if (action.do === "nothing") return;
      observed = await act(record, action);
      if (action.do === "forget") return;
    }
    if (!closed) throw new Error(`no rest after ${mostSteps} steps`);
  }

  async function observe(record: SandboxRecord): Promise<Observed> {
    const host = options.host();
    if (host === undefined) throw new SandboxdError("ENGINE_UNAVAILABLE", "the engine was not reached yet");
    const known = await runtime.inspect(containerOf(record, host.hostId));
    // by name as well, so that a create whose answer was lost is found again
    const isNamed = record.containerId === "" || known !== undefined;
    const container = isNamed ? known : await runtime.inspect(containerName(host.hostId, record.id));
    if (container === undefined) return { kind: "absent" };
    const identity = labels.decode(container.labels);
    if (identity === undefined) return { kind: "foreign", containerId: container.id };
    if (identity.instance !== record.instance) {
      // without that proof the state may be older than the container, which is no reason to remove it
      if (!options.isDeleted(identity.instance)) return { kind: "foreign", containerId: container.id };
      // left by an earlier sandbox of this id, whose deletion was confirmed
      await runtime.remove(container.id);
      return { kind: "absent" };
    }
    const touchedExternally = touched.has(container.id);
    const failure = await initFailure(container);
    return {
      kind: "present",
      container,
      oomKills: watch.oomKills(record.id),
      touchedExternally,
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

  /** Does one step. What it returns is what was seen by doing it; undefined: look again. */
  async function act(record: SandboxRecord, action: Action): Promise<Observed | undefined> {
    switch (action.do) {
      case "nothing":
        return undefined;
      case "create":
        return slots.run(() => start(record.id, undefined));
      case "start":
        return slots.run(() => start(record.id, action.containerId));
      case "verify":
        await orFailed(
          record.id,
          () => action.containerId,
          () => verified(record, action.containerId, cameToRun(record)),
        );
        return undefined;
      case "stop":
        if (action.settle !== undefined) settle(record, action.settle);
        await byUs(action.containerId, () =>
          runtime.stop(action.containerId, Math.ceil(record.stopGraceMs / 1_000)),
        );
        return undefined;
      case "remove":
        await byUs(action.containerId, () => runtime.remove(action.containerId));
        return undefined;
      case "forget":
        watch.ended(record.id);
        repository.remove(
          moved(record, {
            state: "DELETED",
            reason: "REQUESTED",
            message: "gone",
            actor: record.transition.actor,
          }),
        );
        return undefined;
      case "settle":
        settle(record, action.settlement);
        return undefined;
    }
  }

  /** Within a start slot: creates if need be, starts, reads the limits back. */
  async function start(id: string, existing: string | undefined): Promise<undefined> {
    const record = repository.get(id);
    if (record === undefined || record.wanted !== "RUNNING") return;
    let containerId = existing;
    await orFailed(
      id,
      () => containerId,
      async () => {
        if (containerId === undefined) {
          const found = await withImage(record);
          // it may have been told to stop or go meanwhile
          if (found.wanted !== "RUNNING") return;
          const isTold = record.state === "CREATING" && record.imageId !== "";
          const creating = isTold ? found : settle(found, starting("creating its container"));
          const made = await runtime.create(planOf(creating, hostFacts(), labels));
          // by a create whose answer was lost, by an earlier instance, or by someone else: the next look tells
          if (made === "taken") return;
          containerId = made.id;
        } else if (record.state !== "CREATING") {
          settle(record, starting("starting its container"));
        }
        // as it is now, whoever made it: an answer to its creation may have been lost, and its removal have failed
        const plan = planOf(repository.get(id) ?? record, hostFacts(), labels);
        await runtime.compare(containerId, plan, { isNew: existing === undefined });
        if (repository.get(id)?.wanted !== "RUNNING") return;
        // what was done to an earlier run says nothing about this one
        touched.delete(containerId);
        const ready = containerId;
        await byUs(ready, () => runtime.start(ready));
        await verified(repository.get(id) ?? record, containerId, progress);
      },
    );
  }

  /**
   * Does a step whose failure, if it is the sandbox's own, makes it FAILED. A container that may not run, or cannot, is
   * removed: what it was for is in the record.
   */
  async function orFailed(
    id: string,
    containerId: () => string | undefined,
    step: () => Promise<void>,
  ): Promise<void> {
    try {
      await step();
    } catch (error) {
      const reason = failureReason(error);
      if (reason === undefined) throw error;
      log.warn({ sandbox: id, reason, err: messageOf(error) }, "sandbox cannot run");
      const unusable = containerId();
      if (unusable !== undefined) await byUs(unusable, () => runtime.remove(unusable));
      const now = repository.get(id);
      if (now?.wanted !== "RUNNING") return;
      settle(now, { ...failed(reason, messageOf(error), actors.policy), containerId: "" });
    }
  }

  function hostFacts(): HostFacts {
    const host = options.host();
    if (host === undefined) throw new SandboxdError("ENGINE_UNAVAILABLE", "the engine was not reached yet");
    return host;
  }

  /** Binds the sandbox to the content that its image's name means now, once. */
  async function withImage(record: SandboxRecord): Promise<SandboxRecord> {
    const now = () => repository.get(record.id) ?? record;
    if (record.imageId !== "") return now();
    let image = await runtime.image(record.spec.image);
    if (image === undefined && options.pullImages) {
      if (now().wanted !== "RUNNING") return now();
      if (record.state !== "PULLING") {
        settle(now(), {
          state: "PULLING",
          reason: "PROGRESS",
          message: `pulling ${record.spec.image}`,
          actor: actors.policy,
        });
      }
      await runtime.pull(record.spec.image);
      image = await runtime.image(record.spec.image);
    }
    if (image === undefined) {
      throw new SandboxdError("IMAGE_UNAVAILABLE", `image ${record.spec.image} is not on this host`, {
        hint: 'pull it on the host, or set [images] pull = "missing"',
      });
    }
    const reserved = Object.keys(image.labels).find((key) => key.startsWith(labelPrefix));
    if (reserved !== undefined) {
      throw new SandboxdError(
        "IMAGE_UNSUPPORTED",
        `image ${record.spec.image} carries the reserved label "${reserved}"`,
        {
          hint: `build it without labels that begin with "${labelPrefix}"`,
        },
      );
    }
    return { ...now(), imageId: image.id, imageVolumes: image.volumes };
  }

  async function verified(asked: SandboxRecord, containerId: string, why: Why): Promise<void> {
    const started = await runtime.verify(containerId, planOf(asked, hostFacts(), labels));
    const record = repository.get(asked.id);
    // it ended already, or was told to stop or go meanwhile
    if (started === undefined || record?.wanted !== "RUNNING") return;
    watch.began(record.id, started.cgroup, { isNew: record.state === "CREATING" });
    if (record.state === "RUNNING" && record.bootId === bootId) return;
    const startedAtMs = Date.parse(started.container.startedAt);
    repository.put(
      {
        ...moved(record, {
          state: "RUNNING",
          ...why,
          containerId,
        }),
        bootId,
        startedAtMs: Number.isNaN(startedAtMs) ? Date.now() : startedAtMs,
      },
      "SANDBOX_STATE_CHANGED",
    );
  }

  function settle(record: SandboxRecord, settlement: Settlement): SandboxRecord {
    const next = moved(record, settlement);
    if (settlement.state !== "RUNNING" && settlement.state !== "PAUSED") watch.ended(record.id);
    if (settlement.endedRun !== undefined) touched.delete(next.containerId);
    repository.put(next, "SANDBOX_STATE_CHANGED");
    log.info(
      { sandbox: next.id, tenant: next.tenant, to: next.state, reason: settlement.reason },
      "sandbox changed",
    );
    return next;
  }

  /** Events of what we do ourselves are no one else's doing. */
  async function byUs(containerId: string, send: () => Promise<void>): Promise<void> {
    ours.add(containerId);
    try {
      await send();
    } finally {
      ours.delete(containerId);
    }
  }

  return {
    kick,
    between: (id, job) => queues.run(id, job),
    noticed({ containerId, action, labels: attributes }) {
      const identity = labels.decode(attributes);
      if (identity === undefined) return;
      if ((action === "kill" || action === "destroy") && !ours.has(containerId)) touched.add(containerId);
      if (action === "destroy") touched.delete(containerId);
      // what this daemon is doing itself is looked at by whoever does it
      if (tellingActions.has(action) && !(action === "start" && ours.has(containerId))) kick(identity.id);
    },
    idle: () => queues.idle(),
    close() {
      closed = true;
      for (const timer of retries.values()) clearTimeout(timer);
      retries.clear();
    },
  };
}
