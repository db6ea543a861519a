import { describe, expect, onTestFinished, test, vi } from "vitest";
import { noNetwork } from "../../../src/network/policy.ts";
import { createLog } from "../../../src/observe/log.ts";
import { actors } from "../../../src/sandbox/record.ts";
import { createRepository } from "../../../src/sandbox/repository.ts";
import type { Store } from "../../../src/store/store.ts";
import { noRange } from "../../../src/tenant/limit-range.ts";
import type { TenantPolicy } from "../../../src/tenant/record.ts";
import { createTenants, type Tenant, type TenantRules } from "../../../src/tenant/tenants.ts";
import { createWorkspaceRepository } from "../../../src/workspace/repository.ts";
import { recordOf, temporaryStore } from "../sandbox/fixture.ts";

const policyOf = (quota: TenantPolicy["quota"]): TenantPolicy => ({
  quota,
  limitRange: noRange,
  network: noNetwork,
});
const defaultPolicy = policyOf({ sandboxes: 7 });

/** Tenants over a store; opened again over the same one, it is the next life of the daemon. */
function tenanted(store: Store = temporaryStore(), change: Partial<TenantRules> = {}) {
  const repository = createRepository(store);
  const rules = { acceptUnknown: true, defaultPolicy, uidRange: { first: 100, last: 102 }, ...change };
  const held: Tenant[] = [];
  const kernel = { hold: async (_: Tenant): Promise<void> => undefined };
  const deleted: string[] = [];
  const tenants = createTenants({
    store,
    repository,
    rules: () => rules,
    async hold(tenant) {
      await kernel.hold(tenant);
      held.push(tenant);
    },
    deleteSandbox: (id) => void deleted.push(id),
    workspaces: createWorkspaceRepository(store),
    deleteWorkspace: () => undefined,
    log: createLog({ level: "fatal" }),
  });
  onTestFinished(() => tenants.close());
  const add = (id: string, tenant = "acme") => repository.insert(recordOf({ id, instance: id, tenant }));
  const drop = (id: string) => {
    const record = repository.get(id);
    if (record !== undefined) repository.remove(record);
  };
  async function told(): Promise<readonly string[]> {
    await store.durable();
    return store.events
      .readAfter(0, 100)
      .map(({ document }) => (JSON.parse(document) as { type: string }).type);
  }
  return { tenants, store, repository, rules, held, kernel, deleted, add, drop, told };
}

describe("a tenant that was never put", () => {
  test("is made once for its first sandbox, with a uid of its own and the policy of the configuration", async () => {
    const { tenants, rules, told } = tenanted();
    expect(tenants.ensure("acme")).toMatchObject({
      uid: 100,
      generation: 1,
      isDefault: true,
      policy: defaultPolicy,
    });
    expect(tenants.ensure("acme").uid).toBe(100);
    expect(tenants.ensure("other").uid).toBe(101);
    expect(await told()).toEqual(["TENANT_CHANGED", "TENANT_CHANGED"]);
    rules.defaultPolicy = policyOf({ sandboxes: 1 });
    expect(tenants.policyOf("acme"), "it changes with it").toEqual(policyOf({ sandboxes: 1 }));
    expect(tenants.policyOf("nobody")).toEqual(policyOf({ sandboxes: 1 }));
  });

  test("is refused where the configuration says so", () => {
    const { tenants } = tenanted(undefined, { acceptUnknown: false });
    expect(() => tenants.assertOpen("acme")).toThrow(expect.objectContaining({ reason: "TENANT_NOT_FOUND" }));
    tenants.ensure("acme");
    tenants.assertOpen("acme");
  });

  test("is refused when no uid is left, and nothing of it is", async () => {
    const { tenants, told } = tenanted();
    for (const name of ["a", "b", "c"]) tenants.ensure(name);
    expect(() => tenants.ensure("d")).toThrow(expect.objectContaining({ reason: "HOST_CAPACITY_EXCEEDED" }));
    expect(tenants.get("d")).toBeUndefined();
    expect(await told()).toHaveLength(3);
  });

  test("is known again from what it has, with the uid that that has", () => {
    const { tenants } = tenanted();
    tenants.adopt("lost", 4_711);
    expect(tenants.get("lost")?.uid).toBe(4_711);
    tenants.adopt("lost", 9);
    expect(tenants.get("lost")?.uid).toBe(4_711);
  });
});

