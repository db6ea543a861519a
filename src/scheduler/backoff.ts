// How long to wait before the next try: full jitter, so that the hosts of a scheduler that restarts do not come back
// all at once.

export interface BackoffOptions {
  /** Upper bound of the first wait. Unit: milliseconds. */
  readonly baseMs: number;
  /** Upper bound of every wait. Unit: milliseconds. */
  readonly capMs: number;
  /** From 0 inclusive to 1 exclusive. */
  readonly random: () => number;
}

export interface Backoff {
  /** The next wait: uniform between 0 and a bound that doubles with each call, up to the cap. */
  nextMs(): number;
  /** Begins anew, after a time of health. */
  reset(): void;
  /** Waits since the last reset. */
  attempts(): number;
}

/** "Full jitter" as in https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/. */
export function createBackoff({ baseMs, capMs, random }: BackoffOptions): Backoff {
  let attempts = 0;
  return {
    nextMs() {
      // past 2^30 the bound is the cap whatever the base, and the product stays exact
      const boundMs = Math.min(capMs, baseMs * 2 ** Math.min(attempts, 30));
      attempts += 1;
      return random() * boundMs;
    },
    reset() {
      attempts = 0;
    },
    attempts: () => attempts,
  };
}
