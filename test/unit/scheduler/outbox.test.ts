import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createOutbox, type OutboxItem } from "../../../src/scheduler/outbox.ts";
import { createFakeSource } from "./fixture.ts";

/** Everything that can be told now; events as their numbers, gaps as pairs. */
function drain(outbox: { next(): OutboxItem | undefined }) {
  const told: (number | readonly [number, number])[] = [];
  for (let item = outbox.next(); item !== undefined; item = outbox.next()) {
    told.push(item.kind === "event" ? Number(item.event.sequence) : [item.first, item.last]);
  }
  return told;
}

function outboxOf(events: number, { acknowledged = 0, everTold = events, window = 1_000, trimmed = 0 } = {}) {
  const source = createFakeSource();
  source.append(events);
  source.trim(trimmed);
  const outbox = createOutbox({
    events: source.events,
    acknowledged,
    window,
    everTold: { sequence: everTold },
  });
  return { source, outbox };
}

describe("the outbox", () => {
  test("tells what follows the acknowledged, in order, and then what is added", () => {
    const { source, outbox } = outboxOf(4, { acknowledged: 2 });
    expect(drain(outbox)).toEqual([3, 4]);
    source.append(2);
    expect(drain(outbox)).toEqual([5, 6]);
  });

  test("holds at the window until something is acknowledged", () => {
    const { outbox } = outboxOf(10, { window: 3 });
    expect(drain(outbox)).toEqual([1, 2, 3]);
    expect(outbox.acknowledge(2)).toBe("advanced");
    expect(drain(outbox)).toEqual([4, 5]);
  });

  test("tells of a gap where retention was faster, at the start and under way", () => {
    const { source, outbox } = outboxOf(10, { trimmed: 4, window: 3 });
    expect(drain(outbox)).toEqual([[1, 4], 5, 6, 7]);
    source.append(300);
    source.trim(305);
    outbox.acknowledge(7);
    // 8 to 10 were read before they were removed
    expect(drain(outbox)).toEqual([8, 9, 10]);
    outbox.acknowledge(10);
    expect(drain(outbox)).toEqual([[11, 305], 306, 307, 308]);
  });

  test("goes on after a gap that is larger than the window and was not acknowledged", () => {
    const { outbox } = outboxOf(10, { trimmed: 8, window: 3 });
    expect(drain(outbox)).toEqual([[1, 8], 9, 10]);
  });

  test("tells of a gap when retention left nothing", () => {
    const { outbox } = outboxOf(5, { trimmed: 5 });
    expect(drain(outbox)).toEqual([[1, 5]]);
  });

  test("takes an acknowledgement again, and one that is older, as nothing new", () => {
    const { outbox } = outboxOf(5);
    drain(outbox);
    expect([3, 3, 1, 0].map((sequence) => outbox.acknowledge(sequence))).toEqual([
      "advanced",
      "repeated",
      "repeated",
      "repeated",
    ]);
  });

  test("does not take an acknowledgement of what was never told", () => {
    const { outbox } = outboxOf(5, { window: 2, everTold: 0 });
    drain(outbox);
    expect(outbox.acknowledge(3)).toBe("beyond");
    expect(outbox.acknowledged()).toBe(0);
    expect(outbox.acknowledge(2)).toBe("advanced");
  });

  test("leaves out what the scheduler has from an earlier session", () => {
    const { outbox } = outboxOf(5, { window: 2, everTold: 4 });
    expect(drain(outbox)).toEqual([1, 2]);
    expect(outbox.acknowledge(4)).toBe("advanced");
    expect(drain(outbox)).toEqual([5]);
  });

  test("gives a receiver everything in order, whatever is added, acknowledged, lost and cut", () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant("append" as const), count: fc.integer({ min: 1, max: 300 }) }),
      fc.record({ do: fc.constant("tell" as const), count: fc.integer({ min: 1, max: 300 }) }),
      fc.record({
        do: fc.constant("acknowledge" as const),
        share: fc.double({ min: 0, max: 1, noNaN: true }),
      }),
      fc.record({ do: fc.constant("reconnect" as const), forget: fc.boolean() }),
      fc.record({ do: fc.constant("trim" as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 50 }), (steps, window) => {
        const source = createFakeSource();
        const everTold = { sequence: 0 };
        let kept = 0;
        const open = () => createOutbox({ events: source.events, acknowledged: kept, window, everTold });
        let outbox = open();
        /** The receiver after dedupe: each number once, as told or as lost. */
        let received = 0;
        const take = (item: OutboxItem) => {
          const [first, last] =
            item.kind === "event"
              ? [Number(item.event.sequence), Number(item.event.sequence)]
              : [item.first, item.last];
          expect(first).toBeLessThanOrEqual(received + 1);
          received = Math.max(received, last);
        };
        const acknowledge = (sequence: number) => {
          expect(outbox.acknowledge(sequence)).not.toBe("beyond");
          kept = Math.max(kept, sequence);
        };
        for (const next of steps) {
          if (next.do === "append") source.append(next.count);
          if (next.do === "trim") source.trim(Math.floor(next.share * source.events.newest()));
          if (next.do === "acknowledge") acknowledge(Math.floor(next.share * received));
          if (next.do === "reconnect") {
            // an acknowledgement that was not kept yet is forgotten with the session
            if (next.forget) kept = Math.max(0, kept - 5);
            outbox = open();
          }
          if (next.do === "tell") {
            for (let left = next.count; left > 0; left -= 1) {
              const item = outbox.next();
              if (item === undefined) break;
              take(item);
            }
          }
          expect(received).toBe(everTold.sequence);
        }
        for (;;) {
          for (let item = outbox.next(); item !== undefined; item = outbox.next()) take(item);
          if (received === source.events.newest() && outbox.told() === received) break;
          acknowledge(received);
        }
        expect(received).toBe(source.events.newest());
      }),
      { numRuns: 300 },
    );
  });
});
