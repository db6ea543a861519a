// That limits hold, that reaching one is told, and that changing one changes what the kernel holds.

import { existsSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { QuotaFailureSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { SandboxStats } from "../../gen/sandboxd/v1/stats_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import {
  eventually,
  isIn,
  mebibyte,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

const isUnified = existsSync("/sys/fs/cgroup/cgroup.controllers");

/** Prints, from inside, what the kernel holds, once a tenth of a second. */
const showLimits = isUnified
  ? "cd /sys/fs/cgroup; while :; do echo $(cat memory.max) $(cat pids.max) $(cat cpu.max); sleep 0.1; done"
  : "cd /sys/fs/cgroup; while :; do echo $(cat memory/memory.limit_in_bytes) $(cat pids/pids.max) $(cat cpu/cpu.cfs_quota_us) $(cat cpu/cpu.cfs_period_us); sleep 0.1; done";

describe.skipIf(engineObstacle !== undefined)(`limits (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  beforeAll(async () => {
    host = await startHost({
      config: { capacity: { max_sandboxes: 12 }, sampling: { period: "200ms" } },
    });
  });
  afterAll(() => host?.daemon.cleanup());

  const statsOf = async (sandboxId: string): Promise<SandboxStats> =>
    present((await host.sandboxes.getSandboxStats({ sandboxId })).stats);
  const remove = (sandboxId: string) => host.sandboxes.deleteSandbox({ sandboxId });

  test("a command that takes more memory than it may is killed, and told to have been", async () => {
    await host.run("hog", "exec tail /dev/zero");
    const sandbox = await host.until("hog", isIn(SandboxState.FAILED));
    expect(whereIs(sandbox)).toEqual({ state: "FAILED", reason: "OOM_KILLED" });
    expect(sandbox.status?.exit).toMatchObject({ code: 137, signal: 9, oomKilled: true });
    expect(sandbox.status?.exit?.oomKills).toBeGreaterThanOrEqual(1n);
    await remove("hog");
  });

  test("memory cannot be had from /tmp and /dev/shm beyond the limit either", async () => {
    await host.run(
      "filler",
      "dd if=/dev/zero of=/dev/shm/a bs=1M; dd if=/dev/zero of=/tmp/a bs=1M; echo full; sleep 1000",
      {
        memoryBytes: BigInt(16 * mebibyte),
        tmpfsBytes: BigInt(16 * mebibyte),
        shmBytes: BigInt(16 * mebibyte),
      },
    );
    await eventually(
      "an end of the filling",
      async () => [await host.output("filler"), await statsOf("filler")] as const,
      ([text, { oomKills }]) => text.includes("full") || oomKills > 0n,
    );
    const stats = await statsOf("filler");
    expect(stats.memoryUsageBytes).toBeLessThanOrEqual(BigInt(16 * mebibyte));
    await remove("filler");
  });

  test("a kill inside of a sandbox that lives on is told as an event and counted", async () => {
    const { lastSequence } = await host.events.listEvents({ pageSize: 1000 });
    await host.run("survivor", "sleep 1; tail /dev/zero; echo survived; exec sleep 1000");
    await expect.poll(() => host.output("survivor"), { timeout: 15_000 }).toContain("survived");
    await eventually(
      "a count",
      () => statsOf("survivor"),
      ({ oomKills }) => oomKills === 1n,
    );
    expect((await host.get("survivor")).status?.state).toBe(SandboxState.RUNNING);
    const tell = () =>
      host.events.listEvents({
        afterSequence: lastSequence,
        filter: { sandboxId: "survivor", types: [EventType.SANDBOX_OOM] },
      });
    await expect.poll(async () => (await tell()).events.length).toBe(1);
    await remove("survivor");
  });

  test("forks beyond the pids limit are refused and counted, and the sandbox lives on", async () => {
    await host.run("forks", "(for i in $(seq 40); do sleep 1000 & done); exec sleep 1000", { pids: 8n });
    const stats = await eventually(
      "a refused fork",
      () => statsOf("forks"),
      (seen) => seen.pidsRefused > 0n,
    );
    expect(stats.pids).toBeLessThanOrEqual(8n);
    expect(stats.pidsLimit).toBe(8n);
    expect((await host.get("forks")).status?.state).toBe(SandboxState.RUNNING);
    await remove("forks");
  });

  test("a busy loop gets its share of CPU and no more", async () => {
    await host.run("busy", "while :; do :; done", { cpuMillis: 100n });
    const { cpuUsageUsec: before } = await statsOf("busy");
    const began = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    const after = await statsOf("busy");
    const millis = Number(after.cpuUsageUsec - before) / (performance.now() - began);
    expect(millis, "a tenth of a CPU, and what one enforcement period may add").toBeLessThan(140);
    expect(millis).toBeGreaterThan(40);
    expect(after.cpuThrottledPeriods).toBeGreaterThan(5n);
    expect(after.cpuThrottledUsec).toBeGreaterThan(0n);
    const { summary } = await host.sandboxes.getSandboxStats({ sandboxId: "busy", window: { seconds: 2n } });
    expect(summary?.cpuThrottledRatio).toBeGreaterThan(0.5);
    expect(summary?.cpuUsageMillisAverage).toBeLessThan(140n);
    expect(summary?.samples).toBeGreaterThan(2n);
    await remove("busy");
  });

  test("open files are limited", async () => {
    await host.run("files", "ulimit -n; ulimit -Hn; sleep 1000", { openFiles: 77n });
    await expect.poll(() => host.output("files")).toBe("77\n77\n");
    await remove("files");
  });

  test("an update changes what the kernel holds, as seen from inside", async () => {
    const created = await host.run("updated", showLimits, {
      tmpfsBytes: BigInt(mebibyte),
      shmBytes: BigInt(mebibyte),
    });
    const lines = async () => (await host.output("updated")).trim().split("\n");
    await expect.poll(async () => (await lines()).at(-1)).toBe(`${32 * mebibyte} 32 10000 100000`);
    const { sandbox } = await host.sandboxes.updateSandbox({
      sandboxId: "updated",
      resources: { memoryBytes: BigInt(48 * mebibyte), pids: 40n, cpuMillis: 200n },
      generation: created.generation,
    });
    expect(sandbox?.generation).toBe(created.generation + 1n);
    expect(sandbox?.status?.containerId).toBe(created.status?.containerId);
    await expect.poll(async () => (await lines()).at(-1)).toBe(`${48 * mebibyte} 40 20000 100000`);
    const { sandbox: lowered } = await host.sandboxes.updateSandbox({
      sandboxId: "updated",
      resources: { memoryBytes: BigInt(16 * mebibyte) },
    });
    expect(lowered?.spec?.resources).toMatchObject({
      memoryBytes: BigInt(16 * mebibyte),
      memoryRequestBytes: BigInt(16 * mebibyte),
      pids: 40n,
    });
    await expect.poll(async () => (await lines()).at(-1)).toBe(`${16 * mebibyte} 40 20000 100000`);

    await host.sandboxes.stopSandbox({ sandboxId: "updated" });
    await host.sandboxes.updateSandbox({ sandboxId: "updated", resources: { pids: 50n } });
    await host.sandboxes.startSandbox({ sandboxId: "updated" });
    await expect.poll(async () => (await lines()).at(-1)).toBe(`${16 * mebibyte} 50 20000 100000`);
    await remove("updated");
  });

  test("memory below what is in use is refused, and the old limits stay", async () => {
    const fill = "for d in tmp dev/shm; do dd if=/dev/zero of=/$d/a bs=1M count=18; done; echo filled; ";
    await host.run("full", fill + showLimits, {
      memoryBytes: BigInt(64 * mebibyte),
      tmpfsBytes: BigInt(20 * mebibyte),
      shmBytes: BigInt(20 * mebibyte),
    });
    await expect.poll(() => host.output("full"), { timeout: 15_000 }).toContain("filled");
    const before = await host.get("full");
    const refused = await refusalOf(
      host.sandboxes.updateSandbox({
        sandboxId: "full",
        resources: { memoryBytes: BigInt(20 * mebibyte), pids: 20n },
      }),
    );
    expect(refused).toMatchObject({ code: "FailedPrecondition", reason: "LIMIT_UNENFORCEABLE" });
    expect(await host.get("full")).toEqual(before);
    const count = async () => (await host.output("full")).trim().split("\n");
    const seen = (await count()).length;
    await expect.poll(async () => (await count()).length, { timeout: 10_000 }).toBeGreaterThan(seen + 1);
    expect((await count()).at(-1)).toBe(`${64 * mebibyte} 32 10000 100000`);
    await remove("full");
  });

  test("an update of another generation is aborted, and changes nothing", async () => {
    const { generation } = await host.run("guarded", sleeping);
    const update = host.sandboxes.updateSandbox({
      sandboxId: "guarded",
      labels: { a: "b" },
      generation: generation + 1n,
    });
    expect(await refusalOf(update)).toMatchObject({ code: "Aborted", reason: "GENERATION_MISMATCH" });
    expect(await host.get("guarded")).toMatchObject({ generation, spec: { labels: {} } });
    const rivals = await Promise.allSettled(
      ["a", "b", "c"].map((name) =>
        host.sandboxes.updateSandbox({ sandboxId: "guarded", labels: { name }, generation }),
      ),
    );
    expect(rivals.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    await remove("guarded");
  });

  test("an update of what cannot change is refused", async () => {
    await host.run("fixed", sleeping);
    for (const resources of [{ openFiles: 100n }, { tmpfsBytes: 65_536n }]) {
      const refused = await refusalOf(host.sandboxes.updateSandbox({ sandboxId: "fixed", resources }));
      expect(refused).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
    }
    const tooLow = host.sandboxes.updateSandbox({ sandboxId: "fixed", resources: { memoryBytes: 1n } });
    expect(await refusalOf(tooLow)).toMatchObject({ code: "InvalidArgument" });
    await remove("fixed");
  });

  describe("the host's capacity", () => {
    test("is never promised twice: what does not fit is refused with resource, asked and free", async () => {
      const { host: facts } = await host.host.getHost({});
      const free = present(facts?.allocatable).memoryBytes - present(facts?.allocated).memoryBytes;
      const refused = await refusalOf(host.run("too-much", sleeping, { memoryBytes: free + 1n }));
      expect(refused).toMatchObject({ code: "ResourceExhausted", reason: "HOST_CAPACITY_EXCEEDED" });
      const violations = refused.error.findDetails(QuotaFailureSchema).flatMap((found) => found.violations);
      expect(violations).toContainEqual(
        expect.objectContaining({
          quotaMetric: "memory_bytes",
          quotaDimensions: expect.objectContaining({ asked: String(free + 1n), free: String(free) }),
        }),
      );
      expect((await refusalOf(host.get("too-much"))).reason).toBe("SANDBOX_NOT_FOUND");
    });

    test("is counted in sandboxes, given back by a stop, and asked for again by a start", async () => {
      const { host: facts } = await host.host.getHost({});
      const room = Number(12n - present(facts?.allocated).sandboxes);
      const ids = Array.from({ length: room }, (_, index) => `fill-${index}`);
      await Promise.all(ids.map((id) => host.run(id, sleeping, { memoryBytes: BigInt(8 * mebibyte) })));
      const refused = await refusalOf(host.run("one-more", sleeping));
      expect(refused.reason).toBe("HOST_CAPACITY_EXCEEDED");
      const [violation] = refused.error.findDetails(QuotaFailureSchema).flatMap((one) => one.violations);
      expect(violation).toMatchObject({
        quotaMetric: "sandboxes",
        quotaValue: 12n,
        quotaDimensions: { asked: "1", free: "0", promised: "12" },
      });
      await host.sandboxes.stopSandbox({ sandboxId: "fill-0" });
      await host.run("one-more", sleeping);
      const start = await refusalOf(host.sandboxes.startSandbox({ sandboxId: "fill-0" }));
      expect(start.reason).toBe("HOST_CAPACITY_EXCEEDED");
      await Promise.all([...ids, "one-more"].map(remove));
    });

    test("holds against many creates at once", async () => {
      const { host: facts } = await host.host.getHost({});
      const room = Number(12n - present(facts?.allocated).sandboxes);
      const results = await Promise.allSettled(
        Array.from({ length: room + 10 }, (_, index) =>
          host.sandboxes.createSandbox({ sandboxId: `rush-${index}`, tenant, spec: specOf(sleeping) }),
        ),
      );
      expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(room);
      await Promise.all(results.map((_, index) => remove(`rush-${index}`)));
    });
  });
});
