import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Outcome, verdictOf } from "../../../../src/sandbox/health/verdict.ts";
import type { Health } from "../../../../src/sandbox/record.ts";

const check = { startPeriodMs: 5_000, retries: 3 };
const starting: Health = { state: "STARTING", failures: 0, message: "" };
const healthy: Health = { state: "HEALTHY", failures: 0, message: "" };
const passed: Outcome = { kind: "passed", message: "fine" };
const failed: Outcome = { kind: "failed", message: "broken" };
const untried: Outcome = { kind: "untried", message: "the engine is away" };

/** What it says after these outcomes, one each second from the start on. */
const saidAfter = (before: Health, outcomes: readonly Outcome[], fromMs = 0) =>
  outcomes.reduce(
    (health, outcome, index) =>
      verdictOf(health, outcome, check, { sinceStartMs: fromMs + index * 1_000, timeMs: index }),
    before,
  );

const anyOutcome = fc.constantFrom(passed, failed, untried);
const anyHealth = fc.record({
  state: fc.constantFrom("STARTING" as const, "HEALTHY" as const, "UNHEALTHY" as const),
  failures: fc.nat(10),
  message: fc.string(),
});

test("the first success makes it healthy", () => {
  expect(saidAfter(starting, [failed, passed])).toEqual({
    state: "HEALTHY",
    failures: 0,
    message: "fine",
    timeMs: 1,
  });
});

test("so many failures in a row as retries make it unhealthy, and one success well again", () => {
  expect(saidAfter(healthy, [failed, failed])).toMatchObject({ state: "HEALTHY", failures: 2 });
  expect(saidAfter(healthy, [failed, failed, failed])).toMatchObject({ state: "UNHEALTHY", failures: 3 });
  expect(saidAfter(healthy, [failed, failed, failed, passed])).toMatchObject({
    state: "HEALTHY",
    failures: 0,
  });
  expect(saidAfter(healthy, [failed, failed, passed, failed])).toMatchObject({
    state: "HEALTHY",
    failures: 1,
  });
});

describe("in the start period", () => {
  test("failures do not count, but are told", () => {
    expect(saidAfter(starting, [failed, failed, failed, failed])).toEqual({
      state: "STARTING",
      failures: 0,
      message: "broken",
      timeMs: 3,
    });
  });

  test("they count once it is over", () => {
    expect(saidAfter(starting, [failed, failed, failed], 5_000)).toMatchObject({
      state: "UNHEALTHY",
      failures: 3,
    });
  });

  test("they count after a success", () => {
    expect(saidAfter(starting, [passed, failed, failed, failed])).toMatchObject({ state: "UNHEALTHY" });
  });
});

test("a probe that could not be tried changes nothing", () => {
  fc.assert(
    fc.property(anyHealth, fc.nat(), (health, sinceStartMs) => {
      expect(verdictOf(health, untried, check, { sinceStartMs, timeMs: 9 })).toEqual(health);
    }),
  );
});

test("it is unhealthy only after so many failures in a row as retries, with no success between", () => {
  fc.assert(
    fc.property(fc.array(anyOutcome), fc.nat(10_000), (outcomes, fromMs) => {
      const health = saidAfter(starting, outcomes, fromMs);
      const tried = outcomes.filter(({ kind }) => kind !== "untried");
      const lastPass = tried.findLastIndex(({ kind }) => kind === "passed");
      const failures = tried.length - 1 - lastPass;
      if (health.state === "UNHEALTHY") expect(failures).toBeGreaterThanOrEqual(check.retries);
      if (health.state === "HEALTHY") expect(failures).toBeLessThan(check.retries);
      if (health.state === "STARTING") expect(lastPass).toBe(-1);
      expect(health.failures).toBeLessThanOrEqual(failures);
    }),
  );
});

test("its message is one line of at most 512 bytes, whatever the sandbox wrote", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1_200 }), (bytes) => {
      const message = Buffer.from(bytes).toString("utf8");
      const told = saidAfter(starting, [{ kind: "failed", message }]).message;
      expect(Buffer.byteLength(told)).toBeLessThanOrEqual(512);
      expect(told).not.toMatch(/[\p{Cc}\u2028\u2029\u202e]/u);
      expect(Buffer.from(told).toString()).toBe(told);
    }),
  );
  expect(saidAfter(starting, [{ kind: "failed", message: "a\r\n\u001b[31mb" }]).message).toBe("a [31mb");
});
