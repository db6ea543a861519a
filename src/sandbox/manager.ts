// What callers can do to sandboxes: each verb checks, changes what is wanted in one transaction, wakes the reconciler, and
// waits for what comes of it.

import { randomBytes, randomUUID } from "node:crypto";
import type { Config } from "../config/config.ts";
import type { Container, LogChunk, LogOptions, Runtime } from "../engine/runtime.ts";
import { invalidField, type Reason, SandboxdError } from "../errors.ts";
import { admit, type Capacity, larger, type Promised, promised } from "./admission.ts";
import type { Clock } from "./clock.ts";
import { checkImage } from "./image-policy.ts";
import type { LabelCodec } from "./labels.ts";
import { isExpired } from "./lifetime.ts";
import { lookUp } from "./lookup.ts";
import { type HostFacts, liveLimits, unthrottled } from "./plan.ts";
import type { Reconciler } from "./reconciler.ts";
import {
  type Actor,
  isSettled,
  isToLive,
  type Resources,
  type SandboxRecord,
  type State,
  type TransitionReason,
} from "./record.ts";
import type { Repository } from "./repository.ts";
import { changedResources, checkLabels, effectiveSpec, hashOfRequest, type SpecRequest } from "./spec.ts";
import { moved } from "./transition.ts";

interface Asking {
  readonly actor: Actor;
  /** Aborting ends the waiting; what was accepted goes on. */
  readonly signal?: AbortSignal;
}

export interface CreateRequest extends Asking {
  /** Empty: one is made. */
  readonly id: string;
  readonly tenant: string;
  readonly spec: SpecRequest;
  readonly wait: boolean;
}

export interface UpdateRequest extends Asking {
  readonly id: string;
  readonly resources: Partial<Resources>;
  readonly labels?: Readonly<Record<string, string>>;
  readonly generation?: number;
}

export interface Manager {
  create(request: CreateRequest): Promise<SandboxRecord>;
  get(id: string): SandboxRecord;
  start(id: string, asking: Asking): Promise<SandboxRecord>;
  stop(id: string, asking: Asking & { readonly graceMs?: number }): Promise<SandboxRecord>;
  delete(id: string, asking: Asking): Promise<void>;
  renew(
    id: string,
    renewal: Asking & { readonly generation: number; readonly ttlMs?: number },
  ): Promise<SandboxRecord>;
  pause(id: string, asking: Asking): Promise<SandboxRecord>;
  resume(id: string, asking: Asking): Promise<SandboxRecord>;
  update(request: UpdateRequest): Promise<SandboxRecord>;
  logs(id: string, options: LogOptions): AsyncIterable<LogChunk>;
}

export interface ManagerOptions {
  readonly repository: Repository;
  readonly reconciler: Reconciler;
  readonly runtime: Runtime;
  /** As it is now: a reload may change it. */
  readonly config: () => Config;
  readonly capacity: Capacity;
  /** @throws SandboxdError ENGINE_UNAVAILABLE while the engine cannot be used. */
  readonly host: () => HostFacts;
  /** @throws SandboxdError HOST_CORDONED or HOST_PRESSURE while the host takes no more work. */
  readonly assertOpen: () => void;
  readonly clock: Clock;
  readonly labels: LabelCodec;
}