describe("putting", () => {
  test("sets all of the policy, rises the generation, and lasts", async () => {
    const { tenants, store } = tenanted();
    await tenants.put("acme", policyOf({ pids: 5, sandboxes: 2 }));
    expect(await tenants.put("acme", policyOf({ pids: 6 }))).toMatchObject({
      generation: 2,
      isDefault: false,
    });
    const again = tenanted(store);
    expect(again.tenants.get("acme")).toMatchObject({
      generation: 2,
      uid: 100,
      policy: policyOf({ pids: 6 }),
    });
  });

  test("the same again changes nothing, in whatever order it is said", async () => {
    const { tenants, told } = tenanted();
    await tenants.put("acme", policyOf({ pids: 5, sandboxes: 2 }));
    expect(await tenants.put("acme", policyOf({ sandboxes: 2, pids: 5 }))).toMatchObject({ generation: 1 });
    expect(await told()).toHaveLength(1);
  });

  test("what the default is fixes it", async () => {
    const { tenants, rules } = tenanted();
    tenants.ensure("acme");
    expect(await tenants.put("acme", defaultPolicy)).toMatchObject({ generation: 2, isDefault: false });
    rules.defaultPolicy = policyOf({});
    expect(tenants.policyOf("acme")).toEqual(defaultPolicy);
  });

  test("compares the generation: 0 is for none", async () => {
    const { tenants } = tenanted();
    const mismatch = expect.objectContaining({ reason: "GENERATION_MISMATCH" });
    await expect(tenants.put("acme", defaultPolicy, 1)).rejects.toThrow(mismatch);
    await tenants.put("acme", defaultPolicy, 0);
    await expect(tenants.put("acme", policyOf({}), 0)).rejects.toThrow(mismatch);
    expect(await tenants.put("acme", policyOf({}), 1)).toMatchObject({ generation: 2 });
  });

  test("changes nothing when the kernel refuses", async () => {
    const { tenants, kernel } = tenanted();
    await tenants.put("acme", defaultPolicy);
    kernel.hold = async () => {
      throw new Error("EBUSY");
    };
    await expect(tenants.put("acme", policyOf({}))).rejects.toThrow("EBUSY");
    expect(tenants.get("acme")).toMatchObject({ generation: 1, policy: defaultPolicy });
  });

  test("has the kernel hold the old policy again when the new one cannot be written", async () => {
    const { tenants, store, held } = tenanted();
    await tenants.put("acme", defaultPolicy);
    vi.spyOn(store, "transact").mockImplementationOnce(() => {
      throw new Error("disk full");
    });
    await expect(tenants.put("acme", policyOf({ pids: 1 }))).rejects.toThrow("disk full");
    expect(held.map(({ policy }) => policy)).toEqual([policyOf({ pids: 1 }), defaultPolicy]);
    expect(tenants.get("acme")).toMatchObject({ generation: 1, policy: defaultPolicy });
  });

  test("of two that compare the same generation, one comes through, however the kernel takes its time", async () => {
    const { tenants, kernel } = tenanted();
    await tenants.put("acme", defaultPolicy);
    kernel.hold = () => new Promise((resolve) => setTimeout(resolve, 10));
    const both = await Promise.allSettled([
      tenants.put("acme", policyOf({ pids: 1 }), 1),
      tenants.put("acme", policyOf({ pids: 2 }), 1),
    ]);
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(tenants.get("acme")?.generation).toBe(2);
  });
});

describe("deleting", () => {
  const actor = actors.policy;

  test("what is not there is success, and what has nothing is gone", async () => {
    const { tenants, told } = tenanted();
    await tenants.delete("acme", { cascade: false, actor });
    tenants.ensure("acme");
    await tenants.delete("acme", { cascade: false, actor });
    expect(tenants.get("acme")).toBeUndefined();
    expect(await told()).toEqual(["TENANT_CHANGED", "TENANT_DELETED"]);
  });

  test("is refused while it owns sandboxes, unless it cascades", async () => {
    const { tenants, add, drop, deleted, told } = tenanted();
    tenants.ensure("acme");
    add("one");
    add("theirs", "other");
    await expect(tenants.delete("acme", { cascade: false, actor })).rejects.toMatchObject({
      reason: "TENANT_NOT_EMPTY",
      details: { metadata: { sandboxes: "1" } },
    });
    const gone = tenants.delete("acme", { cascade: true, actor });
    expect(deleted).toEqual(["one"]);
    const deleting = expect.objectContaining({ reason: "TENANT_DELETING" });
    expect(() => tenants.assertOpen("acme")).toThrow(deleting);
    await expect(tenants.put("acme", defaultPolicy)).rejects.toThrow(deleting);
    drop("one");
    await gone;
    expect(tenants.get("acme")).toBeUndefined();
    expect((await told()).at(-1)).toBe("TENANT_DELETED");
  });

  test("goes on when the caller goes away, and in the next life of the daemon", async () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    const { tenants, store, add } = tenanted();
    tenants.ensure("acme");
    add("one");
    const waiting = new AbortController();
    const gone = tenants.delete("acme", { cascade: true, actor, signal: waiting.signal });
    waiting.abort(new Error("gone away"));
    await expect(gone).rejects.toThrow("gone away");
    tenants.close();

    const next = tenanted(store);
    expect(next.tenants.get("acme")?.deleting).toBe(true);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(next.deleted).toContain("one");
    next.drop("one");
    expect(next.tenants.get("acme")).toBeUndefined();
  });

  test("keeps the uid for the name until no other is left, and then gives that which was free longest", async () => {
    vi.useFakeTimers({ toFake: ["Date"] });
    onTestFinished(() => void vi.useRealTimers());
    const { tenants } = tenanted();
    for (const name of ["a", "b"]) tenants.ensure(name);
    for (const name of ["b", "a"]) {
      await tenants.delete(name, { cascade: false, actor });
      vi.advanceTimersByTime(1_000);
    }
    expect(tenants.ensure("c").uid, "never given").toBe(102);
    expect(tenants.ensure("a").uid, "its own").toBe(100);
    expect(tenants.ensure("d").uid, "b's").toBe(101);
    expect(() => tenants.ensure("b")).toThrow(expect.objectContaining({ reason: "HOST_CAPACITY_EXCEEDED" }));
  });
});
