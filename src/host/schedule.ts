// Whether this host takes new sandboxes, and the drain that empties it. Both are kept with the state, so a restart of the
// daemon or the host forgets neither.

import { SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Clock } from "../sandbox/clock.ts";
import { type Actor, actors, holdsCapacity, isToLive, type SandboxRecord } from "../sandbox/record.ts";
import type { EventDocument, Repository, Schedule } from "../sandbox/repository.ts";
import type { Why } from "../sandbox/transition.ts";
import type { Store } from "../store/store.ts";

export interface DrainRequest {
  readonly policy: "STOP" | "WAIT";
  /** From now until those that are left are stopped. */
  readonly withinMs: number;
  readonly reason: string;
  readonly actor: Actor;
}

export interface Scheduling {
  now(): Schedule;
  /** Sandboxes that a drain has still to end, in order of id. */
  remaining(): readonly SandboxRecord[];
  /** @throws SandboxdError HOST_CORDONED while no new sandboxes are taken. */
  assertSchedulable(): void;
  /** Resolves once the change survives a loss of power; opening ends a drain. What is so already is success. */
  setSchedulable(schedulable: boolean, reason: string, actor: Actor): Promise<void>;
  /**
   * Cordons and begins to empty the host, or joins the drain under way and moves its deadline. Resolves as setSchedulable
   * does; the drain goes on by itself. Rejects with INVALID_STATE for another policy than that of the drain under way.
   */
  drain(request: DrainRequest): Promise<void>;
  /** Calls back after each change of the schedule. */
  subscribe(listener: () => void): () => void;
  close(): void;
}

export interface SchedulingOptions {
  readonly store: Store;
  readonly repository: Repository;
  readonly clock: Clock;
  /** Stops a sandbox that is to live; returns at once. */
  readonly stop: (id: string, why: Why) => void;
  readonly log: Log;
}

const metaKey = "schedule";
const lookEveryMs = 1_000;

export function createScheduling({ store, repository, clock, stop, log }: SchedulingOptions): Scheduling {
  const kept = store.meta(metaKey);
  let schedule: Schedule =
    kept === undefined ? { schedulable: true, reason: "" } : (JSON.parse(kept) as Schedule);
  const listeners = new Set<() => void>();

  const remaining = () => repository.all().filter(holdsCapacity);

  function change(next: Schedule): void {
    const document = {
      type: "HOST_SCHEDULE_CHANGED",
      schedule: { ...next, remaining: remaining().length },
    } satisfies EventDocument;
    store.transact((transaction) => {
      transaction.setMeta(metaKey, JSON.stringify(next));
      transaction.appendEvent(Date.now(), JSON.stringify(document));
    });
    schedule = next;
    log.info(
      { to: next.schedulable ? "schedulable" : "cordoned", actor: next.actor },
      `host schedule changed: ${next.reason}`,
    );
    for (const listener of listeners) listener();
  }

  /** Does what the drain under way has to do now. */
  function look(): void {
    const { drain } = schedule;
    if (drain === undefined) return;
    const left = remaining();
    if (left.length === 0) {
      const { drain: _, ...ended } = schedule;
      change({ ...ended, reason: `drained${because(schedule)}`, timeMs: Date.now() });
      return;
    }
    if (drain.policy === "WAIT" && clock.nowMs() < drain.deadlineMs) return;
    const message = `the host is drained${because(schedule)}`;
    for (const record of left.filter(isToLive)) {
      stop(record.id, { reason: "DRAINED", message, actor: schedule.actor ?? actors.policy });
    }
  }

  function tryLook(): void {
    try {
      look();
    } catch (error) {
      log.warn({ err: error }, "the drain could not go on; it is tried again");
    }
  }

  const timer = setInterval(tryLook, lookEveryMs);
  return {
    now: () => schedule,
    remaining,
    assertSchedulable() {
      if (schedule.schedulable) return;
      throw new SandboxdError("HOST_CORDONED", `the host takes no new sandboxes${because(schedule)}`, {
        hint: "use another host, or open this one with HostService/SetSchedulable",
        metadata: { draining: String(schedule.drain !== undefined) },
      });
    },
    async setSchedulable(schedulable, reason, actor) {
      if (schedule.schedulable !== schedulable || schedule.reason !== reason) {
        const { drain } = schedule;
        const going = drain !== undefined && !schedulable ? { drain } : {};
        change({ schedulable, reason, actor, timeMs: Date.now(), ...going });
      }
      await store.durable();
    },
    async drain({ policy, withinMs, reason, actor }) {
      const { drain } = schedule;
      if (drain !== undefined && drain.policy !== policy) {
        throw new SandboxdError(
          "INVALID_STATE",
          `the host is being drained with the policy ${drain.policy}`,
          {
            hint: "ask with that policy, or cancel that drain with SetSchedulable",
            metadata: { policy: drain.policy },
          },
        );
      }
      const plan = { policy, deadlineMs: clock.nowMs() + withinMs };
      change({ schedulable: false, reason, actor, timeMs: Date.now(), drain: plan });
      tryLook();
      await store.durable();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close: () => clearInterval(timer),
  };
}

const because = ({ reason }: Schedule): string => (reason === "" ? "" : `: ${reason}`);
