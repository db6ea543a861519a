import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createTouches, type Touches } from "../../../src/sandbox/touches.ts";

const containerId = "c1";
let touches: Touches;
let isOpen = true;

beforeEach(() => {
  vi.useFakeTimers({ now: 1_000_000 });
  isOpen = true;
  touches = createTouches({ isOpen: async () => isOpen });
});
afterEach(() => void vi.useRealTimers());

const started = (atMs: number) => ({
  containerId,
  action: "start",
  timeNanos: BigInt(atMs) * 1_000_000n + 1n,
});

test("a start is ours while it goes on, and when it is heard of after its answer", async () => {
  const answer = Promise.withResolvers<void>();
  const start = touches.byUs("start", containerId, () => answer.promise);
  expect(touches.isOurs(started(999_999))).toBe(true);
  vi.advanceTimersByTime(50);
  answer.resolve();
  await start;
  expect(touches.isOurs(started(1_000_040))).toBe(true);
  expect(touches.isOurs(started(1_000_050)), "in the millisecond of the answer").toBe(true);
});

test("a later start is somebody else's, and so is one of another container or one that failed", async () => {
  await touches.byUs("start", containerId, async () => {});
  expect(touches.isOurs(started(1_000_001))).toBe(false);
  expect(touches.isOurs({ ...started(999_999), containerId: "c2" })).toBe(false);
  await touches.byUs("start", "c3", () => Promise.reject(new Error("no"))).catch(() => {});
  expect(touches.isOurs({ ...started(999_999), containerId: "c3" })).toBe(false);
});

test("what is forgotten is nobody's", async () => {
  await touches.byUs("start", containerId, async () => {});
  touches.signalled(containerId);
  expect(await touches.wasBySomeoneElse(containerId)).toBe(true);
  touches.forget(containerId);
  expect(touches.isOurs(started(999_999))).toBe(false);
  expect(await touches.wasBySomeoneElse(containerId)).toBe(false);
});

test("a signal is ours only while we end the container, and the engine's own as it goes down is nobody's", async () => {
  const kill = { containerId, action: "kill", timeNanos: 0n };
  await touches.byUs("end", containerId, async () => expect(touches.isOurs(kill)).toBe(true));
  expect(touches.isOurs(kill)).toBe(false);
  isOpen = false;
  touches.signalled(containerId);
  expect(await touches.wasBySomeoneElse(containerId)).toBe(false);
});
