import { describe, expect, onTestFinished, test, vi } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { createClock } from "../../../src/sandbox/clock.ts";
import { temporaryStore } from "./fixture.ts";

const hourMs = 3_600_000;

/** A machine whose clocks are set by hand. */
function machine() {
  const store = temporaryStore();
  const time = { monotonicMs: 10_000, wallMs: 1_700_000_000_000, bootId: "boot-1" };
  const start = () => {
    const clock = createClock({
      bootId: time.bootId,
      store,
      monotonicMs: () => time.monotonicMs,
      wallClockMs: () => time.wallMs,
    });
    onTestFinished(clock.close);
    return clock;
  };
  return {
    store,
    time,
    start,
    pass(ms: number) {
      time.monotonicMs += ms;
      time.wallMs += ms;
    },
    reboot() {
      time.bootId = `${time.bootId}+`;
      time.monotonicMs = 5_000;
    },
  };
}

describe("steady time", () => {
  test("begins at the wall clock", () => {
    const { start, time } = machine();
    expect(start().nowMs()).toBe(time.wallMs);
  });

  test.each([hourMs, -hourMs])("goes on as before when the wall clock is set by %i ms", (jumpMs) => {
    const { start, time, pass } = machine();
    const clock = start();
    const before = clock.nowMs();
    time.wallMs += jumpMs;
    pass(1_000);
    expect(clock.nowMs()).toBe(before + 1_000);
  });

  test("goes on over a restart of the daemon, whatever the wall clock shows by then", () => {
    const { start, time, pass } = machine();
    const before = start().nowMs();
    time.wallMs -= hourMs;
    pass(2_000);
    expect(start().nowMs()).toBe(before + 2_000);
  });

  test("begins anew at the wall clock with a new boot, so that what a machine was down counts", () => {
    const { start, time, pass, reboot } = machine();
    start();
    pass(10 * hourMs);
    reboot();
    expect(start().nowMs()).toBe(time.wallMs);
  });

  test("does not go back with a new boot whose wall clock is behind", () => {
    const { start, time, reboot } = machine();
    const before = start().nowMs();
    time.wallMs -= hourMs;
    reboot();
    expect(start().nowMs()).toBeGreaterThanOrEqual(before);
  });

  test("goes back by a minute at most", () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    onTestFinished(() => void vi.useRealTimers());
    const { start, time, pass, reboot } = machine();
    const clock = start();
    for (let minute = 0; minute < 10; minute++) {
      pass(60_000);
      vi.advanceTimersByTime(60_000);
    }
    pass(59_000);
    const before = clock.nowMs();
    time.wallMs -= hourMs;
    reboot();
    expect(before - start().nowMs()).toBeLessThanOrEqual(60_000);
  });

  test("is kept although the disk is full for a while", () => {
    const { start, store } = machine();
    start();
    vi.spyOn(store, "transact").mockImplementation(() => {
      throw new SandboxdError("STATE_DISK_FULL", "full");
    });
    expect(() => start()).not.toThrow();
  });
});

test("what the wall clock shows at a steady time follows it when it is set", () => {
  const { start, time } = machine();
  const clock = start();
  const due = clock.nowMs() + 60_000;
  expect(clock.wallMs(due)).toBe(time.wallMs + 60_000);
  time.wallMs += hourMs;
  expect(clock.wallMs(due)).toBe(time.wallMs + 60_000);
});
