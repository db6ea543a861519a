import { describe, expect, test } from "vitest";
import { mebibyte, modelDisk, workspaced } from "./fixture.ts";

describe("a snapshot", () => {
  test("is counted against the tenant's disk, told, and the same again is the same one", async () => {
    const { create, snapshots, disk, room, told } = workspaced({ quota: { diskBytes: 100 * mebibyte } });
    await create("home");
    for (const space of disk.spaces.values()) space.used = { bytes: 30 * mebibyte, inodes: 9 };
    const { snapshot } = await snapshots.create("home", "monday");
    expect(snapshot).toMatchObject({
      id: "monday",
      counted: { bytes: 30 * mebibyte, inodes: 9 },
      isComplete: true,
    });
    expect(room.promised().bytes).toBe(94 * mebibyte);
    expect((await snapshots.create("home", "monday")).snapshot).toEqual(snapshot);
    await expect(snapshots.create("home", "tuesday")).rejects.toMatchObject({
      reason: "TENANT_QUOTA_EXCEEDED",
      details: { quotas: [{ resource: "disk_bytes", limit: 100 * mebibyte }] },
    });
    await snapshots.delete("home", "monday");
    await snapshots.delete("home", "monday");
    expect(room.promised().bytes).toBe(64 * mebibyte);
    expect(await told()).toEqual(["WORKSPACE_CREATED", "READY", "SNAPSHOT_CREATED", "SNAPSHOT_DELETED"]);
  });

  test("that fails is not kept, nor counted", async () => {
    const { create, snapshots, disk, workspaces, room } = workspaced();
    await create("home");
    disk.faults.fail = (verb) => {
      if (verb === "snapshot") throw new Error("the disk is full");
    };
    await expect(snapshots.create("home", "monday")).rejects.toThrow("the disk is full");
    expect(workspaces.get("home").snapshots).toEqual([]);
    expect(room.promised().bytes).toBe(64 * mebibyte);
  });

  test("by copying is refused while sandboxes run; one of a moment is not", async () => {
    const copying = workspaced();
    await copying.create("home");
    copying.use("sb", "home");
    await expect(copying.snapshots.create("home", "a")).rejects.toMatchObject({ reason: "WORKSPACE_IN_USE" });
    const atomic = workspaced({
      disk: modelDisk({ kind: "BTRFS", boundsInodes: false, isSnapshotAtomic: true }),
    });
    await atomic.create("home");
    atomic.use("sb", "home");
    expect((await atomic.snapshots.create("home", "a")).snapshot.id).toBe("a");
  });

  test("is restored while nothing runs, if it fits into the limits as they are now", async () => {
    const { create, snapshots, disk, use, unuse, workspaces, told } = workspaced();
    await create("home");
    const [space] = disk.spaces.values();
    if (space === undefined) throw new Error("there is no space");
    space.used = { bytes: 40 * mebibyte, inodes: 9 };
    await snapshots.create("home", "full");
    space.used = { bytes: mebibyte, inodes: 9 };
    use("sb", "home");
    await expect(snapshots.restore("home", "full")).rejects.toMatchObject({ reason: "WORKSPACE_IN_USE" });
    unuse("sb");
    await snapshots.restore("home", "full");
    expect(space.used.bytes).toBe(40 * mebibyte);
    space.used = { bytes: mebibyte, inodes: 9 };
    await workspaces.update({ id: "home", limits: { bytes: 32 * mebibyte }, clearsSoft: false });
    await expect(snapshots.restore("home", "full")).rejects.toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
    await expect(snapshots.restore("home", "other")).rejects.toMatchObject({ reason: "SNAPSHOT_NOT_FOUND" });
    expect(await told()).toContain("SNAPSHOT_RESTORED");
  });

  test("under way keeps sandboxes from starting with the workspace, at once and not by waiting", async () => {
    const { create, snapshots, disk, workspaces } = workspaced();
    await create("home");
    const taking = snapshots.create("home", "slow");
    // the step begins in the workspace's queue
    while (!disk.steps.some((step) => step.startsWith("snapshot")) && !workspaces.isBusy("home")) {
      await Promise.resolve();
    }
    await expect(workspaces.ready("home", "acme")).rejects.toMatchObject({ reason: "WORKSPACE_IN_USE" });
    await taking;
    expect(await workspaces.ready("home", "acme")).toBeDefined();
  });

  test("more than 64 of one workspace are refused", async () => {
    const { create, snapshots } = workspaced();
    await create("home");
    for (let index = 0; index < 64; index += 1) await snapshots.create("home", `s-${index}`);
    await expect(snapshots.create("home", "one-more")).rejects.toMatchObject({ reason: "INVALID_STATE" });
  });
});
