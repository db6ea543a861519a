import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { createLog } from "../../../../src/observe/log.ts";
import { createProber, type Probing } from "../../../../src/sandbox/health/prober.ts";
import type { Outcome } from "../../../../src/sandbox/health/verdict.ts";
import type { HealthCheck, SandboxRecord } from "../../../../src/sandbox/record.ts";
import { recordOf } from "../fixture.ts";

const check: HealthCheck = {
  probe: { kind: "tcp", port: 80 },
  intervalMs: 10_000,
  timeoutMs: 3_000,
  startPeriodMs: 0,
  retries: 2,
  onUnhealthy: "REPORT",
};
const passed: Outcome = { kind: "passed", message: "fine" };
const failed: Outcome = { kind: "failed", message: "broken" };

/** A sandbox with a health check that was just started. */
const checked = (id: string, change: Partial<SandboxRecord> = {}, changed: Partial<HealthCheck> = {}) =>
  recordOf({
    id,
    spec: { ...recordOf().spec, healthCheck: { ...check, ...changed } },
    ranSinceMs: Date.now(),
    health: { state: "STARTING", failures: 0, message: "not tried yet" },
    ...change,
  });

interface Begun {
  readonly id: string;
  readonly atMs: number;
  readonly signal: AbortSignal;
  readonly end: (outcome: Outcome) => void;
  readonly fail: (error: Error) => void;
}

/** A prober over these sandboxes. `answer` is each probe's outcome; without one, probes hang until they are ended. */
function probed(
  sandboxes: readonly SandboxRecord[],
  options: { answer?: Outcome; concurrentProbes?: number; random?: () => number } = {},
) {
  const { answer, ...rest } = options;
  const records = new Map(sandboxes.map((record) => [record.id, record]));
  const listeners = new Set<(id: string) => void>();
  const begun: Begun[] = [];
  const kicked: string[] = [];
  const observed: string[] = [];
  const origin = Date.now();
  const probe: Probing = ({ id }, _, { signal }) =>
    new Promise((end, fail) => {
      begun.push({ id, atMs: Date.now() - origin, signal, end, fail });
      if (answer !== undefined) end(answer);
    });
  const prober = createProber({
    repository: {
      all: () => [...records.values()],
      get: (id) => records.get(id),
      subscribe(listener) {
        listeners.add(listener);
        return () => void listeners.delete(listener);
      },
    },
    clock: { nowMs: () => Date.now(), wallMs: (steadyMs) => steadyMs },
    probe,
    kick: (id) => void kicked.push(id),
    observe: (kind, outcome) => void observed.push(`${kind} ${outcome}`),
    log: createLog({ level: "fatal" }),
    random: () => 0,
    ...rest,
  });
  onTestFinished(() => {
    const closed = prober.close();
    for (const { end } of begun) end(passed);
    return closed;
  });
  return {
    prober,
    begun,
    kicked,
    observed,
    change(record: SandboxRecord) {
      records.set(record.id, record);
      for (const listener of listeners) listener(record.id);
    },
    remove(id: string) {
      records.delete(id);
      for (const listener of listeners) listener(id);
    },
  };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());
const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

describe("of one sandbox", () => {
  test("the next probe begins an interval after the end of the one before", async () => {
    const { begun } = probed([checked("one")]);
    await pass(0);
    await pass(4_000);
    begun[0]?.end(passed);
    await pass(9_999);
    expect(begun).toHaveLength(1);
    await pass(1);
    expect(begun.map(({ atMs }) => atMs)).toEqual([0, 14_000]);
  });

  test("a probe that hangs never gets company", async () => {
    const { begun } = probed([checked("one")]);
    await pass(3_600_000);
    expect(begun).toHaveLength(1);
  });

  test("it is kicked when its state changes, and not for each probe", async () => {
    const { prober, begun, kicked, change } = probed([checked("one")]);
    for (const outcome of [passed, passed, failed, failed, failed]) {
      await pass(10_000);
      begun.at(-1)?.end(outcome);
      await pass(0);
      // as the reconciler notes it
      const health = prober.health("one");
      if (kicked.length > 0 && health !== undefined) change(checked("one", { health }));
    }
    expect(kicked).toEqual(["one", "one"]);
    expect(prober.health("one")).toMatchObject({ state: "UNHEALTHY", failures: 3, message: "broken" });
  });

  test("it is kicked again with each probe as long as its record says otherwise", async () => {
    const { kicked } = probed([checked("one")], { answer: passed });
    await pass(20_000);
    expect(kicked).toEqual(["one", "one", "one"]);
  });

  test("it is kicked again with each failure as long as its policy was not carried out", async () => {
    const health = { state: "UNHEALTHY", failures: 2, message: "broken" } as const;
    const { kicked } = probed(
      [checked("one", { health }), checked("two", { health }, { onUnhealthy: "STOP" })],
      { answer: failed },
    );
    await pass(10_000);
    expect(kicked).toEqual(["two", "two"]);
  });

  test("failures in the start period, counted from its start, do not make it unhealthy", async () => {
    const ranSinceMs = Date.now() - 15_000;
    const { prober } = probed([checked("one", { ranSinceMs }, { startPeriodMs: 30_000 })], {
      answer: failed,
    });
    await pass(14_000);
    expect(prober.health("one")).toMatchObject({ state: "STARTING", failures: 0, message: "broken" });
    await pass(20_000);
    expect(prober.health("one")).toMatchObject({ state: "UNHEALTHY", failures: 2 });
  });

  test("a probe that throws was not tried: nothing changes, and it goes on", async () => {
    const { prober, begun, kicked, observed } = probed([checked("one")]);
    await pass(0);
    begun[0]?.fail(new Error("no engine"));
    await pass(10_000);
    expect(prober.health("one")).toMatchObject({ state: "STARTING", message: "not tried yet" });
    expect(kicked).toEqual([]);
    expect(observed).toEqual(["tcp untried"]);
    expect(begun).toHaveLength(2);
  });
});

