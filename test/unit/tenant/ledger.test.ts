// The promises of all levels together: whatever is asked for, in whatever order, by whom, and wherever the daemon ends in between,
// nobody is promised more than a quota or the host allows, and what is promised is what the state says.

import fc from "fast-check";
import { expect, test } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { type Capacity, promised } from "../../../src/sandbox/admission.ts";
import { isToLive, type Resources, type SandboxRecord } from "../../../src/sandbox/record.ts";
import { createRepository } from "../../../src/sandbox/repository.ts";
import { createRoom } from "../../../src/sandbox/room.ts";
import { promisedTo } from "../../../src/tenant/quota.ts";
import { type Quota, quotaKeys } from "../../../src/tenant/record.ts";
import type { WorkspaceRecord } from "../../../src/workspace/record.ts";
import { anyResources, recordOf, temporaryStore } from "../sandbox/fixture.ts";

const tenants = ["acme", "other"] as const;
const ids = ["a", "b", "c", "d", "e"];

const anyQuota: fc.Arbitrary<Quota> = fc.record(
  {
    sandboxes: fc.nat(4),
    runningSandboxes: fc.nat(3),
    cpuRequestMillis: fc.nat(6_000),
    cpuMillis: fc.nat(8_000),
    memoryRequestBytes: fc.nat({ max: 2 ** 33 }),
    memoryBytes: fc.nat({ max: 2 ** 33 }),
    pids: fc.nat(8_000),
  },
  { requiredKeys: [] },
);

const anyAction = fc.oneof(
  fc.record({
    kind: fc.constant("create" as const),
    id: fc.constantFrom(...ids),
    tenant: fc.constantFrom(...tenants),
    resources: anyResources,
  }),
  fc.record({
    kind: fc.constantFrom(
      "start" as const,
      "stop" as const,
      "delete" as const,
      "restart the daemon" as const,
    ),
    id: fc.constantFrom(...ids),
  }),
  fc.record({ kind: fc.constant("update" as const), id: fc.constantFrom(...ids), resources: anyResources }),
);

const amounts = { cpuMillis: 8_000, memoryBytes: 2 ** 33, pids: 10_000, sandboxes: 4 };
const capacity: Capacity = {
  capacity: amounts,
  allocatable: amounts,
  cpuOvercommit: 2,
  memoryOvercommit: 1.5,
};

