// The verbs that end, begin and interrupt a sandbox that is there, and the one that moves its lease.

import { invalidField, SandboxdError } from "../errors.ts";
import type { Clock } from "./clock.ts";
import { type HostFacts, unthrottled } from "./plan.ts";
import type { Reconciler } from "./reconciler.ts";
import { isSettled, isToLive, type Resources, type SandboxRecord } from "./record.ts";
import type { Repository } from "./repository.ts";
import type { Room } from "./room.ts";
import type { Asking, Subjects } from "./subject.ts";
import { moved } from "./transition.ts";

export interface Lifecycle {
  start(id: string, asking: Asking): Promise<SandboxRecord>;
  stop(id: string, asking: Asking & { readonly graceMs?: number }): Promise<SandboxRecord>;
  delete(id: string, asking: Asking): Promise<void>;
  renew(
    id: string,
    renewal: Asking & { readonly generation: number; readonly ttlMs?: number },
  ): Promise<SandboxRecord>;
  pause(id: string, asking: Asking): Promise<SandboxRecord>;
  resume(id: string, asking: Asking): Promise<SandboxRecord>;
}

export interface LifecycleOptions {
  readonly repository: Repository;
  readonly reconciler: Reconciler;
  readonly subjects: Subjects;
  readonly room: Room;
  readonly host: () => HostFacts;
  readonly assertOpen: () => void;
  /** @throws SandboxdError NETWORK_NOT_ALLOWED or NETWORK_UNAVAILABLE for one that may not have its network any more. */
  readonly assertConnectable: (record: SandboxRecord) => void;
  readonly clock: Clock;
}

export function createLifecycle({
  repository,
  reconciler,
  subjects,
  room,
  host,
  assertOpen,
  assertConnectable,
  clock,
}: LifecycleOptions): Lifecycle {
  const { get, rested, started, kept, checkGeneration } = subjects;
  const { refuseIfGoing, refuseUnless, refuseIfExpired } = subjects;

  return {
    async start(id, { actor, signal }) {
      const record = get(id);
      refuseIfGoing(record);
      if (record.wanted === "RUNNING" && record.state !== "BACKING_OFF") {
        return rested(id, record.instance, signal);
      }
      host();
      assertOpen();
      refuseIfExpired(record);
      let current = record;
      // what came to rest may be on its way again by the time that its rest is on disk
      while (!isSettled(current)) {
        await rested(id, record.instance, signal);
        current = get(id);
        refuseIfGoing(current);
      }
      if (current.wanted === "RUNNING" && current.state !== "BACKING_OFF") {
        return rested(id, current.instance, signal);
      }
      if (current.wanted === "PAUSED") {
        throw new SandboxdError("INVALID_STATE", `sandbox "${id}" is paused`, {
          hint: "let it go on with ResumeSandbox",
          metadata: { state: current.state },
        });
      }
      checkBlockIo(current.spec.resources, host());
      assertConnectable(current);
      assertOpen();
      // the wait may have been as long as a stop takes
      refuseIfExpired(current);
      room.admit(current);
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
      const renewed = { ...record, expiresAtMs: clock.nowMs() + spanMs, generation: record.generation + 1 };
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
  };
}

/** @throws SandboxdError LIMIT_UNENFORCEABLE where no disk can be throttled. */
export function checkBlockIo(resources: Resources, host: HostFacts): void {
  if (resources.blockIo !== undefined && host.blockDevice === undefined) throw unthrottled();
}
