import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { type Capacity, hostViolations, promised, refuseIfAny } from "../../../src/sandbox/admission.ts";
import type { Resources, SandboxRecord } from "../../../src/sandbox/record.ts";
import { anyResources, recordOf, resources, states } from "./fixture.ts";

const amounts = { cpuMillis: 1_000, memoryBytes: 1_000, pids: 100, sandboxes: 3 };
const host: Capacity = {
  capacity: { ...amounts, cpuMillis: 4_000 },
  allocatable: amounts,
  cpuOvercommit: 4,
  memoryOvercommit: 1.5,
};

const nothing = promised([]);
const small: Resources = {
  ...resources,
  cpuMillis: 100,
  cpuRequestMillis: 100,
  memoryBytes: 100,
  memoryRequestBytes: 100,
  pids: 10,
};

const holding = (id: string, change: Partial<Resources> = {}, more: Partial<SandboxRecord> = {}) =>
  recordOf({ id, ...more, spec: { ...recordOf().spec, resources: { ...small, ...change } } });

/** The refusal, or undefined if it is admitted. */
function refusal(asked: Resources, records: readonly SandboxRecord[] = []): SandboxdError | undefined {
  try {
    refuseIfAny(hostViolations(asked, promised(records), host), "acme");
    return undefined;
  } catch (error) {
    if (error instanceof SandboxdError) return error;
    throw error;
  }
}

test("what is promised is the sum of requests and limits over the sandboxes that hold capacity", () => {
  const records = [
    holding("a", { cpuMillis: 300, memoryBytes: 200 }),
    holding("b", { cpuRequestMillis: 50, memoryRequestBytes: 20, pids: 7 }),
    holding("c", {}, { state: "STOPPED", wanted: "STOPPED" }),
  ];
  expect(promised(records)).toEqual({
    requests: { cpuMillis: 150, memoryBytes: 120, pids: 17, sandboxes: 2 },
    limits: { cpuMillis: 400, memoryBytes: 300, pids: 17, sandboxes: 2 },
  });
  expect(nothing.limits).toEqual({ cpuMillis: 0, memoryBytes: 0, pids: 0, sandboxes: 0 });
});

test("a sandbox holds capacity unless it rests and is not wanted to run", () => {
  for (const wanted of ["RUNNING", "STOPPED", "DELETED"] as const) {
    for (const state of states) {
      const isAtRest = wanted !== "RUNNING" && (state === "STOPPED" || state === "FAILED");
      expect(promised([holding("a", {}, { wanted, state })]).requests.sandboxes).toBe(isAtRest ? 0 : 1);
    }
  }
});

describe("a refusal names the resource, what was asked and what is free:", () => {
  test.each<[string, Partial<Resources>, readonly object[]]>([
    [
      "CPU requests",
      { cpuMillis: 901, cpuRequestMillis: 901 },
      [{ resource: "cpu_millis", limit: 1_000, promised: 100, asked: 901, free: 900 }],
    ],
    [
      "CPU limits, overcommitted",
      { cpuMillis: 3_901, cpuRequestMillis: 0 },
      [{ resource: "cpu_millis", limit: 4_000, promised: 100, asked: 3_901, free: 3_900 }],
    ],
    [
      "a CPU limit beyond the machine itself",
      { cpuMillis: 4_001, cpuRequestMillis: 0 },
      [{ resource: "cpu_millis", limit: 4_000, promised: 0, asked: 4_001, free: 4_000 }],
    ],
    [
      "a resource once, though both request and limit don't fit",
      { cpuMillis: 3_901, cpuRequestMillis: 901, memoryBytes: 1_401, memoryRequestBytes: 901 },
      [
        { resource: "cpu_millis", limit: 1_000, asked: 901 },
        { resource: "memory_bytes", limit: 1_000, asked: 901 },
      ],
    ],
    [
      "memory requests",
      { memoryBytes: 901, memoryRequestBytes: 901 },
      [{ resource: "memory_bytes", limit: 1_000, promised: 100, asked: 901, free: 900 }],
    ],
    [
      "memory limits, overcommitted",
      { memoryBytes: 1_401, memoryRequestBytes: 0 },
      [{ resource: "memory_bytes", limit: 1_500, promised: 100, asked: 1_401, free: 1_400 }],
    ],
    ["processes", { pids: 91 }, [{ resource: "pids", limit: 100, promised: 10, asked: 91, free: 90 }]],
    [
      "several at once",
      { cpuRequestMillis: 901, pids: 91 },
      [
        { resource: "cpu_millis", asked: 901, free: 900 },
        { resource: "pids", asked: 91, free: 90 },
      ],
    ],
  ])("%s", (_, change, quotas) => {
    const error = refusal({ ...small, ...change }, [holding("a")]);
    expect(error).toMatchObject({
      reason: "HOST_CAPACITY_EXCEEDED",
      details: { quotas, retryDelayMs: 10_000 },
    });
    for (const quota of error?.details.quotas ?? []) {
      expect(error?.message).toContain(
        `${quota.resource}: asked ${quota.asked}, free ${quota.free} of ${quota.limit}`,
      );
    }
  });

  test("the number of sandboxes", () => {
    const none = { cpuMillis: 0, cpuRequestMillis: 0, memoryBytes: 0, memoryRequestBytes: 0, pids: 0 };
    const records = ["a", "b", "c"].map((id) => holding(id, none));
    expect(refusal(small, records)?.details.quotas).toEqual([
      { level: "HOST", resource: "sandboxes", limit: 3, promised: 3, asked: 1, free: 0 },
    ]);
    expect(refusal(small, records.slice(1))).toBeUndefined();
  });
});

