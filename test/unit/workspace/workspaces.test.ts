import { readdirSync, rmSync } from "node:fs";
import { describe, expect, test, vi } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { openStore } from "../../../src/store/store.ts";
import { mebibyte, modelDisk, workspaced } from "./fixture.ts";

const reasonOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise;
  } catch (error) {
    if (error instanceof SandboxdError) return error.reason;
    throw error;
  }
  return "none";
};

describe("a create", () => {
  test("makes the space within its limits and tells it ready once it is", async () => {
    const { create, disk, told, repository } = workspaced();
    const made = await create("home");
    expect(made).toMatchObject({ id: "home", tenant: "acme", state: "READY", uid: 100_000, generation: 1 });
    expect(made.limits).toEqual({ bytes: 64 * mebibyte, inodes: 4_096 });
    expect([...disk.spaces.values()]).toMatchObject([{ limits: { bytes: 64 * mebibyte, inodes: 4_096 } }]);
    expect(repository.get("home")).toEqual(made);
    expect(await told()).toEqual(["WORKSPACE_CREATED", "READY"]);
  });

  test("of the same id is the same workspace, however many ask at once", async () => {
    const { create, disk } = workspaced();
    const all = await Promise.all(Array.from({ length: 50 }, () => create("home")));
    expect(new Set(all.map(({ instance }) => instance)).size).toBe(1);
    expect(disk.steps.filter((step) => step.startsWith("create"))).toHaveLength(1);
    expect((await create("home")).instance).toBe(all[0]?.instance);
  });

  test("of the same id with another request is refused", async () => {
    const { create } = workspaced();
    await create("home");
    for (const other of [{ tenant: "other" }, { limits: { bytes: 32 * mebibyte } }, { labels: { a: "b" } }]) {
      expect(await reasonOf(create("home", other))).toBe("WORKSPACE_ALREADY_EXISTS");
    }
  });

  test("that the backend cannot do leaves nothing behind, and the same id can be asked for again", async () => {
    const { create, disk, repository, told } = workspaced();
    disk.faults.fail = (verb, when) => {
      if (verb === "create" && when === "after") throw new SandboxdError("LIMIT_UNENFORCEABLE", "not here");
    };
    expect(await reasonOf(create("home"))).toBe("LIMIT_UNENFORCEABLE");
    expect(repository.all()).toEqual([]);
    expect(disk.spaces.size).toBe(0);
    expect(await told()).toEqual(["WORKSPACE_CREATED", "DELETING", "WORKSPACE_DELETED"]);
    disk.faults.fail = () => undefined;
    expect((await create("home")).state).toBe("READY");
  });

  test("on a host without a backend says what the host lacks, and keeps nothing", async () => {
    const { create, place, repository, told } = workspaced();
    place.choice = { obstacle: "there is no loop device", hint: "load the module loop" };
    await expect(create("home")).rejects.toMatchObject({
      reason: "WORKSPACES_UNAVAILABLE",
      message: expect.stringContaining("there is no loop device"),
      details: { hint: "load the module loop" },
    });
    expect(repository.all()).toEqual([]);
    expect(await told()).toEqual([]);
  });

  test("goes on when its caller goes away", async () => {
    const { create, workspaces } = workspaced();
    const going = new AbortController();
    const asked = create("home", { signal: going.signal });
    going.abort(new Error("gone"));
    await expect(asked).rejects.toThrow("gone");
    expect((await create("home")).state).toBe("READY");
    expect(workspaces.get("home").generation).toBe(1);
  });

  test("gives each workspace a project id that no other ever had", async () => {
    const { create, workspaces } = workspaced();
    const [one, two] = [await create("one"), await create("two")];
    await workspaces.delete("two");
    const three = await create("two");
    expect(new Set([one, two, three].map(({ projectId }) => projectId)).size).toBe(3);
  });
});

