import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { createForwardBuffer, type ForwardBuffer, type Place } from "../../../src/logs/forward-buffer.ts";

const mostBytes = 64 * 1024;
const gatherMs = 1_000;

let nowMs: number;
let dropped: { records: number; bytes: number };
let settled: Map<string, bigint>;
let buffer: ForwardBuffer;
beforeEach(() => {
  nowMs = 0;
  dropped = { records: 0, bytes: 0 };
  settled = new Map();
  buffer = createForwardBuffer({
    mostBytes,
    gatherMs,
    nowMs: () => nowMs,
    dropped(records, bytes) {
      dropped.records += records;
      dropped.bytes += bytes;
    },
    settled: ({ sandboxId, sequence }) => settled.set(sandboxId, sequence),
  });
});

const place = (sandboxId: string, sequence: number): Place => ({
  ...{ sandboxId, instance: `i-${sandboxId}`, containerId: `c-${sandboxId}`, sequence: BigInt(sequence) },
});
const kibibyte = Buffer.alloc(1_024, "x");
/** Puts so many entries of a KiB in, of one sandbox with a tag of its name. */
const fill = (sandbox: string, from: number, to: number) => {
  for (let sequence = from; sequence <= to; sequence += 1)
    buffer.push(sandbox, kibibyte, place(sandbox, sequence));
};

describe("a chunk", () => {
  test("is taken once it has waited for others, with what came meanwhile, as it was put", () => {
    buffer.push("a", Buffer.from("one"), place("a", 1));
    expect(buffer.take()).toBeUndefined();
    expect(buffer.dueInMs()).toBe(gatherMs);
    nowMs = 400;
    buffer.push("a", Buffer.from("two"), place("a", 2));
    expect(buffer.dueInMs()).toBe(600);
    nowMs = 1_000;
    const chunk = buffer.take();
    expect(chunk).toMatchObject({ tag: "a", records: 2, bytes: 6 });
    expect(String(chunk?.data.subarray(0, chunk.bytes))).toBe("onetwo");
  });

  test("that is full is taken at once, before others that still wait", () => {
    buffer.push("slow", Buffer.from("x"), place("slow", 1));
    fill("fast", 1, 16);
    expect(buffer.dueInMs()).toBe(0);
    expect(buffer.take()).toMatchObject({ tag: "fast", records: 16 });
  });

  test("is the same until it is done, and takes no more", () => {
    fill("a", 1, 1);
    nowMs = gatherMs;
    const first = buffer.take();
    fill("a", 2, 2);
    expect(buffer.take()).toBe(first);
    expect(first?.records).toBe(1);
    expect(settled.size).toBe(0);
    buffer.done();
    expect(settled.get("a")).toBe(1n);
    nowMs = 2 * gatherMs;
    expect(buffer.take()?.records).toBe(1);
  });
});

describe("what has no room", () => {
  test("is the oldest, which is counted, and settled: it will not be sent again", () => {
    fill("a", 1, 16);
    fill("b", 1, 48);
    expect(dropped).toEqual({ records: 0, bytes: 0 });
    fill("b", 49, 49);
    expect(dropped).toEqual({ records: 16, bytes: 16 * 1_024 });
    expect(settled).toEqual(new Map([["a", 16n]]));
    expect(buffer.bytes()).toBe(49 * 1_024);
  });

  test("is never what is being sent, and what was written after it is settled with it", () => {
    fill("a", 1, 16);
    const taken = buffer.take();
    fill("a", 17, 65);
    expect(dropped.records).toBe(16);
    expect(settled.size, "the first sixteen may be lost yet").toBe(0);
    expect(buffer.take()).toBe(taken);
    buffer.done();
    expect(settled.get("a")).toBe(32n);
  });

  test("is an entry by itself where it is larger than all", () => {
    buffer.push("a", Buffer.alloc(mostBytes + 1), place("a", 1));
    expect(dropped.records).toBe(1);
    expect(buffer.bytes()).toBe(0);
    expect(buffer.dueInMs()).toBeUndefined();
  });
});

test("whatever is put and taken: nothing is unaccounted for, the bound holds, and each sandbox's lines keep their order", () => {
  const step = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        put: fc.constantFrom("a", "b", "c"),
        bytes: fc.integer({ min: 4, max: 9_000 }),
      }),
    },
    { weight: 1, arbitrary: fc.constantFrom("take" as const, "done" as const, "wait" as const) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      let lost = 0;
      const arrived: string[] = [];
      const own = createForwardBuffer({
        ...{ mostBytes, gatherMs, nowMs: () => nowMs, settled: () => undefined },
        dropped: (records) => {
          lost += records;
        },
      });
      let taken: ReturnType<typeof own.take>;
      const put = new Map<string, number>();
      for (const one of steps) {
        if (one === "wait") nowMs += gatherMs;
        else if (one === "take") taken = own.take();
        else if (one === "done") {
          if (taken !== undefined)
            arrived.push(...entriesIn(taken.data.subarray(0, taken.bytes)).map((n) => `${taken?.tag}${n}`));
          own.done();
          taken = undefined;
        } else {
          const sequence = (put.get(one.put) ?? 0) + 1;
          put.set(one.put, sequence);
          own.push(one.put, entry(sequence, one.bytes), place(one.put, sequence));
        }
        expect(own.bytes()).toBeLessThanOrEqual(mostBytes + (taken?.bytes ?? 0));
      }
      nowMs += gatherMs;
      for (let chunk = own.take(); chunk !== undefined; chunk = own.take()) {
        arrived.push(...entriesIn(chunk.data.subarray(0, chunk.bytes)).map((n) => `${chunk?.tag}${n}`));
        own.done();
      }
      const total = [...put.values()].reduce((sum, one) => sum + one, 0);
      expect(arrived.length + lost).toBe(total);
      for (const tag of put.keys()) {
        const numbers = arrived.filter((one) => one.startsWith(tag)).map((one) => Number(one.slice(1)));
        expect(numbers).toEqual([...new Set(numbers)].sort((x, y) => x - y));
      }
    }),
  );
});

/** Its length, its number, and what fills it up. */
function entry(number: number, bytes: number): Buffer {
  const made = Buffer.alloc(Math.max(bytes, 8));
  made.writeUInt32BE(made.length, 0);
  made.writeUInt32BE(number, 4);
  return made;
}

function entriesIn(data: Buffer): readonly number[] {
  const numbers: number[] = [];
  for (let at = 0; at < data.length; at += data.readUInt32BE(at)) numbers.push(data.readUInt32BE(at + 4));
  return numbers;
}
