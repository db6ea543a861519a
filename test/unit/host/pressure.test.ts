import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Course, follow, type Measure, measure, type Thresholds } from "../../../src/host/pressure.ts";
import type { HostSample } from "../../../src/monitor/host-sampler.ts";
import { sampleOf } from "./fixture.ts";

const thresholds: Thresholds = {
  memoryAvailable: 100 * 2 ** 20,
  diskAvailablePercent: 10,
  inodesAvailablePercent: 5,
  pidsAvailablePercent: 5,
  stalledPercent: 60,
  stalledCpuPercent: 90,
  samples: 3,
  recovery: 1.5,
  minimumTimeMs: 60_000,
  evict: true,
  evictionPauseMs: 10_000,
};

function measured(change: Partial<HostSample>, type: Measure["type"], rules = thresholds) {
  return measure(sampleOf(change), rules).find((one) => one.type === type);
}

const memory = (availableBytes: number): Partial<HostSample> => ({
  memory: { totalBytes: 2 ** 33, availableBytes, swapTotalBytes: 0, swapFreeBytes: 0 },
});
const disk = (path: string, free: number, inodes = 50) => ({
  path,
  space: {
    totalBytes: 1_000,
    availableBytes: free * 10,
    totalInodes: 100,
    availableInodes: inodes,
    monotonicMs: 0,
  },
});
const stall = (avg10: number) => ({ avg10, avg60: 0, totalUsec: 0 });

describe("a sample", () => {
  test("of a host that has enough is short of nothing", () => {
    expect(measure(sampleOf(), thresholds).map(({ type, isShort }) => [type, isShort])).toEqual([
      ["MEMORY_PRESSURE", false],
      ["DISK_PRESSURE", false],
      ["INODE_PRESSURE", false],
      ["PID_PRESSURE", false],
      ["STALLED", false],
    ]);
  });

  test.each([
    ["below the threshold", 100 * 2 ** 20 - 1, true, false],
    ["at the threshold", 100 * 2 ** 20, false, false],
    ["just below the second threshold", 150 * 2 ** 20 - 1, false, false],
    ["at the second threshold", 150 * 2 ** 20, false, true],
  ])("with memory %s", (_, bytes, isShort, isRelieved) => {
    expect(measured(memory(bytes), "MEMORY_PRESSURE")).toMatchObject({ isShort, isRelieved });
  });

  test("says figure and threshold", () => {
    expect(measured(memory(80.5 * 2 ** 20), "MEMORY_PRESSURE")?.evidence).toBe(
      "80MiB of memory are available; the threshold is 100MiB",
    );
    expect(measured({ disks: [disk("/var", 9.94)] }, "DISK_PRESSURE")?.evidence).toBe(
      "9.9 % of /var are free; the threshold is 10 %",
    );
  });

  test("of several disks tells the worst, and is relieved only when all are", () => {
    const disks = [disk("/a", 40), disk("/b", 8), disk("/c", 20)];
    expect(measured({ disks }, "DISK_PRESSURE")).toMatchObject({
      isShort: true,
      isRelieved: false,
      evidence: expect.stringContaining("8 % of /b"),
    });
    expect(measured({ disks: [disk("/a", 40), disk("/b", 12)] }, "DISK_PRESSURE")).toMatchObject({
      isShort: false,
      isRelieved: false,
    });
  });

  test("counts inodes apart from space, where there are any", () => {
    expect(measured({ disks: [disk("/a", 40, 4)] }, "INODE_PRESSURE")).toMatchObject({ isShort: true });
    const uncounted = { path: "/b", space: { ...disk("/b", 40).space, totalInodes: 0, availableInodes: 0 } };
    expect(measured({ disks: [uncounted] }, "INODE_PRESSURE")).toBeUndefined();
  });

  test("that lacks a figure says nothing of its condition", () => {
    expect(measured({ disks: [{ path: "/a" }] }, "DISK_PRESSURE")).toBeUndefined();
    expect(measured({ pressure: {} }, "STALLED")).toBeUndefined();
  });

  test("counts process ids by the kernel's limit, also beyond it", () => {
    expect(measured({ pids: { current: 960, limit: 1_000 } }, "PID_PRESSURE")).toMatchObject({
      isShort: true,
      evidence: "4 % of process ids are free; the threshold is 5 %",
    });
    expect(measured({ pids: { current: 1_100, limit: 1_000 } }, "PID_PRESSURE")?.isShort).toBe(true);
  });

  test("is stalled when all tasks wait for memory or disks, or some for a CPU for nearly all of the time", () => {
    const memoryStalls = { memory: { some: stall(90), full: stall(61) } };
    expect(measured({ pressure: memoryStalls }, "STALLED")).toMatchObject({
      isShort: true,
      evidence: "all tasks waited for memory for 61 % of the last 10 s; the threshold is 60 %",
    });
    const busy = { cpu: { some: stall(80) }, memory: { some: stall(90), full: stall(10) } };
    expect(measured({ pressure: busy }, "STALLED")).toMatchObject({ isShort: false, isRelieved: false });
    const idle = { cpu: { some: stall(60) }, memory: { some: stall(0), full: stall(40) } };
    expect(measured({ pressure: idle }, "STALLED")).toMatchObject({ isShort: false, isRelieved: true });
  });

  test("with a threshold of nothing has no such condition", () => {
    const off = { ...thresholds, memoryAvailable: 0, diskAvailablePercent: 0, stalledPercent: 100 };
    expect(measured(memory(0), "MEMORY_PRESSURE", off)).toBeUndefined();
    expect(measured({ disks: [disk("/a", 0)] }, "DISK_PRESSURE", off)).toBeUndefined();
    const stalled = { pressure: { memory: { some: stall(99), full: stall(99) } } };
    expect(measured(stalled, "STALLED", off)).toBeUndefined();
  });
});

