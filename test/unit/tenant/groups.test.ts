// What the kernel is to hold of tenants, and when; that it does is shown by integration tests, on its real files.

import { describe, expect, onTestFinished, test, vi } from "vitest";
import type { GroupLimits } from "../../../src/engine/parent-cgroup.ts";
import { noNetwork } from "../../../src/network/policy.ts";
import { createLog } from "../../../src/observe/log.ts";
import type { Resources, SandboxRecord } from "../../../src/sandbox/record.ts";
import { createRepository } from "../../../src/sandbox/repository.ts";
import { createGroups } from "../../../src/tenant/groups.ts";
import { noRange } from "../../../src/tenant/limit-range.ts";
import type { Quota } from "../../../src/tenant/record.ts";
import type { Tenant } from "../../../src/tenant/tenants.ts";
import { recordOf, resources, temporaryStore } from "../sandbox/fixture.ts";

const usual: Resources = { ...resources, cpuMillis: 500, cpuRequestMillis: 250, memoryBytes: 100, pids: 10 };
const tenantOf = (name: string, uid: number, quota: Quota = {}): Tenant => ({
  name,
  uid,
  generation: 1,
  createdAtMs: 0,
  updatedAtMs: 0,
  policy: { quota, limitRange: noRange, network: noNetwork },
  isDefault: false,
});

function grouped(...known: readonly Tenant[]) {
  vi.useFakeTimers();
  const repository = createRepository(temporaryStore());
  const tenants = new Map(known.map((tenant) => [tenant.name, tenant]));
  const held = new Map<string, GroupLimits>();
  const listeners = new Set<(name: string) => void>();
  const kernel = { refuse: undefined as Error | undefined, isBusy: false, isThere: true };
  const groups = createGroups({
    repository,
    tenants: {
      get: (name) => tenants.get(name),
      all: () => [...tenants.values()],
      subscribe(listener) {
        listeners.add(listener);
        return () => void listeners.delete(listener);
      },
    },
    allocatable: { cpuMillis: 4_000, memoryBytes: 1_000, pids: 500, sandboxes: 9 },
    place: () =>
      kernel.isThere
        ? {
            hostParent: "/sandboxd",
            cgroups: {
              async hold(parent, limits) {
                if (kernel.refuse !== undefined) throw kernel.refuse;
                held.set(parent, limits);
              },
              read: () => undefined,
              async remove(parent) {
                if (!kernel.isBusy) held.delete(parent);
                return !kernel.isBusy;
              },
            },
          }
        : undefined,
    log: createLog({ level: "fatal" }),
  });
  onTestFinished(async () => {
    await groups.close();
    vi.useRealTimers();
  });
  const run = (id: string, tenant: string, change: Partial<Resources> = {}): SandboxRecord => {
    const record = recordOf({
      id,
      instance: id,
      tenant,
      spec: { ...recordOf().spec, resources: { ...usual, ...change } },
    });
    repository.insert(record);
    return record;
  };
  const settle = () => vi.advanceTimersByTimeAsync(1_000);
  const stop = (record: SandboxRecord) =>
    repository.put({ ...record, state: "STOPPED", wanted: "STOPPED" }, "SANDBOX_STATE_CHANGED");
  const put = (tenant: Tenant) => {
    tenants.set(tenant.name, tenant);
    for (const listener of listeners) listener(tenant.name);
  };
  const remove = (name: string) => {
    tenants.delete(name);
    for (const listener of listeners) listener(name);
  };
  return { groups, repository, kernel, held, run, stop, put, remove, settle };
}

test("before a start, the host is held to what is allocatable and the tenant to its quota", async () => {
  const { groups, held, run } = grouped(tenantOf("acme", 300_001, { memoryBytes: 400, cpuMillis: 2_000 }));
  run("one", "acme");
  await groups.ensure("acme");
  expect(held.get("/sandboxd")).toEqual({ cpuWeight: 4_096, memoryBytes: 1_000, pids: 500 });
  expect(held.get("/sandboxd/300001")).toEqual({ cpuWeight: 256, memoryBytes: 400, cpuMillis: 2_000 });
});

