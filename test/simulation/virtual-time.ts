// Time that passes only when the simulation says so. Everything in the process that asks for the time, or for a timer, gets
// this one: nothing ever waits for the real clock, and the same seed sees the same order of everything.

import crypto from "node:crypto";
import { syncBuiltinESMExports } from "node:module";
import promises from "node:timers/promises";
import type { Random } from "./random.ts";

const turnOfTheLoop = setImmediate;

interface Timer {
  atMs: number;
  order: number;
  readonly run: () => void;
  /** Of the daemon, which dies with it; or of the world around. */
  readonly ofDaemon: boolean;
  /** Timers that nobody can end, such as those of AbortSignal.timeout(). */
  readonly isEndless?: boolean;
  readonly again?: number;
  cancelled: boolean;
}

export interface VirtualTime {
  /** Since the beginning of the schedule: the truth, which never jumps. Milliseconds. */
  nowMs(): number;
  /** What the host's wall clock shows. */
  wallMs(): number;
  jumpWall(ms: number): void;
  /** Does something later, whatever becomes of the daemon. */
  after(ms: number, run: () => void): void;
  /** Lets time pass, with everything that is due in it, or until `isOver`. `look` is called after each thing that was done. */
  pass(ms: number, look: () => void, isOver: () => boolean): Promise<void>;
  /** Drops the daemon's timers. Timers that are set from now on are not set until `revive`. */
  killDaemon(): void;
  revive(): void;
  /** Timers of the daemon that nobody ended. */
  pending(): number;
}

const wallAtStartMs = Date.UTC(2026, 0, 1);

/** Lets what was resolved run, until nothing more happens at this moment. */
export const settled = () => new Promise<void>((resolve) => turnOfTheLoop(resolve));

let current: ReturnType<typeof createTimers> | undefined;

function createTimers() {
  const heap: Timer[] = [];
  let nowMs = 0;
  let order = 0;
  let isDaemonAlive = true;
  let wallOffsetMs = 0;

  const isBefore = (a: Timer, b: Timer) => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);

  function push(timer: Timer): Timer {
    let index = heap.push(timer) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!isBefore(timer, heap[parent] as Timer)) break;
      heap[index] = heap[parent] as Timer;
      index = parent;
    }
    heap[index] = timer;
    return timer;
  }

  function pop(): Timer | undefined {
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let index = 0;
    for (;;) {
      const left = 2 * index + 1;
      if (left >= heap.length) break;
      const right = left + 1;
      const child = right < heap.length && isBefore(heap[right] as Timer, heap[left] as Timer) ? right : left;
      if (!isBefore(heap[child] as Timer, last)) break;
      heap[index] = heap[child] as Timer;
      index = child;
    }
    heap[index] = last;
    return first;
  }

  function set(ms: number, run: () => void, ofDaemon: boolean, more: Partial<Timer> = {}): Timer {
    const delay = Number.isFinite(ms) && ms > 0 ? ms : 1;
    const timer = { atMs: nowMs + delay, order: order++, run, ofDaemon, cancelled: false, ...more };
    return ofDaemon && !isDaemonAlive ? timer : push(timer);
  }

  return {
    heap,
    pop,
    set,
    repeat(timer: Timer, ms: number) {
      timer.atMs = nowMs + ms;
      timer.order = order++;
      push(timer);
    },
    nowMs: () => nowMs,
    advanceTo(ms: number) {
      nowMs = Math.max(nowMs, ms);
    },
    wallMs: () => wallAtStartMs + wallOffsetMs + nowMs,
    jumpWall(ms: number) {
      wallOffsetMs += ms;
    },
    daemonIs(alive: boolean) {
      isDaemonAlive = alive;
    },
  };
}

const timers = () => {
  if (current === undefined) throw new Error("no schedule is running");
  return current;
};

/** Begins a new time, in place of the one before. */
export function beginTime(random: Random): VirtualTime {
  const mine = createTimers();
  let running: Timer | undefined;
  current = mine;
  seeded = random;
  return {
    nowMs: mine.nowMs,
    wallMs: mine.wallMs,
    jumpWall: mine.jumpWall,
    after: (ms, run) => void mine.set(ms, run, false),
    async pass(ms, look, isOver) {
      const until = mine.nowMs() + ms;
      await settled();
      look();
      while (!isOver()) {
        const next = mine.heap[0];
        if (next === undefined || next.atMs > until) break;
        mine.pop();
        if (next.cancelled) continue;
        mine.advanceTo(next.atMs);
        running = next;
        next.run();
        running = undefined;
        // the timer stays the same, so that who has its handle can end it
        if (next.again !== undefined && !next.cancelled) mine.repeat(next, next.again);
        await settled();
        look();
      }
      mine.advanceTo(until);
    },
    killDaemon() {
      mine.daemonIs(false);
      for (const timer of mine.heap) if (timer.ofDaemon) timer.cancelled = true;
      if (running?.ofDaemon) running.cancelled = true;
    },
    revive: () => mine.daemonIs(true),
    pending: () =>
      mine.heap.filter((timer) => timer.ofDaemon && !timer.cancelled && timer.isEndless !== true).length,
  };
}

let seeded: Random;

/** What timers' owners may do with them. */
class Handle {
  readonly timer: Timer;
  constructor(timer: Timer) {
    this.timer = timer;
  }
  ref() {
    return this;
  }
  unref() {
    return this;
  }
  hasRef() {
    return true;
  }
  [Symbol.dispose]() {
    this.timer.cancelled = true;
  }
}

type Callback = (...args: unknown[]) => void;

/** Puts virtual time, and seeded chance, in the place of the real ones for the life of this process. */
export function takeOver(): void {
  const clear = (handle: unknown) => {
    if (handle instanceof Handle) handle.timer.cancelled = true;
  };
  Object.assign(globalThis, {
    setTimeout: (run: Callback, ms = 1, ...args: unknown[]) =>
      new Handle(timers().set(ms, () => run(...args), true)),
    setInterval: (run: Callback, ms = 1, ...args: unknown[]) =>
      new Handle(timers().set(ms, () => run(...args), true, { again: ms })),
    clearTimeout: clear,
    clearInterval: clear,
  });
  Date.now = () => timers().wallMs();
  Object.defineProperty(performance, "now", { value: () => timers().nowMs() });
  AbortSignal.timeout = (ms) => {
    const abort = new AbortController();
    const reason = new DOMException("The operation was aborted due to timeout", "TimeoutError");
    timers().set(ms, () => abort.abort(reason), true, { isEndless: true });
    return abort.signal;
  };
  Object.assign(promises, {
    setTimeout: <T>(ms = 1, value?: T, { signal }: { readonly signal?: AbortSignal } = {}) =>
      new Promise<T | undefined>((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        const onAbort = () => {
          timer.cancelled = true;
          reject(signal?.reason);
        };
        const timer = timers().set(
          ms,
          () => {
            signal?.removeEventListener("abort", onAbort);
            resolve(value);
          },
          true,
        );
        signal?.addEventListener("abort", onAbort, { once: true });
      }),
  });
  const hex = (digits: number) =>
    Array.from({ length: digits }, () => seeded.between(0, 15).toString(16)).join("");
  Object.assign(crypto, {
    randomUUID: () => `${hex(8)}-${hex(4)}-4${hex(3)}-8${hex(3)}-${hex(12)}`,
    randomBytes: (bytes: number) => Buffer.from(hex(bytes * 2), "hex"),
  });
  syncBuiltinESMExports();
}
