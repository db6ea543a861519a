import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createHistory, type History } from "../../../src/monitor/ring-buffer.ts";
import type { SandboxSample } from "../../../src/monitor/sample.ts";
import { sampleAt } from "./samples.ts";

const count = fc.maxSafeNat();

/** Any sample, with or without the parts that may be absent. */
const anySample: fc.Arbitrary<Omit<SandboxSample, "monotonicMs">> = fc.record(
  {
    wallMs: count,
    cpu: fc.record({
      usageUsec: count,
      userUsec: count,
      systemUsec: count,
      periods: count,
      throttledPeriods: count,
      throttledUsec: count,
    }),
    memory: fc.record(
      {
        usageBytes: count,
        workingSetBytes: count,
        rssBytes: count,
        cacheBytes: count,
        limitBytes: count,
        oomEvents: count,
        oomKills: count,
        limitHits: count,
      },
      {
        requiredKeys: [
          "usageBytes",
          "workingSetBytes",
          "rssBytes",
          "cacheBytes",
          "oomEvents",
          "oomKills",
          "limitHits",
        ],
      },
    ),
    pids: fc.record(
      { current: count, limit: count, refusedForks: count },
      { requiredKeys: ["current", "refusedForks"] },
    ),
    blockIo: fc.record({
      readBytes: count,
      writeBytes: count,
      readOperations: count,
      writeOperations: count,
    }),
    network: fc.record({
      rxBytes: count,
      txBytes: count,
      rxPackets: count,
      txPackets: count,
      rxDropped: count,
      txDropped: count,
    }),
  },
  { requiredKeys: ["wallMs", "cpu", "memory", "pids"] },
);

/** A history of these samples. */
function historyOf(capacity: number, samples: readonly SandboxSample[]): History {
  const history = createHistory(capacity);
  for (const sample of samples) history.push(sample);
  return history;
}

describe("a history", () => {
  it("is that of its newest samples: what went before leaves no trace", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 9 }),
        fc.array(anySample, { minLength: 1, maxLength: 30 }),
        fc.integer({ min: -5, max: 350 }),
        (capacity, parts, from) => {
          const pushed = parts.map((part, index) => ({ monotonicMs: index * 10, ...part }));
          const newest = historyOf(30, pushed.slice(-capacity));
          expect(historyOf(capacity, pushed).summary(from)).toEqual(newest.summary(from));
        },
      ),
    );
  });

  it("takes in the samples from a moment on, and the last one before it", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), fc.integer({ min: -5, max: 250 }), (pushes, from) => {
        const all = Array.from({ length: pushes }, (_, index) => sampleAt(index * 10));
        const kept = all.slice(-8).map(({ monotonicMs }) => monotonicMs);
        const before = kept.filter((monotonicMs) => monotonicMs < from).slice(-1);
        const since = kept.filter((monotonicMs) => monotonicMs >= from);
        expect(historyOf(8, all).summary(from)).toMatchObject({
          fromMonotonicMs: [...before, ...since][0],
          toMonotonicMs: kept.at(-1),
          samples: before.length + since.length,
        });
      }),
    );
  });

  it("ignores a sample that isn't later than its newest", () => {
    const history = historyOf(4, [
      sampleAt(20, { pids: { current: 5 } }),
      sampleAt(20, { pids: { current: 6 } }),
      sampleAt(10, { pids: { current: 7 } }),
    ]);
    expect(history.summary(0)).toMatchObject({ samples: 1, pids: { max: 5 } });
  });

  it("is refused a capacity that could hold no rate", () => {
    expect(() => createHistory(1)).toThrow(RangeError);
    expect(() => createHistory(2.5)).toThrow(RangeError);
  });
});

