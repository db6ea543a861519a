// The ring against a model that keeps everything: what it holds is a tail of what was written, and what it says is missing is.

import fc from "fast-check";
import { expect, test } from "vitest";
import {
  blockBytes,
  createOutputBudget,
  createOutputRing,
  type OutputEvent,
  type OutputRing,
} from "../../../src/process/output-ring.ts";

const streams = ["stdout", "stderr", "terminal"] as const;

/** One write: how much, to what, and how many bytes and events the keeper had dropped before it. */
const write = fc.record({
  bytes: fc.oneof(
    fc.integer({ min: 1, max: 20 }),
    fc.integer({ min: 1, max: 3_000 }),
    fc.integer({ min: 15_000, max: 65_536 }),
  ),
  stream: fc.constantFrom(...streams),
  hole: fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, fc.integer({ min: 1, max: 9 })),
});

/** Bytes that tell where they lie. */
function bytesAt(offset: number, length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => (offset + index) % 251));
}

function eventsOf(writes: readonly { bytes: number; stream: (typeof streams)[number]; hole: number }[]) {
  const events: OutputEvent[] = [];
  let [sequence, offset] = [1, 0];
  for (const { bytes, stream, hole } of writes) {
    sequence += 1 + hole;
    offset += hole * 10;
    events.push({ sequence, offset, stream, data: bytesAt(offset, bytes) });
    offset += bytes;
  }
  return events;
}

/** All that can be read after an event, by pieces. */
function readAll(ring: OutputRing, after: number, mostBytes = blockBytes) {
  const pieces = [];
  for (let at = after; ; ) {
    const piece = ring.read(at, mostBytes);
    if (piece === undefined) return pieces;
    pieces.push(piece);
    at = piece.sequence;
  }
}

test("holds a tail of what was written, byte for byte, within its bound", () => {
  fc.assert(
    fc.property(
      fc.array(write, { minLength: 1, maxLength: 120 }),
      fc.integer({ min: 4_096, max: 300_000 }),
      fc.integer({ min: 1, max: 70_000 }),
      (writes, limitBytes, mostBytes) => {
        const ring = createOutputRing(limitBytes, createOutputBudget(Number.MAX_SAFE_INTEGER));
        const events = eventsOf(writes);
        for (const event of events) {
          ring.append(event);
          expect(ring.lastSequence).toBe(event.sequence);
          expect(ring.outputBytes).toBe(event.offset + event.data.length);
        }
        const held = events.filter(({ sequence }) => sequence >= ring.firstSequence);
        expect(held.length, "the newest is always there").toBeGreaterThan(0);
        const heldBytes = held.reduce((sum, { data }) => sum + data.length, 0);
        expect(ring.heldBytes).toBe(heldBytes);
        if (held.length > 1) expect(heldBytes).toBeLessThanOrEqual(limitBytes);
        const before = events.at(-held.length - 1);
        if (before !== undefined) {
          // it would not have fitted, counting what small events and holes cost
          const cost = [before, ...held].reduce((sum, { data }) => sum + Math.max(8, data.length) + 512, 0);
          expect(cost).toBeGreaterThan(limitBytes);
        }
        const pieces = readAll(ring, 1, mostBytes);
        expect(pieces.reduce((sum, { data }) => sum + data.length, 0)).toBe(heldBytes);
        for (const { offset, data, stream, firstSequence, sequence } of pieces) {
          expect(Buffer.compare(bytesAt(offset, data.length), data)).toBe(0);
          const parts = held.filter((event) => event.sequence >= firstSequence && event.sequence <= sequence);
          expect(parts.every((event) => event.stream === stream)).toBe(true);
          expect(data.length <= mostBytes || parts.length === 1).toBe(true);
        }
      },
    ),
    { numRuns: 60 },
  );
});

