// Time that does not jump, for everything that is due at some time: leases, back-off, deadlines. It is the wall clock as it
// was when this boot of the machine was first seen, carried on by the kernel's monotonic clock.

import type { Store } from "../store/store.ts";

/** Steady time. Unit: milliseconds; about those of the wall clock, unless that was set since. */
export interface Clock {
  nowMs(): number;
  /** What the wall clock shows at a steady time, as it is set now. */
  wallMs(steadyMs: number): number;
}

interface Anchor {
  readonly bootId: string;
  /** Steady time less monotonic time. */
  readonly offsetMs: number;
}

export interface ClockOptions {
  readonly bootId: string;
  readonly store: Pick<Store, "meta" | "transact">;
  /** Milliseconds since some moment of this boot, the same for every process. Default: CLOCK_MONOTONIC. */
  readonly monotonicMs?: () => number;
  /** Default: the wall clock. */
  readonly wallClockMs?: () => number;
}

const anchorKey = "clock";
const seenKey = "clock_seen";
/** Two clocks that are read one after the other differ by chance, and NTP slews: this much is no setting of the wall clock. */
const mostJitterMs = 100;
/** How often the newest time is kept. */
const keepEveryMs = 60_000;

/**
 * Within a boot the time goes on over restarts of the daemon, whatever happens to the wall clock. A new boot begins at the wall
 * clock, or where time had come to if that is later: it never runs backwards by more than a minute.
 */
export function createClock({
  bootId,
  store,
  monotonicMs = () => Number(process.hrtime.bigint() / 1_000_000n),
  wallClockMs = Date.now,
}: ClockOptions): Clock & { readonly close: () => void } {
  const keep = (key: string, value: string) =>
    store.transact((transaction) => transaction.setMeta(key, value));

  function anchored(): Anchor {
    const text = store.meta(anchorKey);
    const known = text === undefined ? undefined : (JSON.parse(text) as Anchor);
    if (known?.bootId === bootId) return known;
    const newest = Number(store.meta(seenKey) ?? 0);
    const anchor = { bootId, offsetMs: Math.max(wallClockMs(), newest) - monotonicMs() };
    keep(anchorKey, JSON.stringify(anchor));
    return anchor;
  }

  const { offsetMs } = anchored();
  const nowMs = () => monotonicMs() + offsetMs;
  const keepSeen = () => {
    try {
      keep(seenKey, String(nowMs()));
    } catch {
      // a disk that is full is told elsewhere; the time is kept once there is room
    }
  };
  keepSeen();
  const timer = setInterval(keepSeen, keepEveryMs).unref();
  let wallOffsetMs = wallClockMs() - nowMs();
  return {
    nowMs,
    wallMs(steadyMs) {
      // the same to the millisecond each time, as an event that is told again must be the same event
      const nowOffsetMs = wallClockMs() - nowMs();
      if (Math.abs(nowOffsetMs - wallOffsetMs) > mostJitterMs) wallOffsetMs = nowOffsetMs;
      return steadyMs + wallOffsetMs;
    },
    close: () => clearInterval(timer),
  };
}