export function createManager({
  repository,
  reconciler,
  runtime,
  config,
  capacity,
  host,
  assertOpen,
  clock,
  labels: codec,
}: ManagerOptions): Manager {
  /** What updates under way ask for: it counts already, so that nothing else is admitted into the same room. */
  const updating = new Map<string, Resources>();

  const resourcesOf = ({ id, spec }: SandboxRecord): Resources =>
    larger(spec.resources, updating.get(id) ?? spec.resources);

  function promisedNow(except?: string): Promised {
    if (updating.size === 0) return promised(repository.all(), except);
    const counted = repository.all().map((record) => ({
      ...record,
      spec: { ...record.spec, resources: resourcesOf(record) },
    }));
    return promised(counted, except);
  }

  /** Its container, if it has one. */
  async function containerOf(record: SandboxRecord, signal?: AbortSignal): Promise<Container | undefined> {
    const waiting = signal === undefined ? {} : { signal };
    const found = await lookUp(record, { runtime, labels: codec, hostId: host().hostId, ...waiting });
    return found.kind === "own" ? found.container : undefined;
  }

  function get(id: string): SandboxRecord {
    const record = repository.get(id);
    if (record !== undefined) return record;
    throw notFound(id);
  }

  function notFound(id: string): SandboxdError {
    return new SandboxdError("SANDBOX_NOT_FOUND", `there is no sandbox "${id}"`, {
      metadata: { sandbox_id: id },
    });
  }

  /** Waits for the sandbox to come to rest; says the failure of a start that began with the call. */
  async function rested(
    id: string,
    instance: string,
    signal: AbortSignal | undefined,
  ): Promise<SandboxRecord> {
    const record = await repository.until(id, (now) => now?.instance !== instance || isSettled(now), signal);
    if (record?.instance !== instance) {
      throw new SandboxdError("SANDBOX_NOT_FOUND", `sandbox "${id}" was deleted meanwhile`);
    }
    return kept(record);
  }

  async function started(
    id: string,
    instance: string,
    signal: AbortSignal | undefined,
  ): Promise<SandboxRecord> {
    const record = await rested(id, instance, signal);
    const reason = record.state === "FAILED" ? startFailures[record.transition.reason] : undefined;
    if (reason === undefined) return record;
    throw new SandboxdError(reason, `sandbox "${id}" could not start: ${record.transition.message}`, {
      hint: "the sandbox is kept as FAILED; delete it, or mend the cause and start it",
      metadata: { sandbox_id: id },
    });
  }

  /** What is acknowledged lasts, and whoever reads events after the answer finds what led to it. */
  async function kept(record: SandboxRecord): Promise<SandboxRecord> {
    await repository.durable();
    return record;
  }

  function checkBlockIo(resources: Resources): void {
    if (resources.blockIo !== undefined && host().blockDevice === undefined) throw unthrottled();
  }

  function checkGeneration(record: SandboxRecord, generation: number | undefined): void {
    if (generation === undefined || generation === record.generation) return;
    throw new SandboxdError(
      "GENERATION_MISMATCH",
      `sandbox "${record.id}" has generation ${record.generation}, not ${generation}`,
      {
        hint: "get it again and decide anew",
        metadata: { generation: String(record.generation) },
      },
    );
  }

  function refuseIfGoing(record: SandboxRecord): void {
    if (record.wanted !== "DELETED") return;
    throw new SandboxdError("INVALID_STATE", `sandbox "${record.id}" is being deleted`, {
      metadata: { state: record.state },
    });
  }

  function refuseUnless(record: SandboxRecord, states: readonly State[], done: string): void {
    if (states.includes(record.state)) return;
    throw new SandboxdError(
      "INVALID_STATE",
      `sandbox "${record.id}" is ${record.state}; it cannot be ${done}`,
      { metadata: { state: record.state } },
    );
  }

  /** What its lifetime has ended would be ended again at once. */
  function refuseIfExpired(record: SandboxRecord): void {
    if (!isExpired(record, clock.nowMs())) return;
    throw new SandboxdError("INVALID_STATE", `the lifetime of sandbox "${record.id}" is over`, {
      hint: "renew it first with RenewSandbox; max_lifetime cannot be renewed",
      metadata: { state: record.state },
    });
  }

  return {
    get,
    async create({ id: asked, tenant, spec: request, wait, actor, signal }) {
      const requestHash = hashOfRequest(tenant, request);
      const existing = asked === "" ? undefined : repository.get(asked);
      if (existing !== undefined) {
        if (
          existing.tenant !== tenant ||
          existing.requestHash !== requestHash ||
          existing.wanted === "DELETED"
        ) {
          throw new SandboxdError(
            "SANDBOX_ALREADY_EXISTS",
            `sandbox_id "${asked}" is in use by another request`,
            {
              hint: "use another id, or delete that sandbox first",
              metadata: { sandbox_id: asked },
            },
          );
        }
        return wait ? rested(asked, existing.instance, signal) : kept(existing);
      }
      const spec = effectiveSpec(request, config());
      checkImage(spec.image, allowedImages(config()));
      host();
      assertOpen();
      checkBlockIo(spec.resources);
      admit(spec.resources, promisedNow(), capacity);
      const id = asked || `sb-${randomBytes(8).toString("hex")}`;
      const timeMs = Date.now();
      const acceptedAtMs = clock.nowMs();
      const { ttlMs } = spec.lifetime;
      const record = repository.insert((transaction) => {
        const uid = transaction.uidOf(tenant, config().tenants.uidRange);
        if (uid === undefined) {
          throw new SandboxdError(
            "HOST_CAPACITY_EXCEEDED",
            `tenant "${tenant}" is new, and [tenants] uid_range is used up`,
            {
              hint: "widen uid_range",
            },
          );
        }
        return {
          id,
          instance: randomUUID(),
          tenant,
          uid,
          spec,
          requestHash,
          generation: 1,
          createdAtMs: timeMs,
          acceptedAtMs,
          ...(ttlMs === undefined ? {} : { expiresAtMs: acceptedAtMs + ttlMs }),
          wanted: "RUNNING",
          state: "PENDING",
          transition: {
            from: undefined,
            to: "PENDING",
            reason: "REQUESTED",
            message: "accepted",
            actor,
            timeMs,
          },
          stopGraceMs: spec.stopGraceMs,
          containerId: "",
          imageId: "",
          imageVolumes: [],
          endedRun: "",
          bootId: "",
        };
      });
      reconciler.kick(id, { fresh: true });
      return wait ? started(id, record.instance, signal) : kept(record);
    },

    async start(id, { actor, signal }) {
      const record = get(id);
      refuseIfGoing(record);
      if (record.wanted === "RUNNING" && record.state !== "BACKING_OFF") {
        return rested(id, record.instance, signal);
      }
      host();
      assertOpen();
      refuseIfExpired(record);
      if (!isSettled(record)) await rested(id, record.instance, signal);
      const current = get(id);
      refuseIfGoing(current);
      if (current.wanted === "RUNNING" && current.state !== "BACKING_OFF") {
        return rested(id, current.instance, signal);
      }
      if (current.wanted === "PAUSED") {
        throw new SandboxdError("INVALID_STATE", `sandbox "${id}" is paused`, {
          hint: "let it go on with ResumeSandbox",
          metadata: { state: current.state },
        });
      }
      checkBlockIo(current.spec.resources);
      assertOpen();
      admit(resourcesOf(current), promisedNow(id), capacity);
      const pending = moved(current, {
        state: "PENDING",
        reason: "REQUESTED",
        message: "asked to start",
        actor,
        wanted: "RUNNING",
      });
      repository.put({ ...pending, generation: current.generation + 1 }, "SANDBOX_STATE_CHANGED");
      reconciler.kick(id);
      return started(id, current.instance, signal);
    },

    async stop(id, { actor, graceMs, signal }) {
      const record = get(id);
      refuseIfGoing(record);
      if (isToLive(record)) {
        const stopping = moved(record, {
          state: "STOPPING",
          reason: "REQUESTED",
          message: "asked to stop",
          actor,
          wanted: "STOPPED",
        });
        repository.put(
          { ...stopping, generation: record.generation + 1, stopGraceMs: graceMs ?? record.spec.stopGraceMs },
          "SANDBOX_STATE_CHANGED",
        );
        reconciler.kick(id);
      }
      return rested(id, record.instance, signal);
    },

    async delete(id, { actor, signal }) {
      const record = repository.get(id);
      if (record === undefined) return;
      if (record.wanted !== "DELETED") {
        const deleting = moved(record, {
          state: "DELETING",
          reason: "REQUESTED",
          message: "asked to delete",
          actor,
          wanted: "DELETED",
        });
        repository.put({ ...deleting, generation: record.generation + 1 }, "SANDBOX_STATE_CHANGED");
        reconciler.kick(id);
      }
      await repository.until(id, (now) => now?.instance !== record.instance, signal);
      await repository.durable();
    },

    async renew(id, { generation, ttlMs, signal }) {
      signal?.throwIfAborted();
      const record = get(id);
      refuseIfGoing(record);
      checkGeneration(record, generation);
      const spanMs = ttlMs ?? record.spec.lifetime.ttlMs;
      if (spanMs === undefined) {
        throw invalidField("ttl", "required: the sandbox's own lifetime has none");
      }
      const { warnedOfMs: _, ...rest } = record;
      const renewed = { ...rest, expiresAtMs: clock.nowMs() + spanMs, generation: record.generation + 1 };
      repository.put(renewed, "SANDBOX_RENEWED");
      return kept(renewed);
    },

    async pause(id, { actor, signal }) {
      const record = get(id);
      refuseIfGoing(record);
      if (record.wanted === "PAUSED" && record.state !== "PAUSING") return kept(record);
      if (record.wanted !== "PAUSED") {
        refuseUnless(record, ["RUNNING", "RESUMING", "PAUSED"], "paused");
        const why = { reason: "REQUESTED", message: "asked to pause", actor } as const;
        const pausing = moved(record, { state: "PAUSING", wanted: "PAUSED", ...why });
        repository.put({ ...pausing, generation: record.generation + 1 }, "SANDBOX_STATE_CHANGED");
        reconciler.kick(id);
      }
      return rested(id, record.instance, signal);
    },

    async resume(id, { actor, signal }) {
      const record = get(id);
      refuseIfGoing(record);
      if (record.wanted === "RUNNING" && record.state === "RUNNING") return kept(record);
      if (record.state !== "RESUMING") {
        refuseUnless(record, ["PAUSED", "PAUSING"], "resumed");
        refuseIfExpired(record);
        const why = { reason: "REQUESTED", message: "asked to resume", actor } as const;
        const resuming = moved(record, { state: "RESUMING", wanted: "RUNNING", ...why });
        repository.put({ ...resuming, generation: record.generation + 1 }, "SANDBOX_STATE_CHANGED");
        reconciler.kick(id);
      }
      return rested(id, record.instance, signal);
    },

    async update({ id, resources: change, labels, generation, signal }) {
      const { instance } = get(id);
      if (labels !== undefined) checkLabels(labels, "labels");
      return reconciler.between(id, async () => {
        const record = get(id);
        if (record.instance !== instance) throw notFound(id);
        refuseIfGoing(record);
        checkGeneration(record, generation);
        const resources = changedResources(record.spec.resources, change, config());
        if (isToLive(record)) admit(resources, promisedNow(id), capacity);
        updating.set(id, resources);
        try {
          if (Object.keys(change).length > 0) {
            const container = await containerOf(record, signal);
            if (container !== undefined) await runtime.update(container, liveLimits(resources));
          }
          // between steps of its own queue only what is wanted, and its lease, can have changed meanwhile
          const now = get(id);
          const spec = { ...now.spec, resources, labels: labels ?? now.spec.labels };
          const next = { ...now, spec, generation: now.generation + 1 };
          repository.put(next, "SANDBOX_UPDATED");
          return await kept(next);
        } catch (error) {
          // the container may have got limits that the record has not
          reconciler.kick(id);
          throw error;
        } finally {
          updating.delete(id);
        }
      });
    },

    async *logs(id, options) {
      const record = get(id);
      const { signal } = options;
      let sinceNanoseconds = options.sinceNanoseconds;
      let tailLines = options.tailLines;
      for (;;) {
        const now = repository.get(id);
        if (now?.instance !== record.instance) return;
        const container = await containerOf(now);
        if (container !== undefined) {
          const wanted: LogOptions = {
            ...options,
            ...(sinceNanoseconds === undefined ? {} : { sinceNanoseconds }),
            ...(tailLines === undefined ? {} : { tailLines }),
          };
          for await (const chunk of runtime.logs(container.id, wanted)) {
            sinceNanoseconds = chunk.timeNanoseconds + 1n;
            yield chunk;
          }
          tailLines = undefined;
        }
        if (!options.follow || signal?.aborted) return;
        const seen = now.transition.timeMs;
        await repository.until(
          id,
          (next) =>
            next?.instance !== record.instance ||
            (next.transition.timeMs !== seen && next.state === "RUNNING"),
          signal,
        );
      }
    },
  };
}

/** Of a start's failures, the error that the caller of that start gets. */
const startFailures: Partial<Record<TransitionReason, Reason>> = {
  IMAGE_UNAVAILABLE: "IMAGE_UNAVAILABLE",
  IMAGE_UNSUPPORTED: "IMAGE_UNSUPPORTED",
  COMMAND_UNUSABLE: "COMMAND_UNUSABLE",
  HARDENING_MISMATCH: "HARDENING_MISMATCH",
  LIMIT_UNENFORCED: "LIMIT_UNENFORCEABLE",
  START_FAILED: "ENGINE_FAILED",
  ENGINE_UNAVAILABLE: "ENGINE_UNAVAILABLE",
};

/** Those of templates are allowed by being there. */
function allowedImages({ images, templates }: Config): readonly string[] {
  return [...images.allow, ...Object.values(templates).flatMap(({ image }) => image ?? [])];
}
