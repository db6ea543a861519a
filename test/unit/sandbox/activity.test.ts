import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { SandboxSample } from "../../../src/monitor/sample.ts";
import type { TickListener } from "../../../src/monitor/sampler-loop.ts";
import { createActivity } from "../../../src/sandbox/activity.ts";
import type { SandboxRecord } from "../../../src/sandbox/record.ts";
import { recordOf } from "./fixture.ts";

const idleTimeoutMs = 10_000;
const idler = (change: Partial<SandboxRecord> = {}) =>
  recordOf({
    spec: { ...recordOf().spec, lifetime: { ...recordOf().spec.lifetime, idleTimeoutMs } },
    ...change,
  });

/** A sandbox whose use is as the test says, looked at once a second. */
function observed(record: SandboxRecord = idler()) {
  const records = new Map([[record.id, record]]);
  const listeners = new Set<TickListener>();
  const followers = new Set<(id: string) => void>();
  const kicked: string[] = [];
  let nowMs = 1_000_000;
  let usageUsec = 0;
  let processes = 2;
  let isSeen = true;
  const sample = () =>
    ({ monotonicMs: nowMs, cpu: { usageUsec }, pids: { current: processes } }) as SandboxSample;
  const activity = createActivity({
    repository: {
      all: () => [...records.values()],
      get: (id) => records.get(id),
      subscribe(listener) {
        followers.add(listener);
        return () => void followers.delete(listener);
      },
    },
    sampler: {
      subscribe(listener) {
        listeners.add(listener);
        return () => void listeners.delete(listener);
      },
      sampleNow: sample,
    },
    clock: { nowMs: () => nowMs, wallMs: (steadyMs) => steadyMs },
    kick: (id) => void kicked.push(id),
  });
  return {
    activity,
    kicked,
    listeners,
    followers,
    idleMs: () => {
      const since = activity.idleSinceMs(record.id);
      return since === undefined ? undefined : nowMs - since;
    },
    /** Lets time pass in which it uses so much CPU. */
    pass(ms: number, cpuMillis = 0) {
      nowMs += ms;
      usageUsec += ms * cpuMillis;
    },
    /** Lets seconds pass, with a sample at the end of each. */
    tick(seconds = 1, cpuMillis = 0) {
      for (let second = 0; second < seconds; second++) {
        this.pass(1_000, cpuMillis);
        this.sample();
      }
    },
    sample() {
      const samples = new Map(isSeen ? [[record.id, sample()]] : []);
      for (const listener of listeners) listener({ monotonicMs: nowMs, samples, ended: [] });
    },
    setProcesses: (count: number) => {
      processes = count;
    },
    setSeen: (seen: boolean) => {
      isSeen = seen;
    },
    change(changed: Partial<SandboxRecord>) {
      records.set(record.id, idler(changed));
      for (const follower of followers) follower(record.id);
    },
  };
}

test("what does nothing is idle since it was first looked at, and kicked when its time is over", () => {
  const one = observed();
  one.tick(10);
  expect(one.kicked).toEqual([]);
  expect(one.idleMs()).toBeGreaterThanOrEqual(9_000);
  one.tick();
  expect(one.idleMs()).toBeGreaterThanOrEqual(10_000);
  expect(one.kicked).toEqual(["one"]);
});

test("what was kicked in vain is kicked again", () => {
  const one = observed();
  one.tick(13);
  expect(one.kicked.length).toBeGreaterThan(1);
});

test("CPU use above the threshold is activity, up to it is none", () => {
  const one = observed();
  one.tick(5, 10);
  expect(one.idleMs()).toBeGreaterThanOrEqual(4_000);
  one.tick(1, 11);
  expect(one.idleMs()).toBe(0);
});

test("a rise of the number of processes is activity, a fall is none", () => {
  const one = observed();
  one.tick(5);
  one.setProcesses(3);
  one.tick();
  expect(one.idleMs()).toBe(0);
  one.setProcesses(2);
  one.tick(3);
  expect(one.idleMs()).toBe(3_000);
});

test("who is attached keeps it active, until the last one leaves, once each", () => {
  const one = observed();
  const [leave, leaveToo] = [one.activity.attach("one"), one.activity.attach("one")];
  one.tick(20);
  expect([one.idleMs(), one.kicked]).toEqual([0, []]);
  leave();
  leave();
  one.tick(20);
  expect([one.idleMs(), one.kicked]).toEqual([0, []]);
  leaveToo();
  one.tick(3);
  expect(one.idleMs()).toBe(3_000);
});

