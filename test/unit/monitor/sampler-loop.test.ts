import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createSampler, type Sampler, type Tick } from "../../../src/monitor/sampler-loop.ts";
import { type CgroupTree, openDescriptors, v2Tree } from "./cgroup-tree.ts";

let trees: CgroupTree[];
let errors: unknown[];
let sampler: Sampler & Disposable;

beforeEach(() => {
  vi.useFakeTimers();
  trees = [];
  errors = [];
  sampler = disposable(
    createSampler({ intervalMs: 1000, historySize: 10, onError: (error) => errors.push(error) }),
  );
});

afterEach(() => {
  sampler.close();
  for (const tree of trees) {
    tree.remove();
  }
  vi.useRealTimers();
});

function disposable(made: Sampler): Sampler & Disposable {
  return { ...made, [Symbol.dispose]: made.close };
}

function start(id: string, on = sampler): CgroupTree {
  const tree = v2Tree();
  trees.push(tree);
  on.add(id, { cgroup: tree.cgroup, hasNetwork: false });
  return tree;
}

function listen(on = sampler): Tick[] {
  const ticks: Tick[] = [];
  on.subscribe((tick) => ticks.push(tick));
  return ticks;
}

/** How many samples the history has. */
const kept = (id: string): number => sampler.history(id)?.summary(0)?.samples ?? 0;

describe("the sampler", () => {
  it("has a sample as soon as a sandbox is added, and one more each interval", () => {
    start("box");
    expect(kept("box")).toBe(1);
    vi.advanceTimersByTime(3000);
    expect(kept("box")).toBe(4);
    expect(sampler.history("box")?.summary(0)?.toMonotonicMs).toBe(sampler.latest("box")?.monotonicMs);
  });

  it("gives every listener the same round with all sandboxes", () => {
    start("one");
    start("two");
    const [first, second] = [listen(), listen()];
    vi.advanceTimersByTime(1000);
    expect([...(first[0]?.samples.keys() ?? [])]).toEqual(["one", "two"]);
    expect(second).toEqual(first);
  });

  it("stops calling a listener that unsubscribed, and only that one", () => {
    const heard: string[] = [];
    const stop = sampler.subscribe(() => heard.push("first"));
    sampler.subscribe(() => heard.push("second"));
    vi.advanceTimersByTime(1000);
    stop();
    stop();
    vi.advanceTimersByTime(1000);
    expect(heard).toEqual(["first", "second", "second"]);
  });

  it("reports a listener that throws and goes on telling the others", () => {
    sampler.subscribe(() => {
      throw new Error("listener broke");
    });
    const ticks = listen();
    vi.advanceTimersByTime(2000);
    expect(ticks).toHaveLength(2);
    expect(errors).toHaveLength(2);
  });

  it("tells once that a sandbox ended and keeps its history until it is removed", () => {
    const tree = start("box");
    const ticks = listen();
    vi.advanceTimersByTime(1000);
    tree.write("cpu.stat", "");
    vi.advanceTimersByTime(3000);
    expect(ticks.map(({ ended }) => ended)).toEqual([[], ["box"], [], []]);
    expect(sampler.latest("box")).toBeDefined();
    expect(sampler.counters().sandboxes).toBe(0);
    expect(kept("box")).toBe(2);
    sampler.remove("box");
    expect(sampler.latest("box")).toBeUndefined();
    expect(sampler.history("box")).toBeUndefined();
  });

  it("tells of an end that was found out of turn in the next round", () => {
    const tree = start("box");
    const ticks = listen();
    tree.write("cpu.stat", "");
    expect(sampler.sampleNow("box")).toBeUndefined();
    vi.advanceTimersByTime(1000);
    expect(ticks[0]?.ended).toEqual(["box"]);
  });

  it("does not know a sandbox whose cgroup was gone when it was added", () => {
    const tree = v2Tree();
    tree.remove();
    expect(sampler.add("box", { cgroup: tree.cgroup, hasNetwork: false })).toBeUndefined();
    expect(sampler.history("box")).toBeUndefined();
    expect(sampler.counters().sandboxes).toBe(0);
  });

  it("goes on with the history of a sandbox that is started again", () => {
    start("box").write("cpu.stat", "");
    vi.advanceTimersByTime(1000);
    const before = kept("box");
    start("box");
    expect(kept("box")).toBe(before + 1);
    expect(sampler.counters().sandboxes).toBe(1);
    const ticks = listen();
    vi.advanceTimersByTime(1000);
    expect(ticks[0]?.ended).toEqual([]);
    expect(ticks[0]?.samples.has("box")).toBe(true);
  });

  it("uses a sample taken shortly before a round instead of reading again", () => {
    start("box");
    vi.advanceTimersByTime(900);
    const fresh = sampler.sampleNow("box");
    const ticks = listen();
    vi.advanceTimersByTime(100);
    expect(ticks[0]?.samples.get("box")).toBe(fresh);
  });

  it("keeps its history when somebody asks for samples again and again", () => {
    start("box");
    for (let i = 0; i < 300; i++) {
      vi.advanceTimersByTime(10);
      sampler.sampleNow("box");
    }
    expect(kept("box")).toBeGreaterThanOrEqual(4);
    expect(kept("box")).toBeLessThanOrEqual(7);
  });

  it("changes its pace at once, in both directions", () => {
    const ticks = listen();
    vi.advanceTimersByTime(1500);
    sampler.setIntervalMs(100);
    vi.advanceTimersByTime(1000);
    expect(ticks).toHaveLength(12);
    sampler.setIntervalMs(10_000);
    vi.advanceTimersByTime(9000);
    expect(ticks).toHaveLength(12);
    vi.advanceTimersByTime(1000);
    expect(ticks).toHaveLength(13);
    expect(sampler.counters().skippedTicks).toBe(0);
  });

  it.each([0, 9, -1, Number.NaN, Number.POSITIVE_INFINITY])("refuses an interval of %s ms", (intervalMs) => {
    expect(() => sampler.setIntervalMs(intervalMs)).toThrow(RangeError);
  });

  it("closes every descriptor and stops its timer", () => {
    const descriptors = openDescriptors();
    start("one");
    start("two");
    expect(openDescriptors()).toBeGreaterThan(descriptors);
    const ticks = listen();
    sampler.close();
    sampler.close();
    expect(openDescriptors()).toBe(descriptors);
    expect(vi.getTimerCount()).toBe(0);
    vi.advanceTimersByTime(5000);
    expect(ticks).toEqual([]);
    expect(() => start("three")).toThrow("closed");
  });
});

