// The time of a sample: one clock to compute with, one to show.

/** Where times come from; tests give their own. */
export interface Clock {
  /** Never jumps, not even when the host's clock is set. Unit: milliseconds from an unspecified start. */
  monotonicMs(): number;
  /** Unit: milliseconds since 1970. */
  wallMs(): number;
}

export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
};
