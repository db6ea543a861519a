// What sandboxes and tenants used: rising over runs, deletions and lives of the daemon, and the same wherever it is told.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { ResourceUsage } from "../../gen/sandboxd/v1/stats_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import {
  eventually,
  isIn,
  mebibyte,
  present,
  sleeping,
  startHost,
  type TestHost,
  tenant,
} from "../harness/sandboxes.ts";

/** Longer than from one write to the next. */
const patienceMs = 25_000;

describe.skipIf(engineObstacle !== undefined)(`metering (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  beforeEach(async () => {
    host = await startHost({ config: { sampling: { period: "200ms" } } });
  });
  afterEach(() => host?.daemon.cleanup());

  const ofSandbox = async (sandboxId: string) => (await host.sandboxes.getSandbox({ sandboxId })).usage;
  const ofTenant = async () => (await host.tenants.getTenant({ tenant })).tenant?.status?.usage;
  const exceeds = (least: bigint) => (usage: ResourceUsage | undefined) =>
    usage !== undefined && usage.cpuUsageUsec > least;
  const until = async (ask: () => Promise<ResourceUsage | undefined>, least: bigint) =>
    present(await eventually("usage", ask, exceeds(least), patienceMs));
  const secondsOf = ({ runningTime }: ResourceUsage) => Number(present(runningTime).seconds);

  test("rises over runs, a SIGKILL of the daemon and a deletion, and never falls", async () => {
    await host.run("busy", "while :; do :; done", { cpuMillis: 200n });
    const first = await until(() => ofSandbox("busy"), 0n);
    expect(first.memoryByteSeconds).toBeGreaterThan(0);
    expect(first.memoryByteSeconds).toBeLessThan(32 * mebibyte * (secondsOf(first) + 1));
    expect(await ofTenant()).toMatchObject({ cpuUsageUsec: first.cpuUsageUsec });

    await host.daemon.kill("SIGKILL");
    await host.daemon.start();
    const kept = present(await ofSandbox("busy"));
    expect(kept.cpuUsageUsec).toBeGreaterThanOrEqual(first.cpuUsageUsec);
    const second = await until(() => ofSandbox("busy"), kept.cpuUsageUsec);
    const stats = present((await host.sandboxes.getSandboxStats({ sandboxId: "busy" })).stats);
    expect(second.cpuUsageUsec, "of the only run, all of it").toBeLessThanOrEqual(stats.cpuUsageUsec);
    expect(Number(stats.cpuUsageUsec - second.cpuUsageUsec)).toBeLessThan(15e6 * 0.3);
    expect(stats.usage?.cpuUsageUsec).toBeGreaterThanOrEqual(second.cpuUsageUsec);

    await host.sandboxes.stopSandbox({ sandboxId: "busy" });
    await host.sandboxes.startSandbox({ sandboxId: "busy" });
    const third = await until(() => ofSandbox("busy"), stats.cpuUsageUsec);
    expect(secondsOf(third)).toBeGreaterThanOrEqual(secondsOf(second));

    await host.sandboxes.deleteSandbox({ sandboxId: "busy" });
    expect(present(await ofTenant()).cpuUsageUsec).toBeGreaterThanOrEqual(third.cpuUsageUsec);
    await host.run("another", sleeping);
    const all = await until(ofTenant, third.cpuUsageUsec);
    expect(await ofSandbox("another").then((usage) => usage?.cpuUsageUsec ?? 0n)).toBeLessThan(
      all.cpuUsageUsec,
    );
  });

  test("is in the batches of a watch, and is what it was after an end", async () => {
    await host.run("ends", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 11; exit 3", {
      cpuMillis: 500n,
    });
    await until(() => ofSandbox("ends"), 0n);
    const watch = host.host.watchHost({ statsPeriod: { seconds: 1n }, sandboxStats: true });
    for await (const { update } of watch) {
      if (update.case !== "stats") continue;
      const { sandboxes, tenants } = update.value;
      expect(sandboxes.find(({ sandboxId }) => sandboxId === "ends")?.usage?.cpuUsageUsec).toBeGreaterThan(
        0n,
      );
      expect(tenants.map((one) => one.tenant)).toEqual([tenant]);
      break;
    }
    await eventually("its end", () => host.get("ends"), isIn(SandboxState.FAILED), patienceMs);
    const ended = present(await ofSandbox("ends"));
    await host.daemon.restart();
    expect(present(await ofSandbox("ends")).cpuUsageUsec).toBeGreaterThanOrEqual(ended.cpuUsageUsec);
  });
});