test("can be read from any event on, and knows how much lies before each that it holds", () => {
  fc.assert(
    fc.property(fc.array(write, { minLength: 1, maxLength: 80 }), fc.nat(200), (writes, after) => {
      const ring = createOutputRing(100_000, createOutputBudget(Number.MAX_SAFE_INTEGER));
      const events = eventsOf(writes);
      for (const event of events) ring.append(event);
      const expected = events.filter(({ sequence }) => sequence > after && sequence >= ring.firstSequence);
      const told = readAll(ring, after).reduce((sum, { data }) => sum + data.length, 0);
      expect(told).toBe(expected.reduce((sum, { data }) => sum + data.length, 0));
      for (const { sequence, offset, data } of events) {
        const known = ring.offsetAfter(sequence);
        if (sequence >= ring.firstSequence) expect(known).toBe(offset + data.length);
        else {
          expect(known).toBeLessThanOrEqual(offset + data.length);
          expect(offset + data.length - known).toBeLessThanOrEqual(blockBytes);
        }
      }
    }),
    { numRuns: 60 },
  );
});

test("what was read stays as it was when more is written", () => {
  const ring = createOutputRing(4_096, createOutputBudget(Number.MAX_SAFE_INTEGER));
  ring.append({ sequence: 2, offset: 0, stream: "stdout", data: bytesAt(0, 100) });
  const piece = ring.read(1, blockBytes);
  for (let index = 1; index < 200; index++) {
    ring.append({
      sequence: index + 2,
      offset: index * 100,
      stream: "stdout",
      data: bytesAt(index * 100, 100),
    });
  }
  expect(Buffer.compare(piece?.data ?? Buffer.alloc(0), bytesAt(0, 100))).toBe(0);
});

test("memory beyond what all may hold goes from those that have ended, then from who writes", () => {
  const held: number[] = [];
  const budget = createOutputBudget(400_000, (bytes) => held.push(bytes));
  const ended = createOutputRing(1_000_000, budget);
  const running = createOutputRing(1_000_000, budget);
  const data = Buffer.alloc(50_000);
  for (let index = 0; index < 6; index++)
    ended.append({ sequence: index + 2, offset: index * 50_000, stream: "stdout", data });
  budget.retire(ended);
  for (let index = 0; index < 20; index++) {
    running.append({ sequence: index + 2, offset: index * 50_000, stream: "stdout", data });
  }
  expect(ended.heldBytes).toBe(0);
  expect(ended.outputBytes, "that it was there is known").toBe(300_000);
  expect(ended.firstSequence).toBe(8);
  expect(running.heldBytes).toBeLessThanOrEqual(400_000);
  expect(running.heldBytes).toBeGreaterThan(0);
  expect(budget.heldBytes).toBe(running.heldBytes);
  expect(held.at(-1)).toBe(budget.heldBytes);
});

test("a million events of one byte cost little more than their bytes", () => {
  const ring = createOutputRing(1_048_576, createOutputBudget(Number.MAX_SAFE_INTEGER));
  const before = process.memoryUsage().arrayBuffers;
  const data = Buffer.from("x");
  for (let index = 0; index < 1_000_000; index++) {
    ring.append({ sequence: index + 2, offset: index, stream: index % 2 === 0 ? "stdout" : "stderr", data });
  }
  expect(ring.heldBytes).toBe(1_048_576 / 8);
  expect(ring.outputBytes).toBe(1_000_000);
  const grown = process.memoryUsage().arrayBuffers - before;
  // garbage of blocks that were dropped may be among it
  expect(grown).toBeLessThan(32 * 1024 * 1024);
});

test("taken up in the middle, it knows that nothing is missing to who has seen all before", () => {
  const ring = createOutputRing(100_000, createOutputBudget(Number.MAX_SAFE_INTEGER));
  ring.append({ sequence: 500, offset: 10_000, stream: "stdout", data: bytesAt(10_000, 50) });
  expect(ring.offsetAfter(499)).toBe(10_000);
  expect(ring.offsetAfter(498), "how much lies between is not known: all may").toBe(0);
  expect([ring.firstSequence, ring.outputBytes, ring.heldBytes]).toEqual([500, 10_050, 50]);
});