describe("a sandbox", () => {
  test("without a check, or that does not run, is left alone", async () => {
    const { begun, prober } = probed([recordOf(), checked("two", { state: "PAUSED" })], { answer: passed });
    await pass(60_000);
    expect(begun).toEqual([]);
    expect(prober.health("one")).toBeUndefined();
  });

  test("that comes to run is probed, until it runs no more", async () => {
    const { begun, change, prober } = probed([], { answer: passed });
    change(checked("one", { state: "CREATING" }));
    await pass(60_000);
    expect(begun).toEqual([]);
    change(checked("one"));
    await pass(10_000);
    expect(begun).toHaveLength(2);
    change(checked("one", { state: "STOPPING" }));
    expect(prober.health("one")).toBeUndefined();
    await pass(60_000);
    expect(begun).toHaveLength(2);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("that is paused in the middle of a probe has it ended, and what that finds does not matter", async () => {
    const { begun, change, prober, kicked } = probed([checked("one")]);
    await pass(0);
    change(checked("one", { state: "PAUSING" }));
    expect(begun[0]?.signal.aborted).toBe(true);
    change(checked("one", { state: "RUNNING" }));
    begun[0]?.end(failed);
    await pass(0);
    expect(prober.health("one")).toMatchObject({ state: "STARTING", failures: 0 });
    expect(kicked).toEqual([]);
    expect(begun).toHaveLength(2);
  });

  test("that is gone is forgotten", async () => {
    const { begun, remove } = probed([checked("one")], { answer: passed });
    remove("one");
    await pass(60_000);
    expect(begun).toEqual([]);
  });

  test("that was found running goes on with what its record says", async () => {
    const health = { state: "HEALTHY", failures: 0, message: "fine" } as const;
    const { prober } = probed([checked("one", { health })], { answer: failed });
    expect(prober.health("one")).toEqual(health);
    await pass(0);
    expect(prober.health("one")).toMatchObject({ state: "HEALTHY", failures: 1 });
  });
});

describe("of many", () => {
  const many = (count: number, changed: Partial<HealthCheck> = {}) =>
    Array.from({ length: count }, (_, index) => checked(`s${index}`, {}, changed));

  test("a bounded number is probed at once, and each gets its turn", async () => {
    const { begun } = probed(many(200, { intervalMs: 1_000 }), { concurrentProbes: 8 });
    for (let ended = 0; ended < 200; ended += 8) {
      await pass(1);
      expect(begun.length - ended).toBe(8);
      for (const { end } of begun.slice(ended)) end(passed);
    }
    expect(new Set(begun.map(({ id }) => id)).size).toBe(200);
  });

  test("those that hang do not hold up the others", async () => {
    const { begun } = probed(many(100), { concurrentProbes: 2 });
    await pass(30_000);
    expect(begun.length).toBeGreaterThanOrEqual(60);
  });

  test("those that wait for their turn when they stop are not probed", async () => {
    const { begun, change } = probed(many(3), { concurrentProbes: 1 });
    await pass(0);
    change(checked("s1", { state: "STOPPED" }));
    begun[0]?.end(passed);
    await pass(0);
    expect(begun.map(({ id }) => id)).toEqual(["s0", "s2"]);
  });

  test("the first probes are spread over the interval, and over 5 s at most", async () => {
    const shares = [0.1, 0.5, 0.9];
    const random = () => shares.shift() ?? 0;
    const short = probed(many(3, { intervalMs: 1_000 }), { random, answer: passed });
    await pass(1_000);
    expect(short.begun.map(({ atMs }) => atMs)).toEqual([100, 500, 900]);
    const long = probed([checked("one", {}, { intervalMs: 3_600_000 })], { random: () => 0.999 });
    await pass(5_000);
    expect(long.begun).toHaveLength(1);
  });
});

describe("closing", () => {
  test("ends every probe, waits for them, and leaves no timer", async () => {
    const { prober, begun, kicked } = probed([checked("one"), checked("two", {}, { intervalMs: 60_000 })]);
    await pass(0);
    const closed = prober.close();
    for (const { signal, end } of begun) {
      expect(signal.aborted).toBe(true);
      end(failed);
    }
    await closed;
    expect(vi.getTimerCount()).toBe(0);
    expect(kicked).toEqual([]);
  });

  test("does not wait for one that never ends", async () => {
    const { prober } = probed([checked("one")]);
    await pass(5_000);
    const closed = prober.close();
    await pass(2_000);
    await closed;
    expect(vi.getTimerCount()).toBe(0);
  });
});