describe("a tenant's quota and the host's disk", () => {
  test("are never exceeded by creates at once, and each refusal names level, resource and numbers", async () => {
    const { create, repository } = workspaced({ quota: { diskBytes: 200 * mebibyte, workspaces: 10 } });
    const outcomes = await Promise.all(
      Array.from({ length: 8 }, (_, index) => reasonOf(create(`ws-${index}`))),
    );
    expect(outcomes.filter((reason) => reason === "none")).toHaveLength(3);
    expect(new Set(outcomes)).toEqual(new Set(["none", "TENANT_QUOTA_EXCEEDED"]));
    expect(repository.all()).toHaveLength(3);
    await expect(create("more")).rejects.toMatchObject({
      details: {
        quotas: [
          {
            ...{ level: "TENANT", resource: "disk_bytes", limit: 200 * mebibyte },
            ...{ promised: 192 * mebibyte, asked: 64 * mebibyte, free: 8 * mebibyte },
          },
        ],
      },
    });
    await expect(create("big", { tenant: "other", limits: { bytes: 300 * mebibyte } })).rejects.toMatchObject(
      {
        reason: "TENANT_QUOTA_EXCEEDED",
      },
    );
  });

  test("of the host alone: HOST_CAPACITY_EXCEEDED", async () => {
    const { create } = workspaced();
    await create("one", { limits: { bytes: 512 * mebibyte } });
    await create("two", { limits: { bytes: 500 * mebibyte } });
    expect(await reasonOf(create("three"))).toBe("HOST_CAPACITY_EXCEEDED");
  });

  test("count inodes, and the number of workspaces", async () => {
    const { create } = workspaced({ quota: { inodes: 5_000, workspaces: 2 } });
    await create("one");
    expect(await reasonOf(create("two"))).toBe("TENANT_QUOTA_EXCEEDED");
    await create("two", { limits: { inodes: 100 } });
    await expect(create("three", { limits: { inodes: 64 } })).rejects.toMatchObject({
      details: { quotas: [{ resource: "workspaces", limit: 2, promised: 2, asked: 1, free: 0 }] },
    });
  });
});

describe("an update", () => {
  test("grows and shrinks what the backend holds, and counts in the generation", async () => {
    const { create, workspaces, disk, told } = workspaced();
    await create("home");
    const grown = await workspaces.update({
      id: "home",
      limits: { bytes: 128 * mebibyte },
      clearsSoft: false,
    });
    expect(grown).toMatchObject({ generation: 2, limits: { bytes: 128 * mebibyte, inodes: 4_096 } });
    expect([...disk.spaces.values()][0]?.limits.bytes).toBe(128 * mebibyte);
    await workspaces.update({ id: "home", limits: { bytes: 32 * mebibyte }, clearsSoft: false });
    expect([...disk.spaces.values()][0]?.limits.bytes).toBe(32 * mebibyte);
    expect(await told()).toEqual(["WORKSPACE_CREATED", "READY", "WORKSPACE_UPDATED", "WORKSPACE_UPDATED"]);
  });

  test("below what is held changes nothing", async () => {
    const { create, workspaces, disk } = workspaced();
    const before = await create("home");
    for (const space of disk.spaces.values()) space.used = { bytes: 60 * mebibyte, inodes: 9 };
    const shrink = workspaces.update({ id: "home", limits: { bytes: 32 * mebibyte }, clearsSoft: false });
    expect(await reasonOf(shrink)).toBe("LIMIT_UNENFORCEABLE");
    expect(workspaces.get("home")).toEqual(before);
  });

  test("that grows is admitted like a create, and what is held already is not refused", async () => {
    const { create, workspaces } = workspaced({ quota: { diskBytes: 100 * mebibyte } });
    await create("home");
    const grow = (bytes: number) => workspaces.update({ id: "home", limits: { bytes }, clearsSoft: false });
    expect(await reasonOf(grow(101 * mebibyte))).toBe("TENANT_QUOTA_EXCEEDED");
    expect((await grow(100 * mebibyte)).limits.bytes).toBe(100 * mebibyte);
  });

  test("of another generation is refused", async () => {
    const { create, workspaces } = workspaced();
    await create("home");
    const stale = workspaces.update({ id: "home", limits: {}, clearsSoft: false, generation: 7 });
    expect(await reasonOf(stale)).toBe("GENERATION_MISMATCH");
  });
});

