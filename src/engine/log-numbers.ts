// Numbers the lines of a container's log, so that a reader who comes back says which one it saw last, and is told what
// follows: none twice, and none left out but those that are no longer there.
//
// A line's number is its time in nanoseconds since 1970, raised by as little as makes it greater than the number before. The engine
// gives all pieces of one long line the time of its first, so times repeat, and those of the other stream may lie between; and
// its clock may be set back. As a line takes the engine more than a nanosecond, numbers are soon times again: so they follow from the
// lines alone, whoever reads them, in whichever life of the daemon or the engine, also when the oldest lines are gone. They fit
// 63 bits until 2262. (Other ways: time and counter side by side leave two bits for the counter; a count of all lines is known only
// to who has seen them all.)

import { SandboxdError } from "../errors.ts";
import type { LogChunk, LogEntry, LogPosition } from "./runtime.ts";

/** How a log is read: when a line was written, and what it says. What has no time, or says nothing, is none. */
export interface RawLog<T> {
  readonly timeOf: (line: T) => bigint | undefined;
  readonly decode: (line: T, timeNanoseconds: bigint) => LogChunk | undefined;
}

export interface Numbers<T> {
  /** Whether something may have been dropped before the oldest line. Told before any line. */
  begins(facts: { readonly isRotated: boolean }): void;
  /** What is to be told of these lines. */
  entriesOf(lines: readonly T[]): readonly LogEntry[];
  /** Lines were lost here. */
  lost(): void;
  /** All lines that were there have been read. @throws SandboxdError SEQUENCE_TRUNCATED if the number to resume from is from the future. */
  caughtUp(): void;
}

export function createNumbers<T>(after: LogPosition | undefined, { timeOf, decode }: RawLog<T>): Numbers<T> {
  /** Lines up to this one were told before; undefined once a later one was seen. */
  let resume = after?.isOfThisLog === true ? after.sequence : undefined;
  let last = after?.isOfThisLog === false ? after.sequence : 0n;
  let oldest: bigint | undefined;
  let isRotated = false;
  /** Lines that have the oldest one's time, or an earlier one: with what preceded them gone, their numbers may be lower than they were. */
  let firstRun = 0;
  let isFirstRun = true;
  let isGap = false;

  /** Whether something is missing before the first line that is told after a resumption. */
  const isMissing = (wasFirstRun: boolean) => last === oldest || (isRotated && wasFirstRun && firstRun > 1);

  return {
    begins(facts) {
      isRotated = facts.isRotated;
    },
    entriesOf(lines) {
      const entries: LogEntry[] = [];
      for (const line of lines) {
        const time = timeOf(line);
        if (time === undefined) continue;
        const wasFirstRun = isFirstRun;
        if (oldest !== undefined && time > last) isFirstRun = false;
        if (isFirstRun) firstRun += 1;
        last = time > last ? time : last + 1n;
        oldest ??= last;
        if (resume !== undefined) {
          if (last <= resume) continue;
          isGap = isMissing(wasFirstRun);
          resume = undefined;
        }
        const chunk = decode(line, time);
        if (chunk === undefined) continue;
        if (isGap) entries.push({ kind: "gap", sequence: last });
        isGap = false;
        const { stream, data } = chunk;
        entries.push({ kind: "line", sequence: last, timeNanoseconds: time, stream, data });
      }
      return entries;
    },
    lost() {
      isGap = true;
    },
    caughtUp() {
      if (resume === undefined) return;
      if (oldest !== undefined && resume > last) throw truncated(resume, oldest, last);
      // where nothing is there yet, what comes is numbered after what was seen
      if (oldest === undefined) last = resume;
      resume = undefined;
    },
  };
}

function truncated(after: bigint, oldest: bigint, newest: bigint): SandboxdError {
  return new SandboxdError(
    "SEQUENCE_TRUNCATED",
    `lines after ${after} cannot be told: ${oldest} to ${newest} are retained`,
    {
      hint: "read again without after_sequence; the log of a sandbox that was made anew, and a clock that was set back, begin another count",
      metadata: { oldest_sequence: String(oldest), newest_sequence: String(newest) },
    },
  );
}
