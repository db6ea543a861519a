// What workspaces cost: to make one, to read what a thousand hold, and to start a sandbox with one against the engine's own create and start
// with the same mount.

import { closeSync, fsyncSync, openSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { TomlTable } from "smol-toml";
import { SandboxState } from "../gen/sandboxd/v1/sandbox_pb.ts";
import { WorkspaceService } from "../gen/sandboxd/v1/workspace_service_pb.ts";
import { openBackend } from "../src/workspace/backend/probe.ts";
import { runTool } from "../src/workspace/backend/tool.ts";
import { sharedEngine } from "../test/harness/engine.ts";
import { openFileSystem } from "../test/harness/file-system.ts";
import { openBareEngine } from "./bare-engine.ts";
import { type Result, resultOf } from "./result.ts";
import { spec, startSandboxes } from "./sandboxes.ts";

const warmUps = 2;
const gibibyte = 1_024 ** 3;
const spaceCount = 1_000;
const looks = 5;

/** All of them. A project quota is not measured: the kernels of the machines that measure have none. */
export async function* measureWorkspaces(runs: number): AsyncGenerator<Result> {
  yield* await measureLoopImage(runs);
  yield await measureNeighbour();
  const disk = openFileSystem("btrfs", 64 * gibibyte);
  try {
    yield await measureCreates("btrfs", join(disk.directory, "workspaces"), runs, 15);
    yield await measureUsage(join(disk.directory, "many"));
  } finally {
    disk.close();
  }
}

const tenant = "bench";

function daemonWith(backend: string, directory?: string) {
  const workspaces: TomlTable = { backend, reserve_bytes: 0 };
  if (directory !== undefined) workspaces["directory"] = directory;
  return startSandboxes({ config: { workspaces } });
}

/** Creates of 1 GiB, one at a time, each deleted before the next. */
async function measureCreates(
  backend: "btrfs" | "loop-image",
  directory: string | undefined,
  runs: number,
  goalMs: number,
): Promise<Result> {
  const sandboxes = await daemonWith(backend, directory);
  try {
    const client = sandboxes.daemon.client(WorkspaceService);
    const values: number[] = [];
    for (let run = -warmUps; run < runs; run += 1) {
      const workspaceId = `ws-${run + warmUps}`;
      const began = performance.now();
      await client.createWorkspace({ workspaceId, tenant, limits: { sizeBytes: BigInt(gibibyte) } });
      if (run >= 0) values.push(performance.now() - began);
      await client.deleteWorkspace({ workspaceId });
    }
    const name = `workspace-${backend}`;
    return resultOf({ name, unit: "ms", values, goal: { of: "p50", atMost: goalMs } });
  } finally {
    await sandboxes.close();
  }
}

async function measureLoopImage(runs: number): Promise<readonly Result[]> {
  const created = await measureCreates("loop-image", undefined, runs, 30);
  return [created, await measureMounted(runs)];
}

/** Cold creates with the same workspace, in turn with the bare engine's. */
async function measureMounted(runs: number): Promise<Result> {
  const sandboxes = await daemonWith("loop-image");
  try {
    const { daemon, client } = sandboxes;
    const workspace = { workspaceId: "bench" };
    await daemon.client(WorkspaceService).createWorkspace({ ...workspace, tenant });
    let count = 0;
    const create = async () => {
      count += 1;
      const request = { tenant, sandboxId: `mounted-${count}`, spec: { ...spec, workspace } };
      const { sandbox } = await client.createSandbox(request);
      if (sandbox?.status?.state !== SandboxState.RUNNING) throw new Error("a sandbox does not run");
      return sandbox;
    };
    const example = await create();
    const source = await sourceOf(daemon, example.status?.containerId ?? "");
    const { dev: device, ino: inode } = statSync(source);
    const identity = { device, inode };
    const mount = { kind: "bind", source, target: "/workspace", readOnly: false, identity } as const;
    const bare = await openBareEngine(sharedEngine(), daemon.cgroupParent, example, [mount]);
    try {
      const [ours, theirs]: [number[], number[]] = [[], []];
      const timed = async <T>(into: number[], run: () => Promise<T>): Promise<T> => {
        const began = performance.now();
        const made = await run();
        into.push(performance.now() - began);
        return made;
      };
      for (let run = -warmUps; run < runs; run += 1) {
        const turns = [
          async () => {
            const { sandboxId } = await timed(ours, create);
            await client.deleteSandbox({ sandboxId });
          },
          async () => {
            await timed(theirs, () => bare.create());
            await bare.removeAll();
          },
        ];
        for (const turn of run % 2 === 0 ? turns : turns.toReversed()) await turn();
      }
      return resultOf({
        name: "workspace",
        unit: "ms",
        values: ours.slice(warmUps),
        baseline: theirs.slice(warmUps),
        goal: { of: "ratio", atMost: 1.08 },
      });
    } finally {
      await bare.removeAll();
      bare.close();
    }
  } finally {
    await sandboxes.close();
  }
}

/** Where the engine was told that the workspace is. */
async function sourceOf(daemon: { readonly cgroupParent: string }, containerId: string): Promise<string> {
  const { default: Docker } = await import("dockerode");
  const docker = new Docker({ socketPath: sharedEngine() });
  const { Mounts: mounts } = await docker.getContainer(containerId).inspect();
  const source = mounts.find(({ Destination: target }) => target === "/workspace")?.Source;
  if (source === undefined) throw new Error(`no workspace in a container below ${daemon.cgroupParent}`);
  return source;
}

const writes = 300;
const writeBytes = 4_096;
/** After that the disk has what was written. */
const fillMs = 5_000;

/**
 * Synced writes into a tenant's workspace while another tenant's is full and its programs go on trying to write, against the same writes
 * when nobody else is there.
 */
async function measureNeighbour(): Promise<Result> {
  const sandboxes = await daemonWith("loop-image");
  try {
    const { daemon, client } = sandboxes;
    const workspaces = daemon.client(WorkspaceService);
    for (const [workspaceId, owner] of [
      ["calm", tenant],
      ["full", "filler"],
    ] as const) {
      const limits = { sizeBytes: BigInt(64 * 1_024 * 1_024) };
      await workspaces.createWorkspace({ workspaceId, tenant: owner, limits });
    }
    const use = async (sandboxId: string, owner: string, workspaceId: string, script: string) => {
      const workspace = { workspaceId };
      const command = ["sh", "-c", script];
      const { sandbox } = await client.createSandbox({
        sandboxId,
        tenant: owner,
        spec: { ...spec, command, args: [], workspace },
      });
      return sandbox;
    };
    const calm = await use("calm", tenant, "calm", "exec sleep 100000");
    const file = openSync(join(await sourceOf(daemon, calm?.status?.containerId ?? ""), "tmp/log"), "w");
    const write = (): readonly number[] =>
      Array.from({ length: writes }, (_, index) => {
        const began = performance.now();
        writeSync(file, Buffer.alloc(writeBytes, index), 0, writeBytes, (index % 256) * writeBytes);
        fsyncSync(file);
        return performance.now() - began;
      });
    try {
      write();
      const baseline = write();
      // the disk is everybody's while it is being filled: what bounds that is block_io
      const refill = "while :; do dd if=/dev/zero of=more bs=64k 2>/dev/null; done";
      await use("filler", "filler", "full", `dd if=/dev/zero of=big bs=64k; fsync big; ${refill}`);
      await sleep(fillMs);
      const values = write();
      const goal = { of: "ratio", atMost: 2 } as const;
      return resultOf({
        name: "workspace-neighbour-p99",
        unit: "ms",
        values,
        baseline,
        compared: 0.99,
        goal,
      });
    } finally {
      closeSync(file);
    }
  } finally {
    await sandboxes.close();
  }
}

/** CPU of one look at what a thousand workspaces hold, as the daemon does it. */
async function measureUsage(directory: string): Promise<Result> {
  const backend = await openBackend("BTRFS", { directory, run: runTool });
  const spaces = Array.from({ length: spaceCount }, (_, index) => ({
    name: `space-${index}`,
    uid: 300_000 + index,
    projectId: index + 1,
    limits: { bytes: gibibyte },
  }));
  for (const space of spaces) await backend.create(space);
  const values: number[] = [];
  for (let look = 0; look < looks; look += 1) {
    const before = process.cpuUsage();
    for (const space of spaces) await backend.usage(space);
    const { user, system } = process.cpuUsage(before);
    values.push((user + system) / 1_000);
  }
  return resultOf({ name: "workspace-usage", unit: "ms", values, goal: { of: "p50", atMost: 1_000 } });
}
