import { describe, expect, test } from "vitest";
import type { Container } from "../../../src/engine/runtime.ts";
import type { Present } from "../../../src/sandbox/decide.ts";
import { ageOf, ended } from "../../../src/sandbox/ending.ts";
import type { RestartPolicy, SandboxRecord } from "../../../src/sandbox/record.ts";
import { moved } from "../../../src/sandbox/transition.ts";
import { bootId, containerOf, recordOf } from "./fixture.ts";

const nowMs = 1_000_000;
const now = { bootId, nowMs };
const started = "2026-01-01T10:00:00.000Z";
const later = (ms: number) => new Date(Date.parse(started) + ms).toISOString();

const exitedOf = (change: Partial<Container> = {}, more: Partial<Present> = {}): Present => ({
  kind: "present",
  container: containerOf({
    state: "exited",
    startedAt: started,
    finishedAt: later(1_000),
    exitCode: 1,
    ...change,
  }),
  oomKills: 0,
  touchedExternally: false,
  ...more,
});

const { spec } = recordOf();
const restart: RestartPolicy = {
  mode: "ON_FAILURE",
  delayMs: 1_000,
  maxDelayMs: 1_000,
  maxAttempts: 1,
  windowMs: 600_000,
  resetAfterMs: 10_000,
};
const restarted = (change: Partial<SandboxRecord> = {}) =>
  recordOf({
    spec: { ...spec, restart },
    restarts: { count: 1, recentMs: [nowMs - 100] },
    ranSinceMs: nowMs - 60_000,
    ...change,
  });

describe("a run", () => {
  test("that ended unseen counts for as long as it was, not until it was seen", () => {
    expect(ended(restarted(), exitedOf(), false, now).state).toBe("FAILED");
    const long = exitedOf({ finishedAt: later(10_000) });
    expect(ended(restarted(), long, false, now).state).toBe("BACKING_OFF");
  });

  test("counts for no longer than the steady clock allows, however the wall clock was set meanwhile", () => {
    const jumped = exitedOf({ finishedAt: later(3_600_000) });
    const record = restarted({ ranSinceMs: nowMs - 2_000 });
    expect(ended(record, jumped, false, now).state).toBe("FAILED");
  });

  test("that was never told as running counts for nothing", () => {
    const { ranSinceMs: _, ...record } = restarted({ state: "CREATING" });
    expect(ended(record, exitedOf({ finishedAt: later(60_000) }), false, now).state).toBe("FAILED");
  });

  test("has the container that it was in", () => {
    const record = recordOf({ containerId: "" });
    expect(ended(record, exitedOf({ id: "c7" }), false, now).containerId).toBe("c7");
  });

  test("that somebody on the host ended is not started again", () => {
    const end = ended(
      restarted({ restarts: { count: 0, recentMs: [] } }),
      exitedOf({}, { touchedExternally: true }),
      false,
      now,
    );
    expect(end).toMatchObject({ state: "FAILED", reason: "EXTERNAL" });
  });

  test("that a policy stopped to start it again tells that policy's reason", () => {
    const record = moved(restarted(), {
      state: "STOPPING",
      reason: "UNHEALTHY",
      message: "unhealthy: no answer",
      actor: { kind: "POLICY", identity: "" },
    });
    expect(ended(record, exitedOf({ exitCode: 143 }), false, now).reason).toBe("UNHEALTHY");
  });

  test("with a reboot in it is over, and started again by policy", () => {
    const record = restarted({ restarts: { count: 0, recentMs: [] }, bootId: "earlier" });
    expect(ended(record, exitedOf(), true, now)).toMatchObject({
      state: "BACKING_OFF",
      reason: "HOST_REBOOT",
    });
    const never = recordOf({ bootId: "earlier" });
    expect(ended(never, exitedOf(), true, now)).toMatchObject({ state: "STOPPED", reason: "HOST_REBOOT" });
  });
});

test("the age of a run is never negative, and 0 where the engine says nothing", () => {
  expect(ageOf(containerOf({ startedAt: started, finishedAt: later(1_500) }))).toBe(1_500);
  expect(ageOf(containerOf({ startedAt: started, finishedAt: later(-1_500) }))).toBe(0);
  expect(ageOf(containerOf({ startedAt: started, finishedAt: "" }))).toBe(0);
});

test("since when it runs is kept while it does, and forgotten at its end", () => {
  const record = recordOf({ ranSinceMs: 5 });
  const to = (state: SandboxRecord["state"]) =>
    moved(record, { state, reason: "PROGRESS", message: "", actor: { kind: "POLICY", identity: "" } })
      .ranSinceMs;
  expect(
    ["PAUSING", "PAUSED", "RESUMING", "STOPPING"].map((state) => to(state as SandboxRecord["state"])),
  ).toEqual([5, 5, 5, 5]);
  expect(["BACKING_OFF", "FAILED", "STOPPED"].map((state) => to(state as SandboxRecord["state"]))).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
});
