import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createTimeReader, decodeLine } from "../../../src/engine/log-line.ts";
import { createNumbers } from "../../../src/engine/log-numbers.ts";
import type { LogEntry, LogPosition } from "../../../src/engine/runtime.ts";

/** Lines are their times. */
const raw = {
  timeOf: (time: bigint) => time,
  decode: (time: bigint) =>
    ({ timeNanoseconds: time, stream: "stdout", data: Buffer.from(String(time)) }) as const,
};

function told(times: readonly bigint[], after?: LogPosition, isRotated = false): readonly LogEntry[] {
  const numbers = createNumbers(after, raw);
  numbers.begins({ isRotated });
  const entries = numbers.entriesOf(times);
  numbers.caughtUp();
  return entries;
}
const sequencesOf = (entries: readonly LogEntry[]) => entries.map(({ sequence }) => sequence);
const seen = (sequence: bigint) => ({ sequence, isOfThisLog: true });

describe("the number of a line", () => {
  test("is its time, raised by as little as makes it rise", () => {
    const times = [100n, 200n, 200n, 200n, 150n, 300n];
    expect(sequencesOf(told(times))).toEqual([100n, 200n, 201n, 202n, 203n, 300n]);
  });

  test("rises whatever the times, and a reader that resumes sees exactly what follows", () => {
    const anyTimes = fc.array(fc.bigInt({ min: 1n, max: 50n }), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(anyTimes, fc.nat(29), (times, index) => {
        const all = told(times);
        const sequences = sequencesOf(all);
        expect(sequences).toEqual([...new Set(sequences)].sort((a, b) => (a < b ? -1 : 1)));
        const place = Math.min(index, times.length - 1);
        expect(told(times, seen(sequences[place] ?? 0n))).toEqual(all.slice(place + 1));
      }),
    );
  });

  test("is the same when the lines before it are gone, once time has passed the numbers", () => {
    const times = [10n, 10n, 10n, 40n, 40n, 70n, 90n];
    const all = sequencesOf(told(times));
    expect(sequencesOf(told(times.slice(3)))).toEqual(all.slice(3));
    expect(sequencesOf(told(times.slice(4))).slice(1), "all but what is left of one time").toEqual(
      all.slice(5),
    );
  });

  test("goes on from a log before this one", () => {
    expect(sequencesOf(told([100n, 500n], { sequence: 300n, isOfThisLog: false }))).toEqual([301n, 500n]);
  });
});

describe("a gap is told", () => {
  const isGap = (entries: readonly LogEntry[]) => entries[0]?.kind === "gap";

  test("where the line after the one that was seen may be gone", () => {
    expect(told([100n, 200n], seen(50n))[0]).toEqual({ kind: "gap", sequence: 100n });
    expect(isGap(told([100n, 200n], seen(100n)))).toBe(false);
    expect(isGap(told([100n, 200n], seen(150n)))).toBe(false);
  });

  test("within pieces of one line whose first may be gone, for none of them can be told from another", () => {
    for (const sequence of [100n, 101n, 102n, 120n])
      expect(isGap(told([100n, 100n, 100n, 200n], seen(sequence), true))).toBe(true);
    expect(isGap(told([100n, 100n, 100n, 200n], seen(101n), false))).toBe(false);
    expect(isGap(told([100n, 100n, 200n, 200n, 200n], seen(201n), true))).toBe(false);
  });

  test("before the line that follows a loss", () => {
    const numbers = createNumbers(undefined, raw);
    numbers.begins({ isRotated: false });
    numbers.entriesOf([100n]);
    numbers.lost();
    expect(numbers.entriesOf([])).toEqual([]);
    expect(numbers.entriesOf([200n, 300n]).map(({ kind }) => kind)).toEqual(["gap", "line", "line"]);
  });
});

test("a number from the future is refused, with what is there; where nothing is, it is waited for", () => {
  expect(() => told([100n, 200n], seen(201n))).toThrow(
    "lines after 201 cannot be told: 100 to 200 are retained",
  );
  const numbers = createNumbers(seen(500n), raw);
  numbers.begins({ isRotated: false });
  numbers.caughtUp();
  expect(sequencesOf(numbers.entriesOf([400n, 600n]))).toEqual([501n, 600n]);
});

describe("a line of the engine's file", () => {
  const line = (log: string, time = "2026-01-01T00:00:00.5Z", stream = "stdout") =>
    Buffer.from(JSON.stringify({ log, stream, time }));
  const read = (text: Buffer) => {
    const time = createTimeReader()(text);
    return time === undefined ? undefined : decodeLine(text, time);
  };

  test("has its bytes, its stream and its time", () => {
    const time = 1_767_225_600_500_000_000n;
    expect(read(line('"time":"x"\n\u0000é', undefined, "stderr"))).toEqual({
      ...{ timeNanoseconds: time, stream: "stderr", data: Buffer.from('"time":"x"\n\u0000é') },
    });
  });

  test("may have any number of decimals, and another zone", () => {
    const read = createTimeReader();
    const times = [".123456789Z", "Z", ".1Z", ".000000001Z", "+01:00"];
    expect(times.map((rest) => read(line("x", `2026-01-01T00:00:00${rest}`)))).toEqual(
      [123_456_789n, 0n, 100_000_000n, 1n, -3_600_000_000_000n].map(
        (one) => 1_767_225_600_000_000_000n + one,
      ),
    );
  });

  test("that follows one that was cut off is told alone; what is none is left out", () => {
    expect(read(Buffer.concat([Buffer.from('{"log":"cut o'), line("whole")]))?.data).toEqual(
      Buffer.from("whole"),
    );
    for (const nonsense of [
      "",
      "{}",
      "null",
      "\0\0\0",
      '{"log":1,"time":"2026-01-01T00:00:00Z"}',
      '{"log":"x","time":"y"}',
    ])
      expect(read(Buffer.from(nonsense))).toBeUndefined();
  });
});
