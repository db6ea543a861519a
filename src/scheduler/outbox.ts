// The events that one session still has to tell. Holds a cursor into the log and at most one chunk of it, so its
// memory is the same after a minute and after a month without a scheduler.

import type { Event } from "../../gen/sandboxd/v1/event_pb.ts";
import type { UplinkEvents } from "./source.ts";

/** The newest number that any session may have told; a scheduler cannot have anything newer. Only ever rises. */
export interface EverTold {
  sequence: number;
}

/** What to tell next: an event, or that the log has lost some. */
export type OutboxItem =
  | { readonly kind: "event"; readonly event: Event }
  | { readonly kind: "gap"; readonly first: number; readonly last: number };

export interface OutboxOptions {
  readonly events: Pick<UplinkEvents, "readAfter" | "newest">;
  /** Everything up to this number is stored by the scheduler. */
  readonly acknowledged: number;
  /** Shared by all sessions. */
  readonly everTold: EverTold;
  /** Events that may be told before one of them is acknowledged. */
  readonly window: number;
}

export interface Outbox {
  /** The next item, which counts as told from now on; undefined when all is told or the window is full. */
  next(): OutboxItem | undefined;
  /**
   * Notes an acknowledgement. "repeated" says nothing new; "beyond" names what was never told and changes
   * nothing. What the scheduler has from an earlier session is not told again.
   */
  acknowledge(sequence: number): "advanced" | "repeated" | "beyond";
  /** The newest number told, or lost and told to be. */
  told(): number;
  acknowledged(): number;
}

const chunkSize = 100;

export function createOutbox(options: OutboxOptions): Outbox {
  const { events, everTold, window } = options;
  let acknowledged = options.acknowledged;
  let told = acknowledged;
  let gapEnd = 0;
  let chunk: readonly Event[] = [];
  let position = 0;

  function peek(): Event | undefined {
    if (position === chunk.length) {
      chunk = events.newest() > told ? events.readAfter(told, chunkSize) : [];
      position = 0;
    }
    return chunk[position];
  }

  function tell(sequence: number): void {
    told = sequence;
    everTold.sequence = Math.max(everTold.sequence, sequence);
  }

  function gap(last: number): OutboxItem {
    const first = told + 1;
    tell(last);
    gapEnd = last;
    return { kind: "gap", first, last };
  }

  return {
    next() {
      // a gap takes no room: a scheduler that has no use for it need not acknowledge it
      if (told - Math.max(acknowledged, gapEnd) >= window) return undefined;
      const event = peek();
      if (event === undefined) {
        const newest = events.newest();
        return newest > told ? gap(newest) : undefined;
      }
      const sequence = Number(event.sequence);
      if (sequence > told + 1) return gap(sequence - 1);
      position += 1;
      tell(sequence);
      return { kind: "event", event };
    },
    acknowledge(sequence) {
      if (sequence > everTold.sequence) return "beyond";
      if (sequence <= acknowledged) return "repeated";
      acknowledged = sequence;
      if (sequence > told) {
        told = sequence;
        chunk = [];
        position = 0;
      }
      return "advanced";
    },
    told: () => told,
    acknowledged: () => acknowledged,
  };
}