test("who attached before it ran counts too", () => {
  const one = observed(idler({ state: "CREATING" }));
  one.activity.attach("one");
  one.change({ state: "RUNNING" });
  one.tick(20);
  expect([one.idleMs(), one.kicked]).toEqual([0, []]);
});

describe("of a sandbox", () => {
  test("without an idle_timeout, or that does not run, nothing is known", () => {
    const without = observed(recordOf());
    without.tick(20);
    expect([without.idleMs(), without.kicked]).toEqual([undefined, []]);
    const paused = observed(idler({ state: "PAUSED" }));
    paused.tick(20);
    expect([paused.idleMs(), paused.kicked]).toEqual([undefined, []]);
  });

  test("that is resumed or started again, it counts anew", () => {
    const one = observed();
    one.tick(8);
    one.change({ state: "PAUSED" });
    one.change({ state: "RUNNING" });
    expect(one.idleMs()).toBe(0);
  });

  test("whose event tells something else, it goes on counting", () => {
    const one = observed();
    one.tick(8);
    one.change({ state: "RUNNING", generation: 2 });
    expect(one.idleMs()).toBeGreaterThanOrEqual(7_000);
  });
});

describe("what is not seen", () => {
  test("is not idle: a sandbox without samples", () => {
    const one = observed();
    one.setSeen(false);
    one.tick(100);
    expect([one.idleMs(), one.kicked]).toEqual([0, []]);
  });

  test("is not idle: the time in which the daemon did not look", () => {
    const one = observed();
    one.tick(3);
    one.pass(3_600_000);
    expect(one.idleMs()).toBeLessThanOrEqual(3_000);
  });
});

describe("what is done to it by others", () => {
  /** A probe that takes so long and uses so much, in the middle of a second. */
  async function probe(one: ReturnType<typeof observed>, ms: number, cpuMillis: number): Promise<void> {
    await one.activity.unobserved("one", async () => {
      one.setProcesses(4);
      one.pass(ms, cpuMillis);
      one.sample();
      one.setProcesses(2);
    });
  }

  test("is no activity, however often", async () => {
    const one = observed();
    for (let round = 0; round < 12; round++) {
      one.pass(600);
      await probe(one, 300, 1_000);
      one.pass(100);
      one.sample();
    }
    expect(one.idleMs()).toBeGreaterThanOrEqual(10_000);
    expect(one.kicked).not.toEqual([]);
  });

  test("does not hide that it works", async () => {
    const one = observed();
    for (let round = 0; round < 12; round++) {
      one.pass(600, 50);
      await probe(one, 300, 1_000);
      one.pass(100, 50);
      one.sample();
    }
    expect(one.idleMs()).toBeLessThanOrEqual(1_000);
    expect(one.kicked).toEqual([]);
  });

  test("ends as it may, and then counts no more", async () => {
    const one = observed();
    await expect(one.activity.unobserved("one", () => Promise.reject(new Error("own")))).rejects.toThrow(
      "own",
    );
    one.tick(1, 0);
    one.tick(1, 50);
    expect(one.idleMs()).toBe(0);
  });

  test("is done too where idleness does not matter", async () => {
    expect(await observed(recordOf()).activity.unobserved("one", async () => 7)).toBe(7);
  });
});

test("it is never idle for longer than since it last used more than it may", () => {
  const second = fc.record({ cpuMillis: fc.constantFrom(0, 5, 10, 11, 500), probed: fc.boolean() });
  return fc.assert(
    fc.asyncProperty(fc.array(second, { maxLength: 40 }), async (seconds) => {
      const one = observed();
      one.sample();
      let quietMs = 0;
      for (const { cpuMillis, probed } of seconds) {
        one.pass(500, cpuMillis);
        if (probed) await one.activity.unobserved("one", async () => one.pass(200, 2_000));
        else one.pass(200, cpuMillis);
        one.pass(300, cpuMillis);
        one.sample();
        quietMs = cpuMillis > 10 ? 0 : quietMs + 1_000;
        expect(one.idleMs()).toBe(quietMs);
      }
    }),
  );
});

test("closing leaves nobody subscribed", () => {
  const one = observed();
  one.activity.close();
  expect([one.listeners.size, one.followers.size]).toEqual([0, 0]);
});