describe("a deletion", () => {
  test("is refused while there are sandboxes with it, stopped ones included", async () => {
    const { create, use, unuse, workspaces, disk } = workspaced();
    await create("home");
    use("sb", "home", "STOPPED");
    expect(await reasonOf(workspaces.delete("home"))).toBe("WORKSPACE_IN_USE");
    expect(workspaces.get("home").state).toBe("READY");
    unuse("sb");
    await workspaces.delete("home");
    expect(disk.spaces.size).toBe(0);
    await workspaces.delete("home");
  });

  test("that fails is told and tried again until nothing is left", async () => {
    const { create, workspaces, disk, repository } = workspaced();
    await create("home");
    disk.faults.fail = (verb) => {
      if (verb === "remove") throw new Error("the disk is busy");
    };
    await expect(workspaces.delete("home")).rejects.toThrow("the disk is busy");
    expect(repository.get("home")).toMatchObject({ state: "DELETING", message: "the disk is busy" });
    expect(await reasonOf(workspaces.ready("home", "acme"))).toBe("INVALID_STATE");
    disk.faults.fail = () => undefined;
    await workspaces.look();
    expect(repository.all()).toEqual([]);
  });
});

test("a deletion that is accepted while something else goes on is not undone by that", async () => {
  const { create, workspaces, snapshots, disk, repository, watch } = workspaced();
  await create("home", { limits: { softBytes: mebibyte } });
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const { snapshot } = disk.backend;
  Object.assign(disk.backend, {
    async snapshot(...args: Parameters<typeof snapshot>) {
      await held;
      return snapshot(...args);
    },
  });
  disk.faults.fail = (verb) => {
    if (verb === "remove") throw new Error("busy");
  };
  const taking = snapshots.create("home", "slow");
  await vi.waitFor(() => expect(workspaces.isBusy("home")).toBe(true));
  const deleting = workspaces.delete("home");
  expect(repository.get("home")?.state).toBe("DELETING");
  release();
  await taking;
  await expect(deleting).rejects.toThrow("busy");
  expect(repository.get("home")).toMatchObject({ state: "DELETING", snapshots: [{ id: "slow" }] });
  await watch.see(workspaces.get("home")).catch(() => undefined);
  expect(repository.get("home")?.state).toBe("DELETING");
  disk.faults.fail = () => undefined;
  await workspaces.look();
  expect(repository.get("home")).toBeUndefined();
});

describe("a sandbox's mount", () => {
  test("is of its tenant's workspace alone: another's is as if it were not there", async () => {
    const { create, workspaces } = workspaced();
    await create("home");
    expect(() => workspaces.assertMountable("home", "acme")).not.toThrow();
    expect(await workspaces.ready("home", "acme")).toMatchObject({ path: expect.stringContaining("home-") });
    const messageOf = (run: () => void) => {
      try {
        run();
      } catch (error) {
        return String(error);
      }
      return "none";
    };
    const others = messageOf(() => workspaces.assertMountable("home", "other"));
    expect(others).toBe(
      messageOf(() => workspaces.assertMountable("absent", "other")).replace("absent", "home"),
    );
    expect(await reasonOf(workspaces.ready("home", "other"))).toBe("WORKSPACE_NOT_FOUND");
  });

  test("that cannot be had makes the workspace UNAVAILABLE with the reason, until it can", async () => {
    const { create, workspaces, disk, told } = workspaced();
    await create("home");
    disk.faults.fail = (verb) => {
      if (verb === "ready") throw new Error("its image is torn");
    };
    expect(await reasonOf(workspaces.ready("home", "acme"))).toBe("WORKSPACE_UNAVAILABLE");
    expect(workspaces.get("home")).toMatchObject({ state: "UNAVAILABLE", message: "its image is torn" });
    disk.faults.fail = () => undefined;
    await workspaces.look();
    expect(workspaces.get("home").state).toBe("READY");
    expect(await told()).toEqual(["WORKSPACE_CREATED", "READY", "UNAVAILABLE", "READY"]);
  });
});

