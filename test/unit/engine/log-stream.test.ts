import { Readable } from "node:stream";
import fc from "fast-check";
import { expect, test } from "vitest";
import { parseTime, readFrames, readLogs } from "../../../src/engine/log-stream.ts";
import { anyPlaces, collect, cut, streamOf } from "./chunks.ts";

function frame(type: number, payload: Uint8Array): Buffer {
  const header = Buffer.alloc(8);
  header[0] = type;
  header.writeUInt32BE(payload.length, 4);
  return Buffer.concat([header, payload]);
}

const anyFrames = fc.array(
  fc.record({ type: fc.constantFrom(1, 2), payload: fc.uint8Array({ maxLength: 300 }) }),
  { maxLength: 10 },
);

test("frames are the same however the stream is cut into chunks", async () => {
  await fc.assert(
    fc.asyncProperty(anyFrames, anyPlaces, async (frames, places) => {
      const bytes = Buffer.concat(frames.map(({ type, payload }) => frame(type, payload)));
      const read = await collect(readFrames(streamOf(cut(bytes, places))));
      expect(read.map(({ type, payload }) => [type, payload.toString("hex")])).toEqual(
        frames.map(({ type, payload }) => [type, Buffer.from(payload).toString("hex")]),
      );
    }),
  );
});

test("one byte at a time is a way to cut", async () => {
  const bytes = Buffer.concat([
    frame(1, Buffer.from("out")),
    frame(2, Buffer.alloc(0)),
    frame(2, Buffer.from("err")),
  ]);
  const read = await collect(readFrames(streamOf([...bytes].map((byte) => Buffer.from([byte])))));
  expect(read.map(({ type, payload }) => `${type}${payload}`)).toEqual(["1out", "2", "2err"]);
});

test("of a stream that breaks off, the whole frames are told", async () => {
  const bytes = Buffer.concat([frame(1, Buffer.from("whole")), frame(1, Buffer.from("broken"))]);
  const read = await collect(readFrames(streamOf([bytes.subarray(0, -1)])));
  expect(read.map(({ payload }) => String(payload))).toEqual(["whole"]);
});

test("log lines are told with their time, their stream and exactly their bytes", async () => {
  const anyLine = fc.record({
    type: fc.constantFrom(1, 2),
    nanoseconds: fc.bigInt({ min: 0n, max: 4_102_444_800_000_000_000n }),
    data: fc.uint8Array({ maxLength: 100 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(anyLine, { maxLength: 10 }), anyPlaces, async (lines, places) => {
      const bytes = Buffer.concat(
        lines.map(({ type, nanoseconds, data }) => {
          const seconds = new Date(Number(nanoseconds / 1_000_000_000n) * 1_000).toISOString().slice(0, 19);
          const fraction = String(nanoseconds % 1_000_000_000n).padStart(9, "0");
          return frame(type, Buffer.concat([Buffer.from(`${seconds}.${fraction}Z `), data]));
        }),
      );
      const read = await collect(readLogs(Readable.from(cut(bytes, places))));
      expect(read.map(({ data, ...rest }) => ({ ...rest, data: Buffer.from(data).toString("hex") }))).toEqual(
        lines.map(({ type, nanoseconds, data }) => ({
          timeNanoseconds: nanoseconds,
          stream: type === 2 ? "stderr" : "stdout",
          data: Buffer.from(data).toString("hex"),
        })),
      );
    }),
  );
});

test("a line that doesn't begin with a time is told whole", async () => {
  for (const text of ["no time here", "nospace", " leading", ""]) {
    const [chunk] = await collect(readLogs(Readable.from([frame(1, Buffer.from(text))])));
    expect(chunk).toMatchObject({ timeNanoseconds: 0n, stream: "stdout" });
    expect(Buffer.from(chunk?.data ?? []).toString()).toBe(text);
  }
});

test("a reader that stops early closes the stream", async () => {
  const stream = new Readable({
    read() {
      this.push(frame(1, Buffer.from("2026-01-01T00:00:00Z x\n")));
    },
  });
  for await (const _ of readLogs(stream)) break;
  expect(stream.destroyed).toBe(true);
});

test("a failure of the stream reaches the reader", async () => {
  const stream = new Readable({ read: () => undefined });
  const read = collect(readLogs(stream));
  stream.destroy(new Error("connection lost"));
  await expect(read).rejects.toThrow("connection lost");
});

test.each([
  ["1970-01-01T00:00:00Z", 0n],
  ["1970-01-01T00:00:01.5Z", 1_500_000_000n],
  ["1970-01-01T00:00:00.000000001Z", 1n],
  ["1970-01-01T01:00:00.123456789+01:00", 123_456_789n],
  ["2026-01-01T00:00:00.1Z", 1_767_225_600_100_000_000n],
  ["2026-13-01T00:00:00Z", undefined],
  ["2026-01-01T00:00:00", undefined],
  ["2026-01-01T00:00:00.Z", undefined],
  ["2026-01-01T00:00:00.1234567890Z", undefined],
  ["2026-01-01", undefined],
  ["", undefined],
])("the time %s is %s", (text, expected) => {
  expect(parseTime(text)).toBe(expected);
});