test("no sequence of requests, updates and restarts promises more than any level allows", () => {
  const quotas = fc.record({ acme: anyQuota, other: anyQuota });
  fc.assert(
    fc.property(quotas, fc.array(anyAction, { maxLength: 30 }), (quotaOf, actions) => {
      const store = temporaryStore();
      const open = () => {
        const repository = createRepository(store);
        const quota = (tenant: string) => quotaOf[tenant as (typeof tenants)[number]];
        return {
          repository,
          room: createRoom({ repository, capacity, quotaOf: quota, workspaces: () => [] }),
        };
      };
      let { repository, room } = open();
      const resourced = (record: SandboxRecord, resources: Resources) => ({
        ...record,
        spec: { ...record.spec, resources },
      });
      const stopped = { state: "STOPPED", wanted: "STOPPED" } as const;
      const running = { state: "RUNNING", wanted: "RUNNING" } as const;
      for (const action of actions) {
        const record = repository.get(action.id);
        try {
          if (action.kind === "restart the daemon") {
            const before = repository.all().map((one) => JSON.stringify(one));
            ({ repository, room } = open());
            expect(repository.all().map((one) => JSON.stringify(one))).toEqual(before);
          } else if (action.kind === "create" && record === undefined) {
            room.admitNew(action.tenant, { resources: action.resources });
            const { id, tenant } = action;
            repository.insert(resourced(recordOf({ id, instance: id, tenant }), action.resources));
          } else if (action.kind === "start" && record !== undefined && !isToLive(record)) {
            room.admit(record);
            repository.put({ ...record, ...running }, "SANDBOX_STATE_CHANGED");
          } else if (action.kind === "stop" && record !== undefined) {
            repository.put({ ...record, ...stopped }, "SANDBOX_STATE_CHANGED");
          } else if (action.kind === "delete" && record !== undefined) {
            repository.remove(record);
          } else if (action.kind === "update" && record !== undefined) {
            // one that rests may be given what it could not start with
            if (isToLive(record)) room.admit(record, action.resources);
            repository.put(resourced(record, action.resources), "SANDBOX_UPDATED");
          }
        } catch (error) {
          if (!(error instanceof SandboxdError)) throw error;
          const found = error.details.quotas ?? [];
          expect(found.length, "a refusal names what").toBeGreaterThan(0);
          for (const { asked, free } of found) expect(asked).toBeGreaterThan(free);
          const ofTenant = found.some(({ level }) => level === "TENANT");
          expect(error.reason).toBe(ofTenant ? "TENANT_QUOTA_EXCEEDED" : "HOST_CAPACITY_EXCEEDED");
        }
        const all = repository.all();
        for (const tenant of tenants) {
          const sums = promisedTo(all.filter((one) => one.tenant === tenant));
          for (const key of quotaKeys) {
            expect(sums[key], `${tenant} ${key}`).toBeLessThanOrEqual(
              quotaOf[tenant][key] ?? Number.POSITIVE_INFINITY,
            );
          }
        }
        const { requests, limits } = promised(all);
        expect(requests.cpuMillis).toBeLessThanOrEqual(amounts.cpuMillis);
        expect(limits.cpuMillis).toBeLessThanOrEqual(amounts.cpuMillis * capacity.cpuOvercommit);
        expect(requests.memoryBytes).toBeLessThanOrEqual(amounts.memoryBytes);
        expect(limits.memoryBytes).toBeLessThanOrEqual(amounts.memoryBytes * capacity.memoryOvercommit);
        expect(limits.pids).toBeLessThanOrEqual(amounts.pids);
        expect(requests.sandboxes).toBeLessThanOrEqual(amounts.sandboxes);
      }
    }),
    { numRuns: 60 },
  );
});

test("what an update asks for counts while it goes on, and no longer", async () => {
  const repository = createRepository(temporaryStore());
  const room = createRoom({ repository, capacity, quotaOf: () => ({ pids: 100 }), workspaces: () => [] });
  const resources = { ...recordOf().spec.resources, pids: 40 };
  const record = recordOf();
  repository.insert({ ...record, spec: { ...record.spec, resources } });
  const ask = () => room.admitNew("acme", { resources });
  ask();
  await room.during("one", { ...resources, pids: 61 }, async () => {
    expect(ask).toThrow(expect.objectContaining({ reason: "TENANT_QUOTA_EXCEEDED" }));
  });
  ask();
});

test("a writable root layer counts against the tenant's disk beside its workspaces, as long as its sandbox is there", () => {
  const repository = createRepository(temporaryStore());
  const space = { tenant: "acme", limits: { bytes: 60 }, snapshots: [] };
  const room = createRoom({
    repository,
    capacity,
    quotaOf: () => ({ diskBytes: 100 }),
    // what a room looks at of one
    workspaces: () => [space as unknown as WorkspaceRecord],
  });
  const { resources } = recordOf().spec;
  const ask = (rootBytes: number) => () => room.admitNew("acme", { resources, rootBytes });
  expect(ask(40)).not.toThrow();
  expect(ask(41)).toThrow(expect.objectContaining({ reason: "TENANT_QUOTA_EXCEEDED" }));
  const stopped = recordOf({ state: "STOPPED", wanted: "STOPPED" });
  repository.insert({ ...stopped, spec: { ...stopped.spec, rootBytes: 40 } });
  expect(ask(1)).toThrow(expect.objectContaining({ reason: "TENANT_QUOTA_EXCEEDED" }));
  expect(() => room.admit(stopped), "its own is held already").not.toThrow();
});
