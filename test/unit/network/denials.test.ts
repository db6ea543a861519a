import { expect, onTestFinished, test, vi } from "vitest";
import { createDenialEvents, type NetworkDenial } from "../../../src/network/denials.ts";
import { createLog } from "../../../src/observe/log.ts";
import { recordOf } from "../sandbox/fixture.ts";

const log = createLog({ level: "fatal" });
const denied = (destination: string, count = 1): NetworkDenial => ({
  reason: "policy",
  destination,
  protocol: "TCP",
  count,
  timeMs: 1_000,
});

function told() {
  vi.useFakeTimers();
  const events: (readonly [string, readonly string[]])[] = [];
  const known = new Map(["a", "b"].map((id) => [id, recordOf({ id })]));
  const denials = createDenialEvents({
    repository: {
      get: (id) => known.get(id),
      tellDenials(record, these) {
        events.push([record.id, these.map(({ destination, count }) => `${destination} x${count}`)]);
      },
    },
    log,
  });
  onTestFinished(() => {
    denials.close();
    vi.useRealTimers();
  });
  return { denials, events, known };
}

test("the first refusal is told at once, and what follows together", () => {
  const { denials, events } = told();
  denials.add("a", denied("192.0.2.1:22"));
  denials.add("a", denied("192.0.2.1:23"));
  denials.add("a", denied("192.0.2.1:22", 3));
  denials.add("a", denied("192.0.2.1:22"));
  expect(events).toEqual([["a", ["192.0.2.1:22 x1"]]]);
  vi.advanceTimersByTime(30_000);
  expect(events[1]).toEqual(["a", ["192.0.2.1:23 x1", "192.0.2.1:22 x4"]]);
  expect(events).toHaveLength(2);
});

test("of a scan of the world there are few kinds, and few events", () => {
  const { denials, events } = told();
  for (let second = 0; second < 300; second += 1) {
    for (let port = 0; port < 20; port += 1) denials.add("a", denied(`192.0.2.${second % 250}:${port}`));
    vi.advanceTimersByTime(1_000);
  }
  expect(events.length).toBeLessThanOrEqual(11);
  expect(Math.max(...events.map(([, these]) => these.length))).toBe(16);
});

test("after a period without any, the next is told at once again", () => {
  const { denials, events } = told();
  denials.add("a", denied("192.0.2.1:22"));
  vi.advanceTimersByTime(60_000);
  denials.add("a", denied("192.0.2.2:22"));
  expect(events).toHaveLength(2);
});

test("sandboxes do not wait for each other, and one that is gone is not told of", () => {
  const { denials, events, known } = told();
  denials.add("a", denied("192.0.2.1:22"));
  denials.add("b", denied("192.0.2.1:22"));
  denials.add("c", denied("192.0.2.1:22"));
  expect(events.map(([id]) => id)).toEqual(["a", "b"]);
  known.delete("a");
  denials.add("a", denied("192.0.2.1:24"));
  vi.advanceTimersByTime(30_000);
  expect(events).toHaveLength(2);
});
