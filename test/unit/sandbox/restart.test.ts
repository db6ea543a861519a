import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Settlement } from "../../../src/sandbox/decide.ts";
import { failed } from "../../../src/sandbox/ending.ts";
import { actors, type RestartPolicy, type SandboxRecord } from "../../../src/sandbox/record.ts";
import { underPolicy } from "../../../src/sandbox/restart.ts";
import { recordOf } from "./fixture.ts";

const nowMs = 1_000_000;
const { spec } = recordOf();

const policy: RestartPolicy = {
  mode: "ON_FAILURE",
  delayMs: 1_000,
  maxDelayMs: 8_000,
  maxAttempts: 3,
  windowMs: 60_000,
  resetAfterMs: 30_000,
};

function under(restart: Partial<RestartPolicy>, change: Partial<SandboxRecord> = {}): SandboxRecord {
  return recordOf({ spec: { ...spec, restart: { ...policy, ...restart } }, ...change });
}

const exited = failed("EXITED", "ended with exit code 1", actors.sandbox);
const completed: Settlement = {
  ...failed("COMPLETED", "ended with exit code 0", actors.sandbox),
  state: "STOPPED",
};

const recent = (...agoMs: readonly number[]) => ({
  restarts: { count: agoMs.length, recentMs: agoMs.map((ms) => nowMs - ms) },
});

const stateAfter = (record: SandboxRecord, end: Settlement, ranMs = 0) =>
  underPolicy(record, end, ranMs, nowMs).state;

describe("a main command that ended", () => {
  test.each([
    ["NEVER", exited, "FAILED"],
    ["NEVER", completed, "STOPPED"],
    ["ON_FAILURE", exited, "BACKING_OFF"],
    ["ON_FAILURE", completed, "STOPPED"],
    ["UNLESS_STOPPED", exited, "BACKING_OFF"],
    ["UNLESS_STOPPED", completed, "BACKING_OFF"],
  ] as const)("under %s", (mode, end, expected) => {
    expect(stateAfter(under({ mode }), end)).toBe(expected);
  });

  test.each(["EXITED", "SIGNALED", "OOM_KILLED", "HOST_REBOOT", "START_FAILED"] as const)(
    "by %s has failed",
    (reason) => {
      expect(stateAfter(under({}), failed(reason, "", actors.sandbox))).toBe("BACKING_OFF");
    },
  );

  test.each(["EXTERNAL", "CONTAINER_LOST", "REQUESTED", "EXPIRED", "EVICTED", "DRAINED"] as const)(
    "by %s is not started again",
    (reason) => {
      expect(stateAfter(under({ mode: "UNLESS_STOPPED" }), failed(reason, "", actors.external))).toBe(
        "FAILED",
      );
    },
  );

  test("because it was unhealthy is started again if its health check says so, whatever the mode", () => {
    const unhealthy = failed("UNHEALTHY", "no answer", actors.policy);
    const healthCheck = {
      probe: { kind: "tcp", port: 80 },
      intervalMs: 1_000,
      timeoutMs: 1_000,
      startPeriodMs: 0,
      retries: 1,
      onUnhealthy: "RESTART",
    } as const;
    const record = under({ mode: "NEVER" });
    expect(stateAfter(record, unhealthy)).toBe("FAILED");
    expect(stateAfter({ ...record, spec: { ...record.spec, healthCheck } }, unhealthy)).toBe("BACKING_OFF");
  });
});

describe("restarts", () => {
  test("are bounded within the window", () => {
    expect(stateAfter(under({}, recent(3, 2)), exited)).toBe("BACKING_OFF");
    const last = underPolicy(under({}, recent(3, 2, 1)), exited, 0, nowMs);
    expect(last.state).toBe("FAILED");
    expect(last.message).toContain("not started again after 3 restarts within 60 s");
  });

  test("before the window no longer count", () => {
    expect(stateAfter(under({}, recent(60_000, 60_001, 61_000)), exited)).toBe("BACKING_OFF");
  });

  test("are forgotten after a run of reset_after", () => {
    const record = under({}, recent(59_000, 50_000, 40_000));
    expect(stateAfter(record, exited, 29_999)).toBe("FAILED");
    expect(stateAfter(record, exited, 30_000)).toBe("BACKING_OFF");
  });

  test("are counted since the acceptance, also those that no longer bound anything", () => {
    const record = under({}, { restarts: { count: 7, recentMs: [] } });
    expect(underPolicy(record, exited, 0, nowMs).restarts).toMatchObject({ count: 8, recentMs: [nowMs] });
  });
});

test("the wait doubles up to its most, and is shortened by a half at most", () => {
  fc.assert(
    fc.property(
      fc.uuid(),
      fc.integer({ min: 100, max: 600_000 }),
      fc.integer({ min: 1, max: 64 }),
      fc.integer({ min: 0, max: 20 }),
      (instance, delayMs, factor, attempts) => {
        const maxDelayMs = delayMs * factor;
        const agoMs = Array.from({ length: attempts }, (_, index) => index);
        const record = under({ delayMs, maxDelayMs, maxAttempts: 1_000 }, { instance, ...recent(...agoMs) });
        const waitMs = (underPolicy(record, exited, 0, nowMs).restarts?.nextAtMs ?? 0) - nowMs;
        const wholeMs = Math.min(maxDelayMs, delayMs * 2 ** attempts);
        expect(waitMs).toBeGreaterThanOrEqual(Math.floor(wholeMs / 2));
        expect(waitMs).toBeLessThanOrEqual(wholeMs);
      },
    ),
  );
});

test("sandboxes that ended together do not start together, and each always at the same time", () => {
  const next = (instance: string) =>
    underPolicy(under({}, { instance }), exited, 0, nowMs).restarts?.nextAtMs;
  const times = Array.from({ length: 20 }, (_, index) => next(`instance-${index}`));
  expect(new Set(times).size).toBeGreaterThan(15);
  expect(times).toEqual(Array.from({ length: 20 }, (_, index) => next(`instance-${index}`)));
});
