// Workspaces under a daemon that is killed, a disk that is full, and a caller that is gone, on real images.

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { WorkspaceState } from "../../gen/sandboxd/v1/workspace_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import {
  type FileSystem,
  fileSystemObstacle,
  loopFilesBelow,
  mountsBelow,
  openFileSystem,
} from "../harness/file-system.ts";
import {
  eventually,
  type LocalHost,
  mebibyte,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  tenant,
} from "../harness/sandboxes.ts";

const obstacle = engineObstacle ?? fileSystemObstacle;
const sizeBytes = BigInt(32 * mebibyte);
const kills = 12;

describe.skipIf(obstacle !== undefined)(`workspaces (${obstacle ?? "engine"})`, () => {
  let host: LocalHost | undefined;
  let disk: FileSystem | undefined;
  afterEach(async () => {
    await host?.daemon.cleanup();
    disk?.close();
    host = undefined;
    disk = undefined;
  });

  async function start(directory?: string) {
    const workspaces = { backend: "loop-image", reserve_bytes: 0, overcommit: 100 };
    host = await startHost({
      config: { workspaces: directory === undefined ? workspaces : { ...workspaces, directory } },
    });
    return { ...host, place: directory ?? join(host.daemon.stateDirectory, "workspaces") };
  }
  const namesIn = (directory: string) => (existsSync(directory) ? readdirSync(directory) : []);
  const recordsIn = (place: string) =>
    namesIn(join(place, "records")).filter((name) => name.endsWith(".json"));

  test("are whole or gone after a SIGKILL at any moment, and what is on disk is what is recorded", async () => {
    const { daemon, workspaces, place } = await start();
    for (let index = 0; index < kills; index += 1) {
      const workspaceId = `ws-${index}`;
      const life = (async () => {
        await workspaces.createWorkspace({ workspaceId, tenant, limits: { sizeBytes } });
        await workspaces.createSnapshot({ workspaceId, snapshotId: "one" });
        await workspaces.restoreSnapshot({ workspaceId, snapshotId: "one" });
        if (index % 2 === 0) await workspaces.deleteWorkspace({ workspaceId });
      })().catch(() => undefined);
      await sleep(20 + index * 25);
      await daemon.kill("SIGKILL");
      await life;
      await daemon.start();
    }
    const rested = await eventually(
      "all of them at rest",
      async () => (await workspaces.listWorkspaces({})).workspaces,
      (all) => all.every(({ status }) => status?.state === WorkspaceState.READY),
      90_000,
    );
    // the same requests mean the same workspaces
    for (let index = 0; index < kills; index += 1) {
      const workspaceId = `ws-${index}`;
      await workspaces.createWorkspace({ workspaceId, tenant, limits: { sizeBytes } });
    }
    expect(rested.length).toBeLessThanOrEqual(kills);
    expect(namesIn(join(place, "spaces"))).toHaveLength(kills);
    expect(recordsIn(place)).toHaveLength(kills);
    for (const { workspaceId } of (await workspaces.listWorkspaces({})).workspaces)
      await workspaces.deleteWorkspace({ workspaceId });
    expect([...namesIn(join(place, "spaces")), ...recordsIn(place), ...loopFilesBelow(place)]).toEqual([]);
  });

  test("that do not fit on the disk are refused with nothing left, and fit once there is room", async () => {
    disk = openFileSystem("ext4", 128 * mebibyte, ["nosuid", "nodev"]);
    const { workspaces, place } = await start(join(disk.directory, "workspaces"));
    const create = (workspaceId: string) =>
      workspaces.createWorkspace({ workspaceId, tenant, limits: { sizeBytes } });
    const made: string[] = [];
    let refused: Awaited<ReturnType<typeof refusalOf>> | undefined;
    for (let index = 0; refused === undefined; index += 1) {
      const workspaceId = `ws-${index}`;
      try {
        await create(workspaceId);
        made.push(workspaceId);
      } catch (error) {
        refused = await refusalOf(Promise.reject(error));
      }
    }
    expect(refused).toMatchObject({ code: "FailedPrecondition", reason: "LIMIT_UNENFORCEABLE" });
    expect(made.length).toBeGreaterThanOrEqual(1);
    expect(namesIn(join(place, "spaces"))).toHaveLength(made.length);
    expect(mountsBelow(place)).toHaveLength(made.length);
    expect((await workspaces.listWorkspaces({})).workspaces).toHaveLength(made.length);
    await workspaces.deleteWorkspace({ workspaceId: made[0] ?? "" });
    await create("later");
  });

  test("are free again when the caller of an import goes away in the middle of it", async () => {
    const { workspaces, sandboxes } = await start();
    await workspaces.createWorkspace({ workspaceId: "home", tenant, limits: { sizeBytes } });
    const going = new AbortController();
    async function* half() {
      yield { part: { case: "target" as const, value: { workspaceId: "home" } } };
      // a beginning of an archive: the header of a file of 1 MiB, whose content never comes
      const header = Buffer.alloc(512);
      header.write("projects/a");
      header.write("0000644\0", 100);
      header.write("0004000000\0", 124);
      header.write("        0", 148);
      header.write("ustar\u000000", 257);
      const sum = header.reduce((total, byte) => total + byte, 0);
      header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
      yield { part: { case: "data" as const, value: header } };
      await sleep(600_000, undefined, { signal: going.signal, ref: false }).catch(() => undefined);
    }
    const importing = workspaces.importWorkspace(half(), { signal: going.signal }).catch(() => "given up");
    await sleep(1_000);
    const starting = sandboxes.createSandbox({
      sandboxId: "user",
      tenant,
      spec: { ...specOf(sleeping), workspace: { workspaceId: "home" } },
    });
    await sleep(500);
    going.abort();
    expect(await importing).toBe("given up");
    // it was tried again by itself
    expect((await starting).sandbox?.sandboxId).toBe("user");
  });
});
