// One stream of a process's events: a place of its own in the output, which it reads at its own pace.

import type { Clock } from "../sandbox/clock.ts";
import type { OutputRing, OutputStream } from "./output-ring.ts";
import type { Due, Pulse } from "./pulse.ts";
import type { ProcessExit, ProcessView } from "./record.ts";

/** What a stream tells. Sequence numbers are those of the last event in it; keepalives and gaps have that of the event before. */
export type Told =
  | { readonly kind: "started"; readonly sequence: number; readonly process: ProcessView }
  | {
      readonly kind: "output";
      readonly sequence: number;
      readonly stream: OutputStream;
      readonly data: Uint8Array;
    }
  | { readonly kind: "keepalive"; readonly sequence: number }
  | {
      readonly kind: "gap";
      readonly sequence: number;
      readonly droppedBytes: number;
      readonly nextSequence: number;
    }
  | { readonly kind: "exited"; readonly sequence: number; readonly exit: ProcessExit };

/** What is watched. */
export interface Watched {
  readonly ring: OutputRing;
  /** As it was at the start. */
  started(): ProcessView;
  /** Its end, once that may be told. */
  ended(): { readonly sequence: number; readonly exit: ProcessExit } | undefined;
  /** A stream has taken more, or is over. */
  moved(): void;
  left(watcher: Watcher): void;
}

export interface WatcherOptions {
  readonly watched: Watched;
  /** The last event that was seen. */
  readonly afterSequence: number;
  readonly keepaliveMs: number;
  readonly signal: AbortSignal;
  readonly clock: Pick<Clock, "nowMs">;
  readonly pulse: Pulse;
}

export interface Watcher {
  /** Ends after the process's end. To be read once. @throws the signal's reason. */
  readonly events: AsyncIterable<Told>;
  /** All up to this event was taken by the reader. */
  readonly takenSequence: number;
  /** There is more to tell. */
  wake(): void;
}

/** In one piece, as long as the reader is behind. */
const mostPieceBytes = 65_536;

export function createWatcher(options: WatcherOptions): Watcher {
  const { watched, afterSequence, keepaliveMs, signal, clock, pulse } = options;
  const { ring } = watched;
  /** What comes next, and what was told last. */
  let at = { sequence: Math.max(1, afterSequence), offset: ring.offsetAfter(Math.max(1, afterSequence)) };
  let toldSequence = afterSequence;
  let takenSequence = afterSequence;
  let isKeepaliveDue = false;
  let isOver = false;
  let resume = () => {};

  const keepalive: Due = {
    dueMs: Number.POSITIVE_INFINITY,
    due() {
      this.dueMs = Number.POSITIVE_INFINITY;
      isKeepaliveDue = true;
      resume();
    },
  };

  function gapTo(sequence: number, offset: number): Told | undefined {
    if (sequence === at.sequence + 1 && offset === at.offset) return undefined;
    const droppedBytes = offset - at.offset;
    at = { sequence: sequence - 1, offset };
    return { kind: "gap", sequence: toldSequence, droppedBytes, nextSequence: sequence };
  }

  /** What is to be told now, if anything is. */
  function take(): Told | undefined {
    if (toldSequence < 1) return { kind: "started", sequence: 1, process: watched.started() };
    const piece = ring.read(at.sequence, mostPieceBytes);
    if (piece !== undefined) {
      const gap = gapTo(piece.firstSequence, piece.offset);
      if (gap !== undefined) return gap;
      const { sequence, stream, data } = piece;
      at = { sequence, offset: piece.offset + data.length };
      return { kind: "output", sequence, stream, data };
    }
    const end = watched.ended();
    if (end !== undefined) {
      const { sequence, exit } = end;
      // who has seen the end already is told it again: there is nothing else to end with
      return (
        (sequence > at.sequence ? gapTo(sequence, ring.outputBytes) : undefined) ?? {
          kind: "exited",
          sequence,
          exit,
        }
      );
    }
    if (!isKeepaliveDue) return undefined;
    return { kind: "keepalive", sequence: toldSequence };
  }

  function close(): void {
    if (isOver) return;
    isOver = true;
    pulse.remove(keepalive);
    signal.removeEventListener("abort", onAbort);
    watched.left(watcher);
    watched.moved();
  }

  function onAbort(): void {
    close();
    resume();
  }

  async function* events(): AsyncGenerator<Told> {
    try {
      for (;;) {
        signal.throwIfAborted();
        const told = take();
        if (told === undefined) {
          keepalive.dueMs = Math.min(keepalive.dueMs, clock.nowMs() + keepaliveMs);
          await new Promise<void>((resolve) => {
            resume = resolve;
          });
          continue;
        }
        isKeepaliveDue = false;
        keepalive.dueMs = Number.POSITIVE_INFINITY;
        toldSequence = told.sequence;
        yield told;
        // it is asked for more only when what it got has gone on its way
        takenSequence = at.sequence;
        watched.moved();
        if (told.kind === "exited") return;
      }
    } finally {
      close();
    }
  }

  const watcher: Watcher = {
    events: events(),
    wake: () => resume(),
    get takenSequence() {
      return takenSequence;
    },
  };
  pulse.add(keepalive);
  signal.addEventListener("abort", onAbort, { once: true });
  return watcher;
}
