// Workspaces through the API: made, mounted, held within their limits, kept and removed, on the real engine and real disks.

import { spawnSync } from "node:child_process";
import { existsSync, lstatSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { QuotaFailureSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { type Workspace, WorkspaceBackend, WorkspaceState } from "../../gen/sandboxd/v1/workspace_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { type FileSystem, fileSystemObstacle, openFileSystem } from "../harness/file-system.ts";
import {
  eventually,
  isIn,
  type LocalHost,
  mebibyte,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

/** Four sandboxes each. */
const swapRounds = Number(process.env["SANDBOXD_TEST_SWAP_ROUNDS"] ?? 3);

const size = (mebibytes: number) => BigInt(mebibytes * mebibyte);

describe.skipIf(engineObstacle !== undefined)(`workspaces (${engineObstacle ?? "engine"})`, () => {
  let host: LocalHost;
  beforeEach(async () => {
    host = await startHost({ config: { workspaces: { backend: "loop-image", reserve_bytes: 0 } } });
  });
  afterEach(() => host?.daemon.cleanup());

  const create = async (workspaceId: string, limits = {}, owner = tenant): Promise<Workspace> =>
    present(
      (
        await host.workspaces.createWorkspace({
          workspaceId,
          tenant: owner,
          limits: { sizeBytes: size(32), ...limits },
        })
      ).workspace,
    );
  const get = async (workspaceId: string): Promise<Workspace> =>
    present((await host.workspaces.getWorkspace({ workspaceId })).workspace);
  const run = async (
    sandboxId: string,
    script: string,
    workspaceId: string,
    readOnly = false,
    owner = tenant,
  ) =>
    present(
      (
        await host.sandboxes.createSandbox({
          sandboxId,
          tenant: owner,
          spec: { ...specOf(script), workspace: { workspaceId, readOnly } },
        })
      ).sandbox,
    );
  /** What a script in a sandbox of its own says, once it has ended. */
  const saidBy = async (sandboxId: string, script: string, workspaceId: string, readOnly = false) => {
    await run(sandboxId, script, workspaceId, readOnly);
    await host.until(
      sandboxId,
      (sandbox) => isIn(SandboxState.STOPPED)(sandbox) || isIn(SandboxState.FAILED)(sandbox),
    );
    const said = await host.output(sandboxId);
    await host.sandboxes.deleteSandbox({ sandboxId });
    return said;
  };
  const folder = () => join(host.daemon.stateDirectory, "workspaces");
  const spaces = () => (existsSync(join(folder(), "spaces")) ? readdirSync(join(folder(), "spaces")) : []);

  test("is made with its layout, its tenant's alone, and outlives sandboxes", async () => {
    const made = await create("home");
    expect(made.status).toMatchObject({ state: WorkspaceState.READY, uid: 300_000n, sandboxIds: [] });
    const said = await saidBy(
      "one",
      "pwd; stat -c '%a %u %g %n' . projects tmp cache; echo kept > projects/file; grep ' /workspace ' /proc/mounts",
      "home",
    );
    expect(said).toMatch(/^\/workspace\n700 300000 300000 \.\n700 300000 300000 projects\n/);
    expect(said).toMatch(/\/workspace ext4 rw,nosuid,nodev/);
    expect(await saidBy("two", "cat projects/file", "home")).toBe("kept\n");
    expect(await saidBy("three", "cat projects/file; touch projects/x 2>&1", "home", true)).toMatch(
      /^kept\n.*Read-only file system/s,
    );
    const after = await get("home");
    expect(after.status?.usage?.bytes).toBeGreaterThan(0n);
  });

  test("a full one harms only who fills it: the write is refused, by bytes and by files", async () => {
    await create("home", { inodes: 200n });
    await create("other");
    const full = await saidBy(
      "filler",
      "dd if=/dev/zero of=big bs=1M count=64 2>&1 | tail -1; stat -c %s big; rm big; i=0; while touch tmp/$i 2>/dev/null; do i=$((i+1)); done; echo $i files",
      "home",
    );
    const [, bytes, files] = /(\d+)\n(\d+) files/.exec(full) ?? [];
    expect(Number(bytes)).toBeGreaterThan(20 * mebibyte);
    expect(Number(bytes)).toBeLessThan(32 * mebibyte);
    expect(Number(files)).toBeGreaterThan(100);
    expect(Number(files)).toBeLessThanOrEqual(200);
    expect(await saidBy("neighbour", "echo fine > projects/a && cat projects/a", "other")).toBe("fine\n");
  });

  test("cannot be mounted by another tenant, for whom it is not there, nor be made twice", async () => {
    await create("home");
    const theirs = await refusalOf(run("thief", sleeping, "home", false, "other"));
    const absent = await refusalOf(run("thief", sleeping, "nothing", false, "other"));
    expect(theirs).toMatchObject({ code: "NotFound", reason: "WORKSPACE_NOT_FOUND" });
    expect(theirs.message).toBe(absent.message.replace("nothing", "home"));
    expect(await host.containers()).toEqual([]);
    const again = await refusalOf(create("home", { sizeBytes: size(64) }));
    expect(again).toMatchObject({ code: "AlreadyExists", reason: "WORKSPACE_ALREADY_EXISTS" });
    expect((await create("home")).generation).toBe(1n);
  });

  test("is not deleted while sandboxes are with it, and leaves nothing once it is", async () => {
    await create("home");
    await run("one", sleeping, "home");
    expect((await get("home")).status?.sandboxIds).toEqual(["one"]);
    const used = await refusalOf(host.workspaces.deleteWorkspace({ workspaceId: "home" }));
    expect(used).toMatchObject({ code: "FailedPrecondition", reason: "WORKSPACE_IN_USE" });
    await host.sandboxes.deleteSandbox({ sandboxId: "one" });
    await host.workspaces.deleteWorkspace({ workspaceId: "home" });
    await host.workspaces.deleteWorkspace({ workspaceId: "home" });
    expect(await refusalOf(get("home"))).toMatchObject({ reason: "WORKSPACE_NOT_FOUND" });
    expect(spaces()).toEqual([]);
    expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(`${folder()}/spaces/`);
    const { events } = await host.events.listEvents({ filter: { tenant }, pageSize: 100 });
    const kinds = events.filter((event) => event.workspace !== undefined).map(({ type }) => EventType[type]);
    expect(kinds).toEqual([
      ...["WORKSPACE_CREATED", "WORKSPACE_STATE_CHANGED"],
      ...["WORKSPACE_STATE_CHANGED", "WORKSPACE_DELETED"],
    ]);
  });

  test("is counted against the tenant's quota, the host's disk, and told in the same numbers", async () => {
    await host.tenants.putTenant({ tenant, quota: { diskBytes: size(80), workspaces: 5n } });
    const watching = new AbortController();
    const watched = (async () => {
      const watch = host.host.watchHost({ statsPeriod: { seconds: 3_600n } }, { signal: watching.signal });
      for await (const { update } of watch)
        if (update.case === "host" && update.value.workspaces?.promisedBytes === size(32)) return "told";
      return "not told";
    })();
    await create("one");
    expect(await watched).toBe("told");
    watching.abort();
    await create("two");
    const refused = await refusalOf(create("three"));
    expect(refused).toMatchObject({ code: "ResourceExhausted", reason: "TENANT_QUOTA_EXCEEDED" });
    expect(refused.error.findDetails(QuotaFailureSchema)[0]?.violations).toMatchObject([
      { subject: "tenant/disk_bytes", quotaValue: size(80) },
    ]);
    const { tenant: told } = await host.tenants.getTenant({ tenant });
    expect(told?.status?.promised).toMatchObject({ workspaces: 2n, diskBytes: size(64), inodes: 4_096n });
    const { host: seen } = await host.host.getHost({});
    expect(seen?.workspaces).toMatchObject({ promisedBytes: size(64), workspaces: 2n });
    const big = await refusalOf(create("big", { sizeBytes: BigInt(2 ** 43) }, "rich"));
    expect(big).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
    expect(spaces()).toHaveLength(2);
    await refusalOf(host.tenants.deleteTenant({ tenant }));
    await host.tenants.deleteTenant({ tenant, cascade: true });
    expect(spaces()).toEqual([]);
  });

  test("is there again after a kill, a restart and an unmount, and sandboxes with it run on", async () => {
    await create("home");
    await run("one", "echo before > projects/a; exec sleep 1000", "home");
    await host.daemon.kill("SIGKILL");
    await host.daemon.start();
    await host.until("one", isIn(SandboxState.RUNNING));
    expect(await saidBy("two", "cat projects/a", "home")).toBe("before\n");
    await host.sandboxes.deleteSandbox({ sandboxId: "one" });
    await host.daemon.stop();
    // as a reboot leaves it
    for (const name of spaces()) expect(spawnSync("umount", [join(folder(), "spaces", name)]).status).toBe(0);
    await host.daemon.start();
    expect(await saidBy("three", "cat projects/a", "home")).toBe("before\n");
  });

  test("one that a lost state does not know is taken back", async () => {
    await create("home");
    await saidBy("one", "echo before > projects/a", "home");
    await host.daemon.stop();
    for (const name of readdirSync(host.daemon.stateDirectory).filter((one) => one.startsWith("state.db"))) {
      spawnSync("rm", ["-f", join(host.daemon.stateDirectory, name)]);
    }
    await host.daemon.start();
    const back = await eventually(
      "the workspace",
      async () => (await host.workspaces.listWorkspaces({})).workspaces,
      (found) => found.length === 1,
    );
    expect(back[0]).toMatchObject({ workspaceId: "home", tenant });
    expect(await saidBy("two", "cat projects/a", "home")).toBe("before\n");
  });

  test("snapshots keep what was, and bring it back", async () => {
    await create("home");
    await saidBy("one", "echo first > projects/a", "home");
    const { snapshot } = await host.workspaces.createSnapshot({ workspaceId: "home", snapshotId: "monday" });
    expect(snapshot).toMatchObject({ snapshotId: "monday", workspaceId: "home", tenant });
    await run("two", "echo second > projects/a; rm -r cache; exec sleep 1000", "home");
    const used = await refusalOf(
      host.workspaces.restoreSnapshot({ workspaceId: "home", snapshotId: "monday" }),
    );
    expect(used).toMatchObject({ code: "FailedPrecondition", reason: "WORKSPACE_IN_USE" });
    await host.sandboxes.deleteSandbox({ sandboxId: "two" });
    await host.workspaces.restoreSnapshot({ workspaceId: "home", snapshotId: "monday" });
    expect(await saidBy("three", "cat projects/a; ls", "home")).toBe("first\ncache\nprojects\ntmp\n");
    expect((await host.workspaces.listSnapshots({ workspaceId: "home" })).snapshots).toHaveLength(1);
    const { tenant: told } = await host.tenants.getTenant({ tenant });
    expect(told?.status?.promised?.diskBytes).toBe(size(64));
    await host.workspaces.deleteSnapshot({ workspaceId: "home", snapshotId: "monday" });
    expect((await get("home")).status?.snapshots).toBe(0);
  });

  test("goes out as an archive and comes back from one, into another workspace", async () => {
    await create("home");
    await create("copy");
    await saidBy("one", "echo words > projects/a; ln -s a projects/link; chmod 750 projects/a", "home");
    const pieces: Uint8Array[] = [];
    for await (const { data } of host.workspaces.exportWorkspace({ workspaceId: "home" })) pieces.push(data);
    async function* archive() {
      yield { part: { case: "target" as const, value: { workspaceId: "copy" } } };
      for (const data of pieces) yield { part: { case: "data" as const, value: data } };
    }
    const { bytes, entries } = await host.workspaces.importWorkspace(archive());
    expect(bytes).toBe(6n);
    expect(entries).toBeGreaterThanOrEqual(5n);
    expect(await saidBy("two", "cat projects/link; stat -c '%a %u' projects/a", "copy")).toBe(
      "words\n750 300000\n",
    );
    async function* noise() {
      yield { part: { case: "target" as const, value: { workspaceId: "copy" } } };
      yield { part: { case: "data" as const, value: new Uint8Array(1_024).fill(7) } };
    }
    expect(await refusalOf(host.workspaces.importWorkspace(noise()))).toMatchObject({
      code: "InvalidArgument",
      reason: "ARCHIVE_REFUSED",
    });
    // who had the files of a tenant, and of which workspace, is in the audit
    for (const [method, id] of [
      ["ExportWorkspace", "home"],
      ["ImportWorkspace", "copy"],
    ]) {
      const line = new RegExp(
        `"audit":true,"method":"sandboxd.v1.WorkspaceService/${method}".*"workspace_id":"${id}"`,
      );
      await eventually(
        "the audit",
        () => host.daemon.logs(),
        (logs) => line.test(logs),
      );
    }
    await run("busy", sleeping, "copy");
    expect(await refusalOf(host.workspaces.importWorkspace(archive()))).toMatchObject({
      reason: "WORKSPACE_IN_USE",
    });
  });

  test("a backup brings a deleted workspace back: the drill of a restore", async () => {
    const archives = join(host.daemon.stateDirectory, "..", "backups");
    await create("home");
    const script =
      "mkdir projects/src; echo 'int main;' > projects/src/a.c; ln -s src projects/link; chmod 700 projects/src";
    await saidBy("one", script, "home");
    host.daemon.configure({
      workspaces: { backend: "loop-image", reserve_bytes: 0 },
      backups: { to: "directory", every: "10s", directory: archives, keep: 2 },
    });
    await host.daemon.restart();
    const isBackedUp = ({ status }: Workspace) => status?.lastBackup !== undefined;
    const { status } = await eventually("a backup", () => get("home"), isBackedUp, 60_000);
    expect(status?.lastBackup).toMatchObject({ error: "" });
    await host.workspaces.deleteWorkspace({ workspaceId: "home" });

    const folder = join(archives, tenant, "home");
    const newest = readdirSync(folder).sort().at(-1) ?? "";
    const archive = readFileSync(join(folder, newest));
    await create("home");
    await host.workspaces.importWorkspace(
      (async function* () {
        yield { part: { case: "target" as const, value: { workspaceId: "home" } } };
        for (let at = 0; at < archive.length; at += 65_536) {
          yield { part: { case: "data" as const, value: archive.subarray(at, at + 65_536) } };
        }
      })(),
    );
    expect(await saidBy("two", "cat projects/link/a.c; stat -c '%a %u' projects/src", "home")).toBe(
      "int main;\n700 300000\n",
    );
  });

  test("nothing but the tenant's own directory is ever mounted, whatever links the tenant swaps", async () => {
    await create("home");
    const [space = ""] = spaces();
    const content = join(folder(), "spaces", space, "data");
    const { dev, ino } = lstatSync(content);
    await run(
      "swapper",
      "while :; do rm -rf projects; ln -s /etc projects; rm -f projects; mkdir projects; done",
      "home",
    );
    const seen: string[] = [];
    for (let index = 0; index < swapRounds; index += 1) {
      await Promise.all(
        Array.from({ length: 4 }, async (_, lane) => {
          const id = `looker-${index}-${lane}`;
          seen.push(await saidBy(id, "stat -c '%d %i' /workspace; ls -a / | grep -c shadow", "home"));
        }),
      );
    }
    expect(new Set(seen)).toEqual(new Set([`${dev} ${ino}\n0\n`]));
    expect(statSync(join(folder(), "spaces")).uid).toBe(0);
  }, 600_000);

  test("an image changes only while nothing runs with it, and says so; a soft limit of it only warns", async () => {
    await create("home", { softBytes: size(8) });
    await run(
      "user",
      "dd if=/dev/zero of=big bs=1M count=12 2>/dev/null; echo written; exec sleep 1000",
      "home",
    );
    const grow = () =>
      host.workspaces.updateWorkspace({ workspaceId: "home", limits: { sizeBytes: size(48) } });
    const refused = await refusalOf(grow());
    expect(refused).toMatchObject({ code: "FailedPrecondition", reason: "LIMIT_UNENFORCEABLE" });
    const { status } = await eventually(
      "the soft limit",
      () => get("home"),
      (now) => now.status?.softLimit !== undefined,
    );
    expect(status?.softLimit).toMatchObject({ limits: ["soft_bytes"], enforced: false });
    // it may be over the soft limit before it has written all
    await eventually(
      "all of the file",
      () => host.output("user"),
      (said) => said === "written\n",
    );
    await host.sandboxes.deleteSandbox({ sandboxId: "user" });
    expect((await grow()).workspace?.limits?.sizeBytes).toBe(size(48));
    expect(await saidBy("after", "stat -c %s big", "home")).toBe(`${12 * mebibyte}\n`);
  });

  test("a sandbox whose workspace cannot be mounted fails with the reason, and starts once it can", async () => {
    await create("home");
    await run("one", sleeping, "home");
    await host.sandboxes.stopSandbox({ sandboxId: "one" });
    await host.daemon.stop();
    const [name = ""] = spaces();
    spawnSync("umount", [join(folder(), "spaces", name)]);
    const image = join(folder(), "images", `${name}.img`);
    spawnSync("mv", [image, `${image}.away`]);
    await host.daemon.start();
    const failed = await refusalOf(host.sandboxes.startSandbox({ sandboxId: "one" }));
    expect(failed).toMatchObject({ code: "FailedPrecondition", reason: "WORKSPACE_UNAVAILABLE" });
    expect((await get("home")).status).toMatchObject({ state: WorkspaceState.UNAVAILABLE });
    spawnSync("mv", [`${image}.away`, image]);
    const { sandbox } = await host.sandboxes.startSandbox({ sandboxId: "one" }).catch(async () => {
      await eventually(
        "the workspace",
        () => get("home"),
        ({ status }) => status?.state === WorkspaceState.READY,
        60_000,
      );
      return host.sandboxes.startSandbox({ sandboxId: "one" });
    });
    expect(whereIs(present(sandbox)).state).toBe("RUNNING");
  });
});

describe.skipIf(engineObstacle !== undefined || fileSystemObstacle !== undefined)(
  "workspaces on btrfs",
  () => {
    let disk: FileSystem;
    let host: LocalHost;
    beforeEach(async () => {
      // the tests' engine has mounts of its own, and is not told of flags that a mount gets later
      disk = openFileSystem("btrfs", 1_024 ** 3, ["nosuid", "nodev"]);
      const directory = join(disk.directory, "workspaces");
      host = await startHost({ config: { workspaces: { backend: "auto", directory, reserve_bytes: 0 } } });
    });
    afterEach(async () => {
      await host?.daemon.cleanup();
      disk?.close();
    });

    const script = (text: string) => ({ ...specOf(text), workspace: { workspaceId: "home" } });
    const create = (limits: object) =>
      host.workspaces.createWorkspace({
        workspaceId: "home",
        tenant,
        limits: { sizeBytes: size(64), ...limits },
      });
    const get = async () => present((await host.workspaces.getWorkspace({ workspaceId: "home" })).workspace);

    test("a soft limit warns, holds after its grace, and is given back; limits and snapshots change under a sandbox", async () => {
      const { workspace } = await create({ softBytes: size(8), softGrace: { seconds: 2n } });
      expect(workspace?.status?.backend).toBe(WorkspaceBackend.BTRFS);
      const dd = "dd if=/dev/urandom bs=1M conv=fsync";
      const steps = `
      ${dd} of=first count=12 2>/dev/null; sync first; echo one > tmp/done
      while ! test -e tmp/go; do sleep 0.2; done
      ${dd} of=second count=16 2>/tmp/said; grep -o 'quota exceeded' /tmp/said
      rm -f first second; echo two > tmp/done
      while ! test -e tmp/again; do sleep 0.2; done
      ${dd} of=third count=6 2>/dev/null && echo fine; exec sleep 1000`;
      await host.sandboxes.createSandbox({ sandboxId: "user", tenant, spec: script(steps) });
      const until = (what: string, isSo: (workspace: Workspace) => boolean) =>
        eventually(what, get, isSo, 90_000);
      await until("the warning", ({ status }) => status?.softLimit !== undefined);
      await host.workspaces.createSnapshot({ workspaceId: "home", snapshotId: "live" });
      await until("the end of the grace", ({ status }) => status?.softLimit?.enforced === true);
      const inside = async (command: string) => {
        const { status } = await host.get("user");
        const exec = await host.docker
          .getContainer(present(status).containerId)
          .exec({ Cmd: ["sh", "-c", command], User: `${status?.uid}:${status?.uid}`, AttachStdout: true });
        await exec.start({});
      };
      await inside("touch /workspace/tmp/go");
      await eventually(
        "the refusal",
        () => host.output("user"),
        (said) => said.includes("quota exceeded"),
        90_000,
      );
      await until("what was given back", ({ status }) => status?.softLimit === undefined);
      await inside("touch /workspace/tmp/again");
      await eventually(
        "more",
        () => host.output("user"),
        (said) => said.includes("fine"),
        90_000,
      );
      const grown = await host.workspaces.updateWorkspace({
        workspaceId: "home",
        limits: { sizeBytes: size(80) },
      });
      expect(grown.workspace?.limits?.sizeBytes).toBe(size(80));
      const { events } = await host.events.listEvents({ filter: { tenant }, pageSize: 200 });
      const kinds = events
        .filter((event) => event.workspace !== undefined)
        .map(({ type }) => EventType[type]);
      expect(kinds.filter((kind) => kind === "WORKSPACE_SOFT_LIMIT")).toHaveLength(3);
      expect(kinds).toContain("SNAPSHOT_CREATED");
    }, 300_000);

    test("files cannot be bounded: asking for it is refused, and nothing is left", async () => {
      const refused = await refusalOf(create({ inodes: 1_000n }));
      expect(refused).toMatchObject({ code: "FailedPrecondition", reason: "LIMIT_UNENFORCEABLE" });
      expect(refused.message).toContain("limits.inodes");
      expect((await host.workspaces.listWorkspaces({})).workspaces).toEqual([]);
    });
  },
);
