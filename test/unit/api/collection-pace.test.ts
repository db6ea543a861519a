// The collector's pace: let go while much is transferred, and taken back once it is quiet again.

import { setFlagsFromString } from "node:v8";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

vi.mock("node:v8", () => ({ setFlagsFromString: vi.fn() }));
const told = vi.mocked(setFlagsFromString);
const MiB = 1024 * 1024;

beforeEach(() => {
  vi.useFakeTimers();
  vi.resetModules();
  told.mockClear();
});
afterEach(() => void vi.useRealTimers());

test("a little is no transfer", async () => {
  const { transferred } = await import("../../../src/api/collection-pace.ts");
  for (let second = 0; second < 5; second += 1) {
    transferred(4 * MiB);
    await vi.advanceTimersByTimeAsync(1_000);
  }
  expect(told).not.toHaveBeenCalled();
});

test("much in a second lets the heap grow until a second is quiet, and nothing is looked at after that", async () => {
  const { transferred } = await import("../../../src/api/collection-pace.ts");
  transferred(4 * MiB);
  transferred(1);
  expect(told.mock.calls).toEqual([["--heap-growing-percent=80"]]);
  await vi.advanceTimersByTimeAsync(1_000);
  transferred(5 * MiB);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(told).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(told.mock.lastCall).toEqual(["--heap-growing-percent=15"]);
  expect(vi.getTimerCount()).toBe(0);
});
