// Keeps the newest acknowledgement on disk. A scheduler may acknowledge every event; one write for many of them is
// enough, since what is acknowledged but not yet kept is only told once more.

import type { UplinkClock } from "./clock.ts";

export interface AcknowledgementOptions {
  /** Keeps a number; may throw. */
  readonly keep: (sequence: number) => void;
  /** The number that is already kept. */
  readonly kept: number;
  readonly clock: UplinkClock;
  /** Told of each failure to keep; the next try comes by itself. */
  readonly failed: (error: unknown) => void;
}

export interface Acknowledgements {
  /** Notes a number; it is kept within 200 ms. Numbers that do not rise are ignored. */
  note(sequence: number): void;
  /** Keeps what is noted now and stops. */
  close(): void;
}

const delayMs = 200;
const retryMs = 5_000;

export function createAcknowledgements(options: AcknowledgementOptions): Acknowledgements {
  const { keep, clock, failed } = options;
  let kept = options.kept;
  let noted = kept;
  let closed = false;
  let cancel: (() => void) | undefined;

  function flush(): void {
    cancel = undefined;
    if (noted <= kept) return;
    try {
      keep(noted);
      kept = noted;
    } catch (error) {
      failed(error);
      if (!closed) cancel = clock.after(retryMs, flush);
    }
  }

  return {
    note(sequence) {
      if (sequence <= noted || closed) return;
      noted = sequence;
      cancel ??= clock.after(delayMs, flush);
    },
    close() {
      if (closed) return;
      closed = true;
      cancel?.();
      flush();
    },
  };
}
