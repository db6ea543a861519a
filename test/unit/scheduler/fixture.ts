// A host in memory, time that is moved by hand, and a wire that shows what was written on it.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { pino } from "pino";
import { type Event, EventSchema, EventType } from "../../../gen/sandboxd/v1/event_pb.ts";
import { HostSchema } from "../../../gen/sandboxd/v1/host_pb.ts";
import {
  type Sandbox,
  SandboxSchema,
  SandboxState,
  type SandboxStatusSchema,
} from "../../../gen/sandboxd/v1/sandbox_pb.ts";
import { type ConnectRequest, ConnectResponseSchema } from "../../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { StatsBatchSchema } from "../../../gen/sandboxd/v1/stats_pb.ts";
import type { CallListener, Dial } from "../../../src/scheduler/channel.ts";
import type { UplinkClock } from "../../../src/scheduler/clock.ts";
import type { UplinkSource } from "../../../src/scheduler/source.ts";

export const silentLog = pino({ level: "silent" });

/** The event with this number; always the same. Seven sandboxes are created, started, and then paused in turns. */
export function eventAt(sequence: number): Event {
  const sandboxId = `s-${sequence % 7}`;
  const { UNSPECIFIED, PENDING, CREATING, RUNNING, PAUSED } = SandboxState;
  const turn = Math.floor((sequence - 1) / 7);
  const stateAt = (at: number) =>
    [UNSPECIFIED, PENDING, CREATING, RUNNING][at + 1] ?? (at % 2 === 0 ? RUNNING : PAUSED);
  const [from, state] = [stateAt(turn - 1), stateAt(turn)];
  return create(EventSchema, {
    sequence: BigInt(sequence),
    type: turn === 0 ? EventType.SANDBOX_CREATED : EventType.SANDBOX_STATE_CHANGED,
    sandboxId,
    tenant: "t",
    sandbox: sandboxNamed(sandboxId, { status: { state, transition: { from, to: state } } }),
  });
}

interface SandboxFacts {
  readonly image?: string;
  readonly status?: MessageInitShape<typeof SandboxStatusSchema>;
}

export function sandboxNamed(sandboxId: string, facts: SandboxFacts = {}): Sandbox {
  const { image = "base:1", status = { state: SandboxState.RUNNING } } = facts;
  return create(SandboxSchema, { sandboxId, tenant: "t", spec: { image }, status });
}

export interface FakeSource extends UplinkSource {
  append(count?: number): void;
  /** What retention does: events up to this number are gone. */
  trim(upTo: number): void;
  hostChanged(): void;
  sandboxes: Sandbox[];
  readonly acknowledgements: readonly number[];
  readonly statsPeriods: readonly number[];
  /** How many listen to events and to the host. */
  listeners(): number;
  /** Makes the next calls of `acknowledge` throw. */
  failToKeep(times: number): void;
}

export interface FakeSourceOptions {
  readonly hostId?: string;
  readonly epoch?: string;
  readonly term?: number;
  readonly statsSandboxes?: number;
}

export function createFakeSource(options: FakeSourceOptions = {}): FakeSource {
  const { hostId = "host-1", epoch = "epoch-1", statsSandboxes = 1 } = options;
  let newest = 0;
  let trimmed = 0;
  let acknowledged = 0;
  let term = options.term ?? 0;
  let failures = 0;
  const eventListeners = new Set<() => void>();
  const hostListeners = new Set<() => void>();
  const acknowledgements: number[] = [];
  const statsPeriods: number[] = [];
  const stats = create(StatsBatchSchema, {
    sandboxes: Array.from({ length: statsSandboxes }, (_, index) => ({
      sandboxId: `s-${index}`,
      cpuUsageUsec: BigInt(index),
      memoryUsageBytes: 1n << 30n,
    })),
  });
  return {
    sandboxes: [],
    acknowledgements,
    statsPeriods,
    append(count = 1) {
      newest += count;
      for (const listener of eventListeners) listener();
    },
    trim(upTo) {
      trimmed = upTo;
    },
    hostChanged() {
      for (const listener of hostListeners) listener();
    },
    listeners: () => eventListeners.size + hostListeners.size,
    failToKeep(times) {
      failures = times;
    },
    host: () => create(HostSchema, { hostId, stateEpoch: epoch, bootId: "boot-1" }),
    snapshot() {
      return { sandboxes: this.sandboxes, sequence: newest };
    },
    events: {
      readAfter(sequence, limit) {
        const first = Math.max(sequence, trimmed) + 1;
        const count = Math.max(0, Math.min(limit, newest - first + 1));
        return Array.from({ length: count }, (_, index) => eventAt(first + index));
      },
      newest: () => newest,
      subscribe(listener) {
        eventListeners.add(listener);
        return () => void eventListeners.delete(listener);
      },
    },
    lastAcknowledgedSequence: () => acknowledged,
    acknowledge(sequence) {
      if (failures > 0) {
        failures -= 1;
        throw new Error("disk full");
      }
      acknowledged = sequence;
      acknowledgements.push(sequence);
    },
    term: () => term,
    acceptTerm(next) {
      if (next < term) return false;
      term = next;
      return true;
    },
    stats: () => stats,
    setStatsPeriod: (periodMs) => void statsPeriods.push(periodMs),
    running: () => 1,
    subscribeHost(listener) {
      hostListeners.add(listener);
      return () => void hostListeners.delete(listener);
    },
  };
}

