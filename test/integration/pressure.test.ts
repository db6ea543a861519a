// That a host short of memory or disk takes nothing new, ends one sandbox at a time in the right order, and stops doing so.

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { Health, HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1/health_pb.ts";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { HostConditionType } from "../../gen/sandboxd/v1/host_pb.ts";
import { ActorKind, SandboxState, TransitionReason } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { SandboxService } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { engineObstacle, ownEngine } from "../harness/engine.ts";
import {
  eventually,
  isIn,
  mebibyte,
  present,
  refusalOf,
  type SpecInit,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

const quick = {
  sampling: { period: "200ms" },
  pressure: {
    disk_available_percent: 5,
    recovery: 1.2,
    samples: 2,
    minimum_time: "1s",
    eviction_pause: "3s",
  },
};

describe.skipIf(engineObstacle !== undefined)(`pressure (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  const undo: (() => void | Promise<void>)[] = [];
  afterEach(async () => {
    await host?.daemon.cleanup();
    for (const work of undo.splice(0).reverse()) await work();
  });

  const run = (sandboxId: string, spec: SpecInit) =>
    host.sandboxes.createSandbox({ sandboxId, tenant, spec });
  const isActive = async (type: HostConditionType) =>
    present((await host.host.getHost({})).host).conditions.find((one) => one.type === type)?.active === true;
  const evicted = (id: string) => host.until(id, isIn(SandboxState.STOPPED));

  /** What happened, in order: conditions, and the ends of sandboxes. */
  async function story(): Promise<readonly string[]> {
    const { events } = await host.events.listEvents({ pageSize: 1000 });
    return events.flatMap(({ type, condition, sandbox }) => {
      if (type === EventType.HOST_CONDITION_CHANGED && condition !== undefined) {
        return [`${HostConditionType[condition.type]} ${condition.active ? "begins" : "ends"}`];
      }
      const { state, transition } = sandbox?.status ?? {};
      return transition?.reason === TransitionReason.EVICTED && type === EventType.SANDBOX_STATE_CHANGED
        ? [`${sandbox?.sandboxId} ${SandboxState[state ?? 0]}`]
        : [];
    });
  }

  /** A file system of 256 MiB, and the file that fills it but for 3 %. */
  function smallDisk() {
    const directory = mkdtempSync(join(tmpdir(), "small-disk-"));
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=256m,mode=0711", "sandboxd-test", directory]);
    undo.push(() => {
      execFileSync("umount", [directory]);
      rmSync(directory, { recursive: true });
    });
    const filler = join(directory, "filler");
    return {
      directory,
      fill() {
        const { bavail, blocks, bsize } = statfsSync(directory);
        writeFileSync(filler, Buffer.alloc(Math.floor((bavail - blocks * 0.03) * bsize)));
      },
      free: () => rmSync(filler),
    };
  }

  test("a full disk: nothing new, one after the other goes by priority and by what it wrote, until there is room", async () => {
    const disk = smallDisk();
    const engine = await ownEngine({ directory: join(disk.directory, "engine") });
    undo.push(engine.stop);
    const metrics = join(mkdtempSync(join(tmpdir(), "metrics-")), "m.sock");
    host = await startHost({
      engine: engine.socket,
      config: { ...quick, metrics: { address: `unix:${metrics}` } },
    });
    await run("kept", { ...specOf(sleeping), priority: 0 });
    await run("writer", specOf("head -c 2000000 /dev/zero | tr '\\0' x; exec sleep 1000"));
    await run("cheap", { ...specOf(sleeping), priority: -5 });
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(await isActive(HostConditionType.DISK_PRESSURE)).toBe(false);

    disk.fill();
    await eventually("the condition", () => isActive(HostConditionType.DISK_PRESSURE), Boolean);
    const refused = await refusalOf(run("new", specOf(sleeping)));
    expect(refused).toMatchObject({ code: "ResourceExhausted", reason: "HOST_PRESSURE" });
    expect(refused.error.findDetails(ErrorInfoSchema)[0]?.metadata).toMatchObject({
      condition: "DISK_PRESSURE",
    });
    expect(refused.error.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds).toBeGreaterThan(0n);
    expect((await host.host.getHost({})).host?.accepting).toBe(false);
    const { status } = await host.daemon
      .client(Health)
      .check({ service: SandboxService.typeName }, { timeoutMs: 5_000 });
    expect(status, "reads and stops work").toBe(HealthCheckResponse_ServingStatus.SERVING);

    const cheap = await evicted("cheap");
    expect(whereIs(cheap).reason).toBe("EVICTED");
    expect(cheap.status?.transition?.actor?.kind).toBe(ActorKind.POLICY);
    expect(cheap.status?.transition?.message).toMatch(
      /^evicted under DISK_PRESSURE: [\d.]+ % of \S+ are free; the threshold is 5 %; with priority -5, it had written \d+ bytes$/,
    );
    expect((await host.get("writer")).status?.state, "one at a time").toBe(SandboxState.RUNNING);
    await evicted("writer");
    const counted = await read(metrics);
    expect(counted).toContain('sandboxd_host_condition{condition="DISK_PRESSURE"} 1\n');
    expect(counted).toContain('sandboxd_host_condition{condition="MEMORY_PRESSURE"} 0\n');
    expect(counted).toContain('sandboxd_evictions_total{condition="DISK_PRESSURE"} 2\n');
    expect(counted).toContain("sandboxd_host_schedulable 1\n");
    disk.free();
    await eventually(
      "its end",
      () => isActive(HostConditionType.DISK_PRESSURE),
      (active) => !active,
    );
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    expect((await host.get("kept")).status?.state, "what need not go").toBe(SandboxState.RUNNING);
    await run("new", specOf(sleeping));
    await host.sandboxes.startSandbox({ sandboxId: "cheap" });
    expect(await story()).toEqual([
      "DISK_PRESSURE begins",
      "cheap STOPPING",
      "cheap STOPPED",
      "writer STOPPING",
      "writer STOPPED",
      "DISK_PRESSURE ends",
    ]);
  });

  test("a full disk that no sandbox writes to: nothing new, and nobody is ended for it", async () => {
    const disk = smallDisk();
    host = await startHost({ config: { ...quick, state: { directory: join(disk.directory, "state") } } });
    await run("kept", specOf(sleeping));
    disk.fill();
    await eventually("the condition", () => isActive(HostConditionType.DISK_PRESSURE), Boolean);
    expect(await refusalOf(run("new", specOf(sleeping)))).toMatchObject({ reason: "HOST_PRESSURE" });
    // longer than the pause before a first eviction
    await new Promise((resolve) => setTimeout(resolve, 6_000));
    expect(await story()).toEqual(["DISK_PRESSURE begins"]);
    expect((await host.get("kept")).status?.state).toBe(SandboxState.RUNNING);
  });

  test("too little memory: priorities first, then who uses the most of its request; nothing is started again", async () => {
    // taken up by each start of the daemon
    const env: Record<string, string> = {};
    host = await startHost({ config: quick, env });
    const holding = (mib: number) =>
      `head -c ${mib * mebibyte} /dev/zero > /dev/shm/a; echo filled; ${sleeping}`;
    const resources = { memoryBytes: BigInt(64 * mebibyte), shmBytes: BigInt(32 * mebibyte) };
    const start = async (id: string, mib: number, request: number, priority = 0) => {
      const memoryRequestBytes = BigInt(request * mebibyte);
      const spec = { ...specOf(holding(mib), { ...resources, memoryRequestBytes }), priority };
      await run(id, { ...spec, restart: { mode: 3 } });
      await expect.poll(() => host.output(id), { timeout: 15_000 }).toContain("filled");
    };
    await start("within", 24, 48);
    await start("beyond", 16, 8);
    await start("precious", 24, 6, 10);

    env["SANDBOXD_PRESSURE_MEMORY_AVAILABLE"] = "16TiB";
    env["SANDBOXD_PRESSURE_EVICT"] = "false";
    await host.daemon.restart();
    await eventually("the condition", () => isActive(HostConditionType.MEMORY_PRESSURE), Boolean);
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    for (const id of ["within", "beyond", "precious"]) {
      expect((await host.get(id)).status?.state, "evictions are off").toBe(SandboxState.RUNNING);
    }

    env["SANDBOXD_PRESSURE_EVICT"] = "true";
    await host.daemon.restart();
    const beyond = await evicted("beyond");
    expect(beyond.status?.transition?.message).toMatch(
      /^evicted under MEMORY_PRESSURE: \d+MiB of memory are available; the threshold is 16TiB; with priority 0, it used \d+ bytes of memory and had requested 8388608$/,
    );
    expect((await refusalOf(host.sandboxes.startSandbox({ sandboxId: "beyond" }))).reason).toBe(
      "HOST_PRESSURE",
    );
    await evicted("precious");
    expect((await story()).filter((line) => line.endsWith("STOPPED"))).toEqual([
      "beyond STOPPED",
      "within STOPPED",
      "precious STOPPED",
    ]);
    expect((await host.containers()).filter(({ State }) => State === "running")).toEqual([]);
    const { findings } = await host.sandboxes.explainSandbox({ sandboxId: "beyond" });
    expect(findings[0]).toMatchObject({
      kind: "evicted",
      message: expect.stringContaining("MEMORY_PRESSURE"),
    });
  });
});

/** The metrics at a unix socket. */
function read(socketPath: string): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ socketPath, path: "/metrics" }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve(text));
    }).on("error", reject);
  });
}
