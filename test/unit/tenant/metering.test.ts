import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { SandboxSample } from "../../../src/monitor/sample.ts";
import type { TickListener } from "../../../src/monitor/sampler-loop.ts";
import { createLog } from "../../../src/observe/log.ts";
import { createRepository } from "../../../src/sandbox/repository.ts";
import type { Store } from "../../../src/store/store.ts";
import { createMetering } from "../../../src/tenant/metering.ts";
import { recordOf, temporaryStore } from "../sandbox/fixture.ts";

const running = recordOf({ startedAtMs: 1_000 });

function sampleOf(cpuUsageUsec: number, usageBytes = 1_000, writeBytes = 0): SandboxSample {
  return {
    wallMs: Date.now(),
    cpu: { usageUsec: cpuUsageUsec },
    memory: { usageBytes },
    blockIo: { readBytes: 0, writeBytes },
  } as SandboxSample;
}

/** A life of the daemon over a store; another over the same store is the next. */
function metered(store: Store = temporaryStore(), time = { ms: 0 }) {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
  onTestFinished(() => void vi.useRealTimers());
  const repository = createRepository(store);
  const listeners = new Set<TickListener>();
  const tenants = new Set(["acme"]);
  const metering = createMetering({
    store,
    repository,
    sampler: {
      subscribe(listener) {
        listeners.add(listener);
        return () => void listeners.delete(listener);
      },
    },
    clock: { nowMs: () => time.ms, wallMs: (ms) => ms },
    isTenant: (name) => tenants.has(name),
    log: createLog({ level: "fatal" }),
  });
  onTestFinished(() => metering.close());
  return {
    metering,
    store,
    repository,
    time,
    tenants,
    /** A second passes, and the sandbox is seen like this. */
    tick(sample: SandboxSample, id = "one") {
      time.ms += 1_000;
      for (const listener of listeners) {
        listener({ monotonicMs: time.ms, samples: new Map([[id, sample]]), ended: [] });
      }
    },
    async write() {
      vi.advanceTimersByTime(10_000);
      await store.durable();
      await Promise.resolve();
    },
  };
}

test("is told once it is on disk: CPU, memory times time, bytes and the time it ran", async () => {
  const { metering, repository, tick, write } = metered();
  repository.insert(running);
  tick(sampleOf(500, 1_000, 10));
  tick(sampleOf(700, 3_000, 50));
  expect(metering.ofSandbox(running)).toBeUndefined();
  await write();
  const sum = {
    cpuUsageUsec: 700,
    memoryByteSeconds: 3_000,
    blockReadBytes: 0,
    blockWriteBytes: 50,
    runningMs: 1_000,
  };
  expect(metering.ofSandbox(running)).toMatchObject(sum);
  expect(metering.ofTenant("acme")).toMatchObject(sum);
  expect([...metering.ofTenants().keys()]).toEqual(["acme"]);
});

test("goes on over runs, whose counters begin anew, also where the new one is ahead of the old", async () => {
  const { metering, repository, tick, write } = metered();
  repository.insert(running);
  tick(sampleOf(500));
  const again = { ...running, startedAtMs: 9_000 };
  repository.put(again, "SANDBOX_STATE_CHANGED");
  tick(sampleOf(600));
  tick(sampleOf(900));
  await write();
  expect(metering.ofSandbox(again)).toMatchObject({ cpuUsageUsec: 1_400, runningMs: 1_000 });
});

describe("the next life of the daemon", () => {
  test("never tells less, and makes up for what the kernel still knows", async () => {
    const { metering, store, repository, time, tick, write } = metered();
    repository.insert(running);
    tick(sampleOf(500));
    await write();
    tick(sampleOf(800));
    const before = metering.ofSandbox(running);
    // killed: nothing is written at its end
    const next = metered(store, time);
    expect(next.metering.ofSandbox(running)).toEqual(before);
    time.ms += 60_000;
    next.tick(sampleOf(2_000, 10));
    await next.write();
    expect(next.metering.ofSandbox(running)).toMatchObject({ cpuUsageUsec: 2_000, runningMs: 62_000 });
  });

  test("has all of it after an orderly end", () => {
    const { metering, store, repository, tick } = metered();
    repository.insert(running);
    tick(sampleOf(800));
    metering.close();
    expect(metered(store).metering.ofSandbox(running)).toMatchObject({ cpuUsageUsec: 800 });
  });
});

test("of a sandbox that is deleted stays in its tenant's, until that is deleted too", async () => {
  const { metering, store, repository, tenants, tick, write } = metered();
  repository.insert(running);
  tick(sampleOf(500));
  await write();
  repository.remove(running);
  expect(metering.ofTenant("acme")).toMatchObject({ cpuUsageUsec: 500 });
  await write();
  expect(metering.ofSandbox(running)).toBeUndefined();
  expect(metering.ofTenant("acme")).toMatchObject({ cpuUsageUsec: 500 });

  const next = { ...running, instance: "instance-two" };
  repository.insert(next);
  tick(sampleOf(30));
  await write();
  expect(metering.ofTenant("acme")).toMatchObject({ cpuUsageUsec: 530 });
  expect(metering.ofSandbox(next)).toMatchObject({ cpuUsageUsec: 30 });

  repository.remove(next);
  tenants.delete("acme");
  await write();
  expect(metering.ofTenant("acme")).toBeUndefined();
  expect(store.meters()).toEqual([]);
});

test("what cannot be written is not told, and is written later", async () => {
  const { metering, store, repository, tick, write } = metered();
  repository.insert(running);
  tick(sampleOf(500));
  const transact = vi.spyOn(store, "transact").mockImplementationOnce(() => {
    throw new Error("disk full");
  });
  await write();
  expect(transact).toHaveBeenCalled();
  expect(metering.ofSandbox(running)).toBeUndefined();
  await write();
  expect(metering.ofSandbox(running)).toMatchObject({ cpuUsageUsec: 500 });
});

test("nothing is written while nothing runs", async () => {
  const { store, write } = metered();
  const transact = vi.spyOn(store, "transact");
  await write();
  expect(transact).not.toHaveBeenCalled();
});