export interface FakeClock extends UplinkClock {
  /** Lets time pass; timers go off at their time, in their order. */
  advance(ms: number): void;
  /** Timers that would go off some day. */
  pending(): number;
}

export function createFakeClock(): FakeClock {
  let nowMs = 0;
  const timers = new Map<symbol, { readonly atMs: number; readonly callback: () => void }>();
  function due(untilMs: number) {
    return [...timers].filter(([, { atMs }]) => atMs <= untilMs).sort(([, a], [, b]) => a.atMs - b.atMs)[0];
  }
  return {
    monotonicMs: () => nowMs,
    wallMs: () => 1_760_000_000_000 + nowMs,
    after(delayMs, callback) {
      const key = Symbol("timer");
      timers.set(key, { atMs: nowMs + delayMs, callback });
      return () => void timers.delete(key);
    },
    advance(ms) {
      const untilMs = nowMs + ms;
      for (let next = due(untilMs); next !== undefined; next = due(untilMs)) {
        const [key, { atMs, callback }] = next;
        timers.delete(key);
        nowMs = atMs;
        callback();
      }
      nowMs = untilMs;
    },
    pending: () => timers.size,
  };
}

type Answer = NonNullable<Parameters<typeof create<typeof ConnectResponseSchema>>[1]>["message"];

export interface FakeWire {
  readonly dial: Dial;
  /** All that was written, oldest first. */
  readonly written: ConnectRequest[];
  /** Kinds of what was written since the last call. */
  kinds(): readonly (string | undefined)[];
  /** The scheduler says something. */
  say(message: Answer): void;
  /** The scheduler's side sends what is no message. */
  babble(): void;
  /** The call is over. */
  cut(): void;
  /** Takes no more than this many further messages; the transport holds back. */
  take(count: number): void;
  /** How often the call was closed by this side. */
  closed(): number;
}

/** One call that takes everything until told otherwise. */
export function createFakeWire(): FakeWire {
  const written: ConnectRequest[] = [];
  let listener: CallListener | undefined;
  let seen = 0;
  let credit = Number.POSITIVE_INFINITY;
  let held: (() => void) | undefined;
  let closed = 0;
  function release(): void {
    while (held !== undefined && credit > 0) {
      const next = held;
      held = undefined;
      credit -= 1;
      next();
    }
  }
  return {
    dial(_endpoint, callListener) {
      listener = callListener;
      return {
        write(request, done) {
          if (held !== undefined) throw new Error("written while the message before was still on its way");
          written.push(request);
          held = done;
          release();
        },
        end: () => undefined,
        close: () => {
          closed += 1;
        },
      };
    },
    written,
    kinds() {
      const kinds = written.slice(seen).map(({ message }) => message.case);
      seen = written.length;
      return kinds;
    },
    say: (message) => listener?.message(create(ConnectResponseSchema, { message } as never)),
    babble: () => listener?.malformed("illegal tag"),
    cut: () => listener?.ended("UNAVAILABLE", "Connection dropped"),
    take(count) {
      credit = count;
      release();
    },
    closed: () => closed,
  };
}