describe("the summary of a window", () => {
  const history = createHistory(10);
  // one core for a second, idle for a second, two cores for half a second
  history.push(sampleAt(0, { cpu: { usageUsec: 0 }, memory: { workingSetBytes: 100, usageBytes: 150 } }));
  history.push(
    sampleAt(1000, {
      cpu: { usageUsec: 1_000_000, periods: 10, throttledPeriods: 5 },
      memory: { workingSetBytes: 300, usageBytes: 310 },
      pids: { current: 9 },
    }),
  );
  history.push(
    sampleAt(2000, {
      cpu: { usageUsec: 1_000_000, periods: 10, throttledPeriods: 5 },
      memory: { workingSetBytes: 200, usageBytes: 400, oomKills: 1 },
      pids: { current: 2, refusedForks: 3 },
    }),
  );
  history.push(
    sampleAt(2500, {
      cpu: { usageUsec: 2_000_000, periods: 15, throttledPeriods: 10, throttledUsec: 77 },
      memory: { workingSetBytes: 200, usageBytes: 210, oomKills: 1 },
      pids: { current: 3, refusedForks: 3 },
    }),
  );

  it("has averages by time, peaks by interval, and what counters rose by", () => {
    expect(history.summary(0)).toEqual({
      fromMonotonicMs: 0,
      toMonotonicMs: 2500,
      samples: 4,
      cpu: {
        averageMillis: 800,
        maxMillis: 2000,
        latestMillis: 2000,
        throttledShare: 10 / 15,
        throttledUsec: 77,
      },
      memory: {
        averageWorkingSetBytes: 200,
        maxWorkingSetBytes: 300,
        maxUsageBytes: 400,
        oomEvents: 0,
        oomKills: 1,
        limitHits: 0,
      },
      pids: { max: 9, refusedForks: 3 },
    });
  });

  it("starts from the last sample before the window, so that no counter step is lost", () => {
    const summary = history.summary(1500);
    expect(summary?.fromMonotonicMs).toBe(1000);
    expect(summary?.memory.oomKills).toBe(1);
    expect(summary?.cpu.averageMillis).toBe(667);
  });

  it("is the newest sample alone when the window is younger than all", () => {
    expect(history.summary(9999)).toMatchObject({ samples: 1, cpu: { averageMillis: 0, latestMillis: 0 } });
  });

  it("doesn't exist without a sample", () => {
    expect(createHistory(2).summary(0)).toBeUndefined();
  });

  it("counts from zero again after the sandbox was started again", () => {
    const restarted = createHistory(4);
    restarted.push(sampleAt(0, { cpu: { usageUsec: 9_000_000 } }));
    restarted.push(sampleAt(1000, { cpu: { usageUsec: 500_000 } }));
    expect(restarted.summary(0)?.cpu).toMatchObject({ averageMillis: 500, maxMillis: 500 });
  });

  it("takes a network that appears in the middle for nothing until it has two readings", () => {
    const network = { rxBytes: 5000, txBytes: 1, rxPackets: 1, txPackets: 1, rxDropped: 0, txDropped: 0 };
    const late = createHistory(4);
    late.push(sampleAt(0));
    late.push(sampleAt(1000, { network }));
    expect(late.summary(0)?.network?.rx).toEqual({
      bytes: 0,
      averageBytesPerSecond: 0,
      maxBytesPerSecond: 0,
    });
    late.push(sampleAt(2000, { network: { ...network, rxBytes: 9000 } }));
    expect(late.summary(0)?.network?.rx).toEqual({
      bytes: 4000,
      averageBytesPerSecond: 2000,
      maxBytesPerSecond: 4000,
    });
  });

  it("has no negative, no infinite and no undefined rate, whatever the counters do", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 5000 }), anySample), { minLength: 1, maxLength: 20 }),
        fc.integer({ min: -100, max: 100_000 }),
        (steps, from) => {
          const wild = createHistory(6);
          let now = 0;
          for (const [stepMs, part] of steps) {
            now += stepMs;
            wild.push({ monotonicMs: now, ...part });
          }
          const { cpu, memory, pids, blockIo, network } = wild.summary(from) ?? expect.fail("no summary");
          const groups = [cpu, memory, pids, blockIo?.read, blockIo?.write, network?.rx, network?.tx];
          for (const value of groups.flatMap((group) => Object.values(group ?? {}))) {
            expect(value).toBeGreaterThanOrEqual(0);
            expect(value).toBeLessThan(Number.POSITIVE_INFINITY);
          }
          expect(cpu.throttledShare).toBeLessThanOrEqual(1);
          expect(cpu.averageMillis).toBeLessThanOrEqual(cpu.maxMillis);
        },
      ),
    );
  });
});
