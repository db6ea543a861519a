import { describe, expect, test } from "vitest";
import { clockChange, lookAtClock } from "../../../src/host/clock-change.ts";
import { createHost } from "../../../src/host/host.ts";
import { createPressureWatch } from "../../../src/host/pressure-watch.ts";
import type { HostSample } from "../../../src/monitor/host-sampler.ts";
import { createRepository } from "../../../src/sandbox/repository.ts";
import { configOf } from "../config/fixture.ts";
import { temporaryStore } from "../sandbox/fixture.ts";
import { sampleOf, silentLog } from "./fixture.ts";

const amounts = { cpuMillis: 1, memoryBytes: 1, pids: 1, sandboxes: 1 };

function watchOf(toml = "[pressure]\nsamples = 1\nminimum_time = '0s'") {
  const store = temporaryStore();
  const host = createHost({
    hostId: "h",
    bootId: "b",
    labels: {},
    cgroupParent: "/sandboxd",
    capacity: { capacity: amounts, allocatable: amounts, cpuOvercommit: 1, memoryOvercommit: 1 },
    store,
    repository: createRepository(store),
    log: silentLog,
  });
  const description = {
    version: "20.10",
    apiVersion: "1.41",
    cgroupVersion: 2,
    cgroupDriver: "systemd",
    storageDriver: "overlay2",
    runtimes: [],
    dataRoot: "/var/lib/docker",
  } as const;
  host.engineIs({ problem: undefined, message: "", hint: "", engine: description });
  let nowMs = 0;
  let setByMs = 0;
  const watch = createPressureWatch({
    host,
    thresholds: configOf(toml).pressure,
    clock: { nowMs: () => nowMs, wallMs: (ms) => ms },
    wallClockMs: () => nowMs + setByMs,
  });
  return {
    host,
    watch,
    pass(ms: number, change: Partial<HostSample> = {}) {
      nowMs += ms;
      watch.look(sampleOf(change));
      return host
        .conditions()
        .filter(({ active }) => active)
        .map(({ type }) => type);
    },
    setClock: (byMs: number) => {
      setByMs += byMs;
    },
    async told() {
      await store.durable();
      return store.events
        .readAfter(0, 100)
        .map(({ document }) => JSON.parse(document).condition)
        .map(({ type, active }) => `${type} ${active ? "began" : "ended"}`);
    },
  };
}

const noMemory = {
  memory: { totalBytes: 2 ** 33, availableBytes: 2 ** 20, swapTotalBytes: 0, swapFreeBytes: 0 },
};
const noPids = { pids: { current: 990, limit: 1_000 } };

describe("under pressure", () => {
  test("new sandboxes are refused with the condition, until it has ended", async () => {
    const { host, watch, pass, told } = watchOf();
    expect(pass(1_000)).toEqual([]);
    expect(() => watch.assertNone()).not.toThrow();
    expect(pass(1_000, noMemory)).toEqual(["MEMORY_PRESSURE"]);
    expect(host.accepting()).toBe(false);
    expect(host.isUsable(), "reads and what runs go on").toBe(true);
    expect(() => watch.assertNone()).toThrow(
      expect.objectContaining({
        reason: "HOST_PRESSURE",
        message:
          "the host takes no new sandboxes, it has MEMORY_PRESSURE: 1MiB of memory are available; the threshold is 100MiB",
        details: expect.objectContaining({
          metadata: { condition: "MEMORY_PRESSURE" },
          retryDelayMs: expect.any(Number),
        }),
      }),
    );
    expect(pass(1_000)).toEqual([]);
    expect(host.accepting()).toBe(true);
    expect(() => watch.assertNone()).not.toThrow();
    expect(await told()).toEqual(["MEMORY_PRESSURE began", "MEMORY_PRESSURE ended"]);
  });

  test("of another kind each condition is told by itself, and the first is the refusal's", () => {
    const { watch, pass } = watchOf();
    expect(pass(1_000, { ...noMemory, ...noPids })).toEqual(["MEMORY_PRESSURE", "PID_PRESSURE"]);
    expect(pass(1_000, noPids)).toEqual(["PID_PRESSURE"]);
    expect(() => watch.assertNone()).toThrow(
      expect.objectContaining({
        details: expect.objectContaining({ metadata: { condition: "PID_PRESSURE" } }),
      }),
    );
  });

  test("a host that stalls is told as that, and takes sandboxes", () => {
    const full = { avg10: 99, avg60: 0, totalUsec: 0 };
    const { host, watch, pass } = watchOf();
    expect(pass(1_000, { pressure: { io: { some: full, full } } })).toEqual(["STALLED"]);
    expect(host.accepting()).toBe(true);
    expect(() => watch.assertNone()).not.toThrow();
  });

  test("what a sample does not tell changes nothing", () => {
    const disks = [
      {
        path: "/a",
        space: { totalBytes: 100, availableBytes: 1, totalInodes: 0, availableInodes: 0, monotonicMs: 0 },
      },
    ];
    const { pass } = watchOf();
    expect(pass(1_000, { disks })).toEqual(["DISK_PRESSURE"]);
    expect(pass(1_000, { disks: [{ path: "/a", problem: "no answer" }] })).toEqual(["DISK_PRESSURE"]);
  });
});

describe("the wall clock", () => {
  test.each([
    ["forward", 3_600_000, "the wall clock was set forward by 3600 s"],
    ["back", -3_600_000, "the wall clock was set back by 3600 s"],
  ])("that was set %s is told for ten minutes", (_, byMs, message) => {
    const { host, pass, setClock } = watchOf();
    expect(pass(1_000)).toEqual([]);
    setClock(byMs);
    expect(pass(1_000)).toEqual(["CLOCK_CHANGED"]);
    expect(host.conditions().find(({ type }) => type === "CLOCK_CHANGED")?.message).toBe(message);
    expect(host.accepting(), "it is told only").toBe(true);
    expect(pass(599_000)).toEqual(["CLOCK_CHANGED"]);
    expect(pass(1_000)).toEqual([]);
  });

  test("that is slewed, or looked at late, was not set", () => {
    const { pass, setClock } = watchOf();
    pass(1_000);
    for (let look = 0; look < 100; look++) {
      setClock(500);
      expect(pass(1_000)).toEqual([]);
    }
    expect(pass(3_600_000)).toEqual([]);
  });

  test("that is set again is told anew from then on", () => {
    const first = lookAtClock(undefined, 0, 0);
    const set = lookAtClock(first, 60_000, 1_000);
    const again = lookAtClock(set, 1_200_000, 300_000);
    expect(clockChange(set, 601_000)).toBeUndefined();
    expect(clockChange(again, 899_999)).toMatch(/forward by 841 s/);
    expect(clockChange(again, 900_000)).toBeUndefined();
  });
});
