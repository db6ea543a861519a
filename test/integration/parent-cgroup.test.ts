// Parent cgroups on the machine's own kernel, without an engine: groups made here, with real processes in them. Needs root, and
// write access to cgroups of either version with the cpu, memory and pids controllers.
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { accessSync, constants, existsSync, mkdirSync, readdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createParentCgroups } from "../../src/engine/parent-cgroup.ts";
import { engineMark, removeCgroups } from "../../tools/lib/leftovers.mjs";
import { isUnified } from "../harness/cgroup.ts";
import { eventually, mebibyte } from "../harness/sandboxes.ts";

const root = "/sys/fs/cgroup";
const hierarchies = isUnified ? [""] : existsSync(root) ? readdirSync(root) : [];
const cgroups = createParentCgroups({ version: isUnified ? 2 : 1 });

function findObstacle(): string | undefined {
  if (process.getuid?.() !== 0) return "not root";
  try {
    accessSync(join(root, isUnified ? "cgroup.subtree_control" : "memory"), constants.W_OK);
    return undefined;
  } catch {
    return "no cgroups that can be written";
  }
}
const obstacle = findObstacle();

describe.skipIf(obstacle !== undefined)(`parent cgroups (${obstacle ?? "of this kernel"})`, () => {
  let host: string;
  let tenant: string;
  let children: ChildProcess[];

  beforeEach(() => {
    // below the runner's name, so that it is removed even if this test is killed
    const runner = process.env[engineMark] ?? `sandboxd-test-${process.pid}`;
    host = `/${runner}-${randomBytes(4).toString("hex")}-parent`;
    tenant = `${host}/300001`;
    children = [];
  });

  afterEach(async () => {
    for (const child of children) end(child);
    await removeCgroups(host.slice(1));
  });

  /** Ends it with all that it has started. */
  function end({ pid }: ChildProcess): void {
    if (pid === undefined) return;
    try {
      process.kill(-pid, "SIGKILL");
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
    }
  }

  /** The kernel is done with a process a moment after it has ended. */
  function isRemoved(directory: string): boolean {
    try {
      rmdirSync(directory);
      return true;
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "EBUSY") return false;
      throw error;
    }
  }

  const directoriesOf = (group: string) =>
    hierarchies.map((name) => join(root, name, group)).filter((directory) => existsSync(directory));

  /** Runs a program in a group below the tenant's, which is in every hierarchy, as the engine makes them. */
  function runBelow(...command: readonly string[]): ChildProcess {
    const directories = hierarchies.map((name) => join(root, name, tenant, "container"));
    for (const directory of directories) mkdirSync(directory, { recursive: true });
    // a group of the cpuset controller takes nobody until it has CPUs
    const entered = directories.filter((directory) => !directory.includes("/cpuset/"));
    const enter = entered.map((directory) => `echo $$ >${directory}/cgroup.procs`).join(" && ");
    const options = { stdio: "ignore", detached: true } as const;
    const child = spawn("sh", ["-c", `${enter} && exec "$@"`, "sh", ...command], options);
    children.push(child);
    return child;
  }

  test("are made one in the other, hold their limits, and others when told so", async () => {
    await cgroups.hold(host, { cpuWeight: 2_048, memoryBytes: 512 * mebibyte, pids: 500 });
    const limits = { cpuMillis: 1_500, cpuWeight: 1_024, memoryBytes: 64 * mebibyte, pids: 100 };
    await cgroups.hold(tenant, limits);
    expect(cgroups.read(tenant)).toEqual({
      limits: { ...limits, cpuWeight: isUnified ? 999 : 1_024 },
      cpuUsageUsec: 0,
      memoryBytes: expect.any(Number),
      pids: 0,
    });
    for (const memoryBytes of [128 * mebibyte, 32 * mebibyte, 48 * mebibyte + 1]) {
      await cgroups.hold(tenant, { ...limits, cpuMillis: 250, memoryBytes });
      const pages = memoryBytes - (memoryBytes % mebibyte);
      expect(cgroups.read(tenant)?.limits).toMatchObject({ cpuMillis: 250, memoryBytes: pages });
    }
    await cgroups.hold(tenant, { cpuWeight: 2 });
    expect(cgroups.read(tenant)?.limits).toEqual({ cpuWeight: 2 });
    expect(cgroups.read(host)?.limits).toMatchObject({ memoryBytes: 512 * mebibyte, pids: 500 });
  });

  test("count and stop the processes of all groups within", async () => {
    await cgroups.hold(host, { cpuWeight: 1_024, pids: 10 });
    await cgroups.hold(tenant, { cpuWeight: 1_024 });
    // the shell ends when it cannot fork
    const child = runBelow("sh", "-c", "for i in $(seq 40); do sleep 1000 & done; wait");
    const [code] = await once(child, "exit");
    expect(code).not.toBe(0);
    expect(cgroups.read(tenant)?.pids).toBe(9);
    expect(cgroups.read(host)?.pids).toBe(9);
    expect(cgroups.read(host)?.cpuUsageUsec).toBeGreaterThan(0);
  });

  test("are refused less memory than is in use within, and then are as before", async () => {
    await cgroups.hold(host, { cpuWeight: 1_024 });
    const limits = { cpuWeight: 1_024, memoryBytes: 256 * mebibyte, pids: 100 };
    await cgroups.hold(tenant, limits);
    const before = cgroups.read(tenant)?.limits;
    const hold = "globalThis.held = Buffer.alloc(64 * 1024 * 1024, 1); setInterval(() => {}, 1000)";
    const child = runBelow(process.execPath, "--eval", hold);
    const used = () => cgroups.read(tenant)?.memoryBytes ?? 0;
    await eventually("memory in use", used, (bytes) => bytes > 64 * mebibyte);
    await expect(
      cgroups.hold(tenant, { cpuWeight: 512, memoryBytes: 16 * mebibyte, pids: 50 }),
    ).rejects.toMatchObject({
      reason: "LIMIT_UNENFORCEABLE",
      message: expect.stringContaining(`cgroup ${tenant} cannot have memoryBytes ${16 * mebibyte}`),
      details: { hint: expect.stringContaining("below what is in use") },
    });
    expect(cgroups.read(tenant)?.limits).toEqual(before);
    expect(child.exitCode ?? child.signalCode).toBeNull();
  });

  test.skipIf(isUnified)("are refused more CPU than the group around has", async () => {
    await cgroups.hold(host, { cpuWeight: 1_024, cpuMillis: 500 });
    await cgroups.hold(tenant, { cpuWeight: 1_024, cpuMillis: 400, pids: 10 });
    await expect(cgroups.hold(tenant, { cpuWeight: 512, cpuMillis: 501, pids: 20 })).rejects.toThrow(
      `cgroup ${tenant} cannot have cpuMillis 501, the kernel holds 400: EINVAL`,
    );
    expect(cgroups.read(tenant)?.limits).toEqual({ cpuWeight: 1_024, cpuMillis: 400, pids: 10 });
    await expect(cgroups.hold(host, { cpuWeight: 1_024, cpuMillis: 399 })).rejects.toThrow("EINVAL");
  });

  test("are removed once nothing is in them, and leave nothing in any hierarchy", async () => {
    await cgroups.hold(host, { cpuWeight: 1_024, pids: 100 });
    await cgroups.hold(tenant, { cpuWeight: 1_024, pids: 100 });
    const child = runBelow("sleep", "1000");
    await eventually(
      "a process",
      () => cgroups.read(host)?.pids,
      (pids) => pids === 1,
    );
    expect(await cgroups.remove(tenant)).toBe(false);
    expect(await cgroups.remove(host)).toBe(false);
    expect(cgroups.read(tenant)?.limits.pids).toBe(100);
    end(child);
    await once(child, "exit");
    for (const directory of directoriesOf(join(tenant, "container"))) {
      await eventually(
        "an empty group",
        () => isRemoved(directory),
        (isGone) => isGone,
      );
    }
    await eventually(
      "its removal",
      () => cgroups.remove(tenant),
      (isGone) => isGone,
    );
    expect(cgroups.read(tenant)).toBeUndefined();
    expect(await cgroups.remove(host)).toBe(true);
    expect(cgroups.read(host)).toBeUndefined();
    expect([host, tenant].flatMap(directoriesOf)).toEqual([]);
    expect(await cgroups.remove(host)).toBe(true);
  });
});
