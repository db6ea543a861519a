// What is remembered of the last samples of one sandbox, in a block of memory that is allocated once and never grows.
import type { SandboxSample } from "./sample.ts";
import { column, rowLength, writeRow } from "./sample-row.ts";
import { summarize, type WindowSummary } from "./window.ts";

export interface History {
  /** Keeps a sample, and drops the oldest when full. One that isn't later than the newest is ignored. */
  push(sample: SandboxSample): void;
  /**
   * What happened from this moment on, as far as samples reach. Counters need a sample to start from, so the last
   * one before the moment is taken in when there is one. Undefined when there is no sample.
   */
  summary(sinceMonotonicMs: number): WindowSummary | undefined;
}

/** `capacity` is how many samples are kept, 2 or more; each takes 128 bytes, at once: 300 samples are 38 kB. */
export function createHistory(capacity: number): History {
  if (!Number.isInteger(capacity) || capacity < 2) {
    throw new RangeError(`history capacity ${capacity} is not an integer of 2 or more`);
  }
  // filled, so that it takes its memory now and not over the next minutes
  const rows = new Float64Array(capacity * rowLength).fill(Number.NaN);
  let size = 0;
  let next = 0;

  /** Where the row of this age starts: 0 is the oldest. */
  function rowAt(age: number): number {
    return ((next - size + age + capacity) % capacity) * rowLength;
  }

  function timeAt(age: number): number {
    return rows[rowAt(age) + column.monotonicMs] as number;
  }

  /** Age of the first sample not older than the moment; `size` when all are older. */
  function firstSince(monotonicMs: number): number {
    let low = 0;
    let high = size;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (timeAt(middle) < monotonicMs) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  return {
    push(sample) {
      if (size > 0 && sample.monotonicMs <= timeAt(size - 1)) {
        return;
      }
      writeRow(rows, next * rowLength, sample);
      next = (next + 1) % capacity;
      size = Math.min(size + 1, capacity);
    },
    summary(sinceMonotonicMs) {
      const first = Math.max(0, Math.min(firstSince(sinceMonotonicMs), size) - 1);
      return size === 0 ? undefined : summarize(rows, size - first, (index) => rowAt(first + index));
    },
  };
}
