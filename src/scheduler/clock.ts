// Time as the uplink needs it: periods by a clock that never jumps, and timers that tests can move by hand.

/** Where times and timers come from. */
export interface UplinkClock {
  /** Never jumps, not even when the host's clock is set. Unit: milliseconds from an unspecified start. */
  monotonicMs(): number;
  /** The host's clock, to show to people. Unit: milliseconds since 1970. */
  wallMs(): number;
  /** Calls back once after the delay. Returns how to cancel; after the call that does nothing. */
  after(delayMs: number, callback: () => void): () => void;
}

export const systemUplinkClock: UplinkClock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};