describe("a sampler with much to do", () => {
  /** A clock on which every look at the time takes a while, as if each sandbox were slow to read. */
  function slowClock(stepMs: number) {
    let now = 0;
    return { monotonicMs: () => (now += stepMs), wallMs: () => now };
  }

  it("lets others run between slices of a round, and tells the round once", () => {
    using slow = disposable(
      createSampler({ intervalMs: 1000, clock: slowClock(3), onError: (error) => errors.push(error) }),
    );
    for (let i = 0; i < 10; i++) {
      start(`box${i}`, slow);
    }
    const ticks = listen(slow);
    vi.advanceTimersToNextTimer();
    expect(ticks).toEqual([]);
    let slices = 1;
    while (ticks.length === 0) {
      vi.advanceTimersToNextTimer();
      slices++;
    }
    expect(slices).toBeGreaterThan(2);
    expect(ticks[0]?.samples.size).toBe(10);
  });

  it("leaves out the rounds that it came too late for, and counts them", () => {
    let now = 0;
    const clock = { monotonicMs: () => now, wallMs: () => now };
    using late = disposable(
      createSampler({ intervalMs: 1000, clock, onError: (error) => errors.push(error) }),
    );
    const ticks = listen(late);
    now = 5300;
    vi.advanceTimersToNextTimer();
    expect(ticks).toHaveLength(1);
    expect(late.counters()).toMatchObject({ ticks: 1, skippedTicks: 4 });
    now = 6000;
    vi.advanceTimersByTime(700);
    expect(late.counters()).toMatchObject({ ticks: 2, skippedTicks: 4 });
  });

  it("survives being closed in the middle of a round", () => {
    using slow = disposable(
      createSampler({ intervalMs: 1000, clock: slowClock(5), onError: (error) => errors.push(error) }),
    );
    for (let i = 0; i < 10; i++) {
      start(`box${i}`, slow);
    }
    const ticks = listen(slow);
    vi.advanceTimersToNextTimer();
    slow.close();
    vi.advanceTimersByTime(5000);
    expect(ticks).toEqual([]);
    expect(errors).toEqual([]);
  });
});