test("the last bit of each resource can be had", () => {
  const rest = {
    cpuMillis: 3_900,
    cpuRequestMillis: 900,
    memoryBytes: 1_400,
    memoryRequestBytes: 900,
    pids: 90,
  };
  expect(refusal({ ...small, ...rest }, [holding("a")])).toBeUndefined();
});

test("free is never below zero, even where more is promised than there is", () => {
  const error = refusal(small, [holding("a", { pids: 150 })]);
  expect(error?.details.quotas).toMatchObject([{ resource: "pids", promised: 150, free: 0 }]);
});

test("what a sandbox holds already is not refused, also where less than that would be left", () => {
  const crowded = promised([holding("a", { pids: 150, memoryRequestBytes: 1_000 })]);
  expect(hostViolations(small, crowded, host, small)).toEqual([]);
  expect(hostViolations({ ...small, pids: 11 }, crowded, host, small)).toMatchObject([
    { resource: "pids", asked: 11, free: 0 },
  ]);
});

test("whatever is asked in whatever order, what is admitted never exceeds the host", () => {
  const anyHost = fc
    .record({
      cpuMillis: fc.nat(16_000),
      memoryBytes: fc.nat(2 ** 34),
      pids: fc.nat(10_000),
      sandboxes: fc.nat(10),
      cpuOvercommit: fc.double({ min: 1, max: 100, noNaN: true }),
      memoryOvercommit: fc.double({ min: 1, max: 10, noNaN: true }),
    })
    .map(({ cpuOvercommit, memoryOvercommit, ...allocatable }) => ({
      capacity: allocatable,
      allocatable,
      cpuOvercommit,
      memoryOvercommit,
    }));
  fc.assert(
    fc.property(anyHost, fc.array(anyResources, { maxLength: 20 }), (capacity, asks) => {
      const admitted: SandboxRecord[] = [];
      for (const [index, asked] of asks.entries()) {
        try {
          refuseIfAny(hostViolations(asked, promised(admitted), capacity), "acme");
          admitted.push(holding(`s${index}`, asked));
        } catch (error) {
          expect(error).toMatchObject({ reason: "HOST_CAPACITY_EXCEEDED" });
          const quotas = (error as SandboxdError).details.quotas ?? [];
          expect(quotas.length).toBeGreaterThan(0);
          for (const quota of quotas) expect(quota.asked).toBeGreaterThan(quota.free);
        }
      }
      const { requests, limits } = promised(admitted);
      const { allocatable } = capacity;
      expect(requests.cpuMillis).toBeLessThanOrEqual(allocatable.cpuMillis);
      expect(requests.memoryBytes).toBeLessThanOrEqual(allocatable.memoryBytes);
      expect(limits.cpuMillis).toBeLessThanOrEqual(allocatable.cpuMillis * capacity.cpuOvercommit);
      expect(limits.memoryBytes).toBeLessThanOrEqual(allocatable.memoryBytes * capacity.memoryOvercommit);
      expect(limits.pids).toBeLessThanOrEqual(allocatable.pids);
      expect(requests.sandboxes).toBeLessThanOrEqual(allocatable.sandboxes);
    }),
  );
});