describe("the next life of the daemon", () => {
  /** The steps at which a daemon can be killed: the backend's, before and after. */
  const kill = new Error("killed");

  test.for([
    ["create", "before"],
    ["create", "after"],
  ] as const)("finishes a create that was killed %s / %s the backend made it", async ([verb, when]) => {
    const first = workspaced();
    first.disk.faults.fail = (which, at) => {
      if (which === verb && at === when) throw kill;
      // a daemon that is killed removes nothing either
      if (which === "remove") throw kill;
    };
    await first.create("home").catch(() => undefined);
    // what the first life wrote after its death does not count
    const record = first.repository.get("home");
    if (record !== undefined)
      first.repository.edit(record, (now) => ({ ...now, state: "CREATING", message: "" }));
    first.disk.faults.fail = () => undefined;

    const second = workspaced({ store: first.store, disk: first.disk, directory: first.directory });
    await second.workspaces.resume();
    expect(second.workspaces.get("home").state).toBe("READY");
    expect(second.disk.spaces.size).toBe(1);
  });

  test("finishes a deletion, a restore, and takes back a snapshot that was torn", async () => {
    const first = workspaced();
    await first.create("gone");
    await first.create("home");
    await first.snapshots.create("home", "good");
    first.disk.faults.fail = (verb) => {
      if (verb === "remove" || verb === "restore" || verb === "removeSnapshot") throw kill;
      if (verb === "snapshot") throw kill;
    };
    await first.workspaces.delete("gone").catch(() => undefined);
    await first.snapshots.create("home", "torn").catch(() => undefined);
    await first.snapshots.restore("home", "good").catch(() => undefined);
    expect(first.repository.get("home")).toMatchObject({ restoring: "good" });
    first.disk.faults.fail = () => undefined;

    const second = workspaced({ store: first.store, disk: first.disk, directory: first.directory });
    second.disk.steps.length = 0;
    await second.workspaces.resume();
    expect(second.repository.all().map(({ id }) => id)).toEqual(["home"]);
    const home = second.workspaces.get("home");
    expect(home.snapshots.map(({ id }) => id)).toEqual(["good"]);
    expect(home.restoring).toBeUndefined();
    const name = [...second.disk.spaces.keys()][0] ?? "";
    expect(second.disk.steps).toEqual(expect.arrayContaining([`restore ${name}`, `removeSnapshot ${name}`]));
  });

  test("completes a restore before a sandbox that starts at once sees anything of it", async () => {
    const first = workspaced();
    await first.create("home");
    await first.snapshots.create("home", "good");
    first.disk.faults.fail = (verb) => {
      if (verb === "restore") throw kill;
    };
    await first.snapshots.restore("home", "good").catch(() => undefined);
    first.disk.faults.fail = () => undefined;
    const second = workspaced({ store: first.store, disk: first.disk, directory: first.directory });
    second.disk.steps.length = 0;
    await second.workspaces.ready("home", "acme");
    await second.workspaces.resume();
    expect(second.disk.steps.map((step) => step.split(" ")[0])).toEqual(["restore", "ready", "ready"]);
    expect(second.workspaces.get("home").restoring).toBeUndefined();
  });

  test("has each workspace's record beside its files before it is READY, and again after a kill", async () => {
    const first = workspaced();
    const recordsOf = ({ directory }: typeof first) => readdirSync(`${directory}/records`);
    const seen: (readonly string[])[] = [];
    first.repository.subscribe((id) => {
      if (first.repository.get(id)?.state === "READY") seen.push(recordsOf(first));
    });
    await first.create("home");
    expect(seen).toEqual([[expect.stringMatching(/^home-.*\.json$/)]]);
    const before = recordsOf(first);
    rmSync(`${first.directory}/records`, { recursive: true });

    const second = workspaced({ store: first.store, disk: first.disk, directory: first.directory });
    await second.workspaces.resume();
    expect(recordsOf(second)).toEqual(before);
  });

  test("takes back workspaces that a lost state does not know, with their owner and project id", async () => {
    const first = workspaced();
    await first.create("home", { labels: { team: "a" } });
    await first.snapshots.create("home", "monday");
    const made = first.workspaces.get("home");
    const lost = openStore({
      directory: `${first.directory}/state`,
      eventRetention: { count: 1_000, ageMs: 3_600_000 },
    });
    const second = workspaced({ store: lost, disk: first.disk, directory: first.directory });
    await second.workspaces.takeBack();
    await second.workspaces.takeBack();
    expect(second.workspaces.get("home")).toEqual(made);
    expect(second.tenants.get("acme")?.uid).toBe(made.uid);
    expect((await second.create("other")).projectId).toBe(made.projectId + 1);
    lost.close();
  });
});

