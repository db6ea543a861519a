import { expect, test } from "vitest";
import { decide } from "../../../src/sandbox/decide.ts";
import type { Health, SandboxRecord } from "../../../src/sandbox/record.ts";
import { recentOf } from "../../../src/sandbox/restart.ts";
import { bootId, containerOf, recordOf } from "./fixture.ts";

const spec: SandboxRecord["spec"] = {
  ...recordOf().spec,
  restart: { ...recordOf().spec.restart, maxAttempts: 2, windowMs: 600_000, resetAfterMs: 1_000 },
  healthCheck: {
    probe: { kind: "tcp", port: 80 },
    intervalMs: 1_000,
    timeoutMs: 1_000,
    startPeriodMs: 0,
    retries: 1,
    onUnhealthy: "RESTART",
  },
};
const restarts = { count: 2, recentMs: [50_000, 60_000] };
const ofState = (state: Health["state"]): Health => ({ state, failures: 0, message: "" });
const nowMs = 100_000;
const ranMs = 2_000;

test("earlier restarts are forgotten once it has run well for long enough", () => {
  const healthy = recordOf({ spec, restarts, health: ofState("HEALTHY") });
  expect(recentOf(healthy, ranMs, nowMs)).toEqual([]);
  const { healthCheck: _, ...unchecked } = spec;
  expect(recentOf(recordOf({ spec: unchecked, restarts }), ranMs, nowMs)).toEqual([]);
});

test("they are not while it was not well, also when it is being stopped for that", () => {
  for (const state of ["STARTING", "UNHEALTHY"] as const) {
    const ill = recordOf({ spec, restarts, health: ofState(state) });
    expect(recentOf(ill, ranMs, nowMs)).toEqual(restarts.recentMs);
  }
  expect(recentOf(recordOf({ spec, restarts, state: "STOPPING" }), ranMs, nowMs)).toEqual(restarts.recentMs);
});

test("what was stopped as unhealthy ends as that, not as killed for memory", () => {
  const why = { ...recordOf().transition, reason: "UNHEALTHY", message: "unhealthy: broken" } as const;
  const record = recordOf({ spec, restarts, ranSinceMs: nowMs - ranMs, state: "STOPPING", transition: why });
  const container = containerOf({ state: "exited", exitCode: 137, finishedAt: "2026-01-01T10:01:00Z" });
  const seen = { kind: "present", container, oomKills: 1, touchedExternally: false } as const;
  expect(decide(record, seen, { bootId, nowMs })).toMatchObject({
    do: "settle",
    settlement: { state: "FAILED", reason: "UNHEALTHY", exit: { oomKilled: false, oomKills: 1 } },
  });
});