test("a start is refused where the kernel refuses, and it is known why until it no longer does", async () => {
  const { groups, kernel, run } = grouped(tenantOf("acme", 300_001));
  run("one", "acme");
  kernel.refuse = new Error("EBUSY");
  await expect(groups.ensure("acme")).rejects.toThrow("EBUSY");
  expect(groups.problem()).toBe("EBUSY");
  kernel.refuse = undefined;
  await groups.ensure("acme");
  expect(groups.problem()).toBeUndefined();
});

describe("a moment after a change,", () => {
  test("the weight is the sum of the requests of what runs", async () => {
    const { groups, held, run, stop, settle } = grouped(tenantOf("acme", 300_001));
    const one = run("one", "acme");
    run("two", "acme", { cpuRequestMillis: 750 });
    await groups.ensure("acme");
    await settle();
    expect(held.get("/sandboxd/300001")?.cpuWeight).toBe(1_024);
    stop(one);
    await settle();
    expect(held.get("/sandboxd/300001")?.cpuWeight).toBe(768);
  });

  test("a quota below what is promised is followed down as that goes, and never gone below it", async () => {
    const { groups, held, run, stop, put, settle } = grouped(tenantOf("acme", 300_001));
    const one = run("one", "acme");
    run("two", "acme");
    await groups.ensure("acme");
    put(tenantOf("acme", 300_001, { memoryBytes: 50, pids: 15 }));
    await settle();
    expect(held.get("/sandboxd/300001")).toMatchObject({ memoryBytes: 200, pids: 20 });
    stop(one);
    await settle();
    expect(held.get("/sandboxd/300001")).toMatchObject({ memoryBytes: 100, pids: 15 });
  });

  test("the group of a tenant that runs nothing is gone, with the last that of all", async () => {
    const { groups, held, run, stop, settle } = grouped(
      tenantOf("acme", 300_001),
      tenantOf("other", 300_002),
    );
    const one = run("one", "acme");
    const two = run("two", "other");
    for (const name of ["acme", "other"]) await groups.ensure(name);
    stop(one);
    await settle();
    expect([...held.keys()]).toEqual(["/sandboxd", "/sandboxd/300002"]);
    stop(two);
    await settle();
    expect([...held.keys()]).toEqual([]);
  });

  test("so is that of a tenant that was removed, and one that is still in use is tried again", async () => {
    const { groups, held, kernel, repository, run, remove, settle } = grouped(tenantOf("acme", 300_001));
    const one = run("one", "acme");
    await groups.ensure("acme");
    kernel.isBusy = true;
    repository.remove(one);
    remove("acme");
    await settle();
    expect([...held.keys()]).toContain("/sandboxd/300001");
    kernel.isBusy = false;
    await settle();
    expect([...held.keys()]).toEqual([]);
  });
});

test("what changed a moment before the daemon ends is not left as it was", async () => {
  const { groups, held, run, stop } = grouped(tenantOf("acme", 300_001));
  const one = run("one", "acme");
  await groups.ensure("acme");
  stop(one);
  await groups.close();
  expect([...held.keys()]).toEqual([]);
});

test("what an earlier life of the daemon left is compared, and removed where nothing runs", async () => {
  const { held } = grouped(tenantOf("acme", 300_001));
  held.set("/sandboxd/300001", { cpuWeight: 2 });
  await vi.advanceTimersByTimeAsync(31_000);
  expect([...held.keys()]).toEqual([]);
});

test("nothing is done while the engine was never reached", async () => {
  const { groups, held, kernel, run } = grouped(tenantOf("acme", 300_001));
  kernel.isThere = false;
  run("one", "acme");
  await groups.ensure("acme");
  expect(held.size).toBe(0);
  expect(groups.read(tenantOf("acme", 300_001))).toBeUndefined();
});