test("a state that cannot be written while one is made keeps nothing of it from being finished later", async () => {
  const parts = workspaced();
  const { transact } = parts.store;
  let isFull = false;
  Object.assign(parts.store, {
    transact(change: Parameters<typeof transact>[0]) {
      if (isFull) throw new SandboxdError("STATE_DISK_FULL", "no space left");
      return transact(change);
    },
  });
  parts.disk.faults.fail = (verb, when) => {
    if (verb === "create" && when === "after") isFull = true;
  };
  expect(await reasonOf(parts.create("home"))).toBe("STATE_DISK_FULL");
  expect(parts.repository.get("home")?.state).toBe("CREATING");
  expect(await reasonOf(parts.create("other"))).toBe("STATE_DISK_FULL");
  expect(parts.repository.get("other"), "nothing is left of what was not accepted").toBeUndefined();
  isFull = false;
  parts.disk.faults.fail = () => undefined;
  await parts.workspaces.look();
  expect(parts.repository.get("home")?.state).toBe("READY");
  expect((await parts.create("home")).state).toBe("READY");
});

test("a tenant goes only after its workspaces: refused, or with all of them when told", async () => {
  const { create, tenants, repository, disk } = workspaced();
  await create("one");
  await create("two");
  const actor = { kind: "CALLER", identity: "test" } as const;
  await expect(tenants.delete("acme", { cascade: false, actor })).rejects.toMatchObject({
    reason: "TENANT_NOT_EMPTY",
    message: expect.stringContaining("2 workspaces"),
  });
  await tenants.delete("acme", { cascade: true, actor });
  expect(repository.all()).toEqual([]);
  expect(disk.spaces.size).toBe(0);
  expect(tenants.get("acme")).toBeUndefined();
});

test("what a backend cannot hold is refused: inodes, and soft limits that come to hold", async () => {
  const btrfs = workspaced({ disk: modelDisk({ kind: "BTRFS", boundsInodes: false }) });
  expect(await reasonOf(btrfs.create("home", { limits: { inodes: 100 } }))).toBe("LIMIT_UNENFORCEABLE");
  expect((await btrfs.create("home")).limits).toEqual({ bytes: 64 * mebibyte });
  const image = workspaced({ disk: modelDisk({ kind: "LOOP_IMAGE", resizesLive: false }) });
  const limits = { softBytes: mebibyte, softGraceMs: 60_000 };
  expect(await reasonOf(image.create("home", { limits }))).toBe("LIMIT_UNENFORCEABLE");
  expect((await image.create("home", { limits: { softBytes: mebibyte } })).limits.softBytes).toBe(mebibyte);
});
