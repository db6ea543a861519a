import { expect, onTestFinished, test } from "vitest";
import { createClock } from "../../../src/sandbox/clock.ts";
import { bootId, temporaryStore } from "./fixture.ts";

function clockAt(times: { wallMs: number; monotonicMs: number }) {
  const clock = createClock({
    bootId,
    store: temporaryStore(),
    monotonicMs: () => times.monotonicMs,
    wallClockMs: () => times.wallMs,
  });
  onTestFinished(clock.close);
  return clock;
}

test("a steady time is the same moment each time it is told, although two clocks are never read at once", () => {
  const times = { wallMs: 1_000_000, monotonicMs: 5_000 };
  const clock = clockAt(times);
  const told = clock.wallMs(2_000_000);
  Object.assign(times, { wallMs: 1_007_001, monotonicMs: 12_000 });
  expect(clock.wallMs(2_000_000)).toBe(told);
  Object.assign(times, { wallMs: 1_008_999, monotonicMs: 14_000 });
  expect(clock.wallMs(2_000_000)).toBe(told);
});

test.each([3_600_000, -3_600_000])(
  "a wall clock that is set by %d ms moves what it shows, and not the time",
  (byMs) => {
    const times = { wallMs: 1_000_000, monotonicMs: 5_000 };
    const clock = clockAt(times);
    const [now, told] = [clock.nowMs(), clock.wallMs(2_000_000)];
    times.wallMs += byMs;
    expect(clock.nowMs()).toBe(now);
    expect(clock.wallMs(2_000_000)).toBe(told + byMs);
  },
);