describe("a condition", () => {
  const short = { isShort: true, isRelieved: false };
  const between = { isShort: false, isRelieved: false };
  const relieved = { isShort: false, isRelieved: true };
  const rules = { samples: 3, minimumTimeMs: 60_000 };
  const ended: Course = { active: false, sinceMs: 0, streak: 0 };

  /** One sample a second. */
  function run(samples: readonly (typeof short)[], from = ended): readonly Course[] {
    let course = from;
    return samples.map((sample, index) => {
      course = follow(course, sample, rules, (index + 1) * 1_000);
      return course;
    });
  }
  const activity = (samples: readonly (typeof short)[], from = ended) =>
    run(samples, from).map(({ active }) => active);

  test("begins with the third sample in a row", () => {
    expect(activity([short, short, short])).toEqual([false, false, true]);
    expect(activity([short, short, between, short, short, short])).toEqual([
      false,
      false,
      false,
      false,
      false,
      true,
    ]);
  });

  test("does not end between the thresholds, however long", () => {
    const active = { active: true, sinceMs: -1e9, streak: 0 };
    expect(new Set(activity(Array(100).fill(between), active))).toEqual(new Set([true]));
  });

  test("ends beyond the second threshold, after its minimum time", () => {
    const old = { active: true, sinceMs: -60_000, streak: 0 };
    expect(activity([relieved, relieved, relieved], old)).toEqual([true, true, false]);
    const young = { active: true, sinceMs: 0, streak: 0 };
    const course = activity(Array(61).fill(relieved), young);
    expect(course.indexOf(false)).toBe(59);
  });

  test("whatever the samples: it changes only for what so many in a row say, and lasts its minimum time", () => {
    const sample = fc.constantFrom(short, between, relieved);
    fc.assert(
      fc.property(fc.array(sample, { maxLength: 300 }), (samples) => {
        const courses = run(samples);
        let began = 0;
        for (const [index, course] of courses.entries()) {
          const before = courses[index - 1] ?? ended;
          if (course.active === before.active) continue;
          const last = samples.slice(index - rules.samples + 1, index + 1);
          expect(last).toEqual(Array(rules.samples).fill(course.active ? short : relieved));
          if (course.active) began = index;
          else expect((index - began) * 1_000).toBeGreaterThanOrEqual(rules.minimumTimeMs);
        }
      }),
    );
  });
});
