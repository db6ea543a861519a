// Tenants: what each may have is checked when it is asked for, held by the kernel besides, and told in the same numbers.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { BadRequestSchema, QuotaFailureSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { Tenant } from "../../gen/sandboxd/v1/tenant_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import {
  eventually,
  isIn,
  type LocalHost,
  mebibyte,
  present,
  type Refusal,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  whereIs,
} from "../harness/sandboxes.ts";

const isUnified = existsSync("/sys/fs/cgroup/cgroup.controllers");
const small = { cpuMillis: 100n, memoryBytes: BigInt(32 * mebibyte), pids: 16n };

describe.skipIf(engineObstacle !== undefined)(`tenants (${engineObstacle ?? "engine"})`, () => {
  let host: LocalHost;
  beforeEach(async () => {
    host = await startHost();
  });
  afterEach(() => host?.daemon.cleanup());

  const create = (sandboxId: string, tenant: string, resources = {}, script = sleeping) =>
    host.sandboxes.createSandbox({ sandboxId, tenant, spec: specOf(script, { ...small, ...resources }) });
  const get = async (tenant: string): Promise<Tenant> =>
    present((await host.tenants.getTenant({ tenant })).tenant);
  const statusOf = async (tenant: string) => present((await get(tenant)).status);

  /** A file of the tenant's cgroup, read past the daemon; undefined if there is none. */
  function kernelFile(uid: bigint, controller: string, v1: string, v2: string): string | undefined {
    const directory = isUnified ? "" : controller;
    const path = join(
      "/sys/fs/cgroup",
      directory,
      host.daemon.cgroupParent,
      String(uid),
      isUnified ? v2 : v1,
    );
    return existsSync(path) ? readFileSync(path, "utf8").trim() : undefined;
  }

  const violationsOf = ({ error }: Refusal) =>
    error.findDetails(QuotaFailureSchema).flatMap(({ violations }) => violations);

  test("one that was never put has no bounds of its own, and what is promised to it is told", async () => {
    await create("one", "acme");
    await create("two", "acme", { cpuRequestMillis: 40n });
    const tenant = await get("acme");
    expect(tenant).toMatchObject({ tenant: "acme", generation: 1n, defaultPolicy: true, quota: {} });
    const status = present(tenant.status);
    expect(status).toMatchObject({
      promised: {
        sandboxes: 2n,
        runningSandboxes: 2n,
        cpuMillis: 200n,
        cpuRequestMillis: 65n,
        memoryBytes: 2n * small.memoryBytes,
        pids: 32n,
      },
      overQuota: [],
      deleting: false,
      cgroup: { parent: `${host.daemon.cgroupParent}/${status.uid}` },
    });
    expect(status.cgroup?.memoryBytes).toBeUndefined();
    expect(status.cgroup?.memoryUsedBytes).toBeGreaterThan(0n);
    expect(status.cgroup?.pidsUsed).toBeGreaterThanOrEqual(2n);
    expect((await refusalOf(host.tenants.getTenant({ tenant: "nobody" }))).reason).toBe("TENANT_NOT_FOUND");
  });

  test("a quota refuses what exceeds it, at all levels in one answer, and nothing is left of that", async () => {
    await host.tenants.putTenant({
      tenant: "acme",
      quota: { runningSandboxes: 1n, memoryBytes: BigInt(40 * mebibyte) },
    });
    await create("one", "acme");
    const refused = await refusalOf(create("two", "acme", { cpuMillis: 500_000n, cpuRequestMillis: 1n }));
    expect(refused).toMatchObject({ code: "ResourceExhausted", reason: "TENANT_QUOTA_EXCEEDED" });
    expect(violationsOf(refused).map(({ subject, quotaValue }) => [subject, Number(quotaValue)])).toEqual([
      ["tenant/running_sandboxes", 1],
      ["tenant/memory_bytes", 40 * mebibyte],
      ["host/cpu_millis", expect.any(Number)],
    ]);
    expect(refused.message).toContain('tenant "acme"');
    expect((await refusalOf(host.get("two"))).reason).toBe("SANDBOX_NOT_FOUND");
    expect((await statusOf("acme")).promised?.sandboxes).toBe(1n);

    await create("theirs", "other");
    await host.sandboxes.stopSandbox({ sandboxId: "one" });
    await create("two", "acme");
    expect((await refusalOf(host.sandboxes.startSandbox({ sandboxId: "one" }))).reason).toBe(
      "TENANT_QUOTA_EXCEEDED",
    );
    const grown = { sandboxId: "two", resources: { memoryBytes: BigInt(41 * mebibyte) } };
    expect((await refusalOf(host.sandboxes.updateSandbox(grown))).reason).toBe("TENANT_QUOTA_EXCEEDED");
  });

  test("many creates at once never exceed it", async () => {
    await host.tenants.putTenant({ tenant: "acme", quota: { sandboxes: 3n } });
    const created = await Promise.allSettled(
      Array.from({ length: 10 }, (_, index) => create(`crowd-${index}`, "acme")),
    );
    expect(created.filter(({ status }) => status === "fulfilled")).toHaveLength(3);
    expect(await host.containers()).toHaveLength(3);
  });

  test("a limit range gives defaults, and refuses what is outside of it", async () => {
    const { tenant } = await host.tenants.putTenant({
      tenant: "acme",
      limitRange: {
        default: { pids: 40n, cpuRequestMillis: 20n },
        max: { cpuMillis: 300n },
        maxLimitRequestRatio: { memory: 2 },
      },
    });
    expect(tenant?.limitRange).toMatchObject({ default: { pids: 40n }, max: { cpuMillis: 300n } });
    const { sandbox } = await host.sandboxes.createSandbox({
      sandboxId: "usual",
      tenant: "acme",
      spec: {
        image: "sandboxd-base:latest",
        command: ["sh", "-c", sleeping],
        resources: { memoryBytes: 41943040n },
      },
    });
    expect(sandbox?.spec?.resources).toMatchObject({
      pids: 40n,
      cpuMillis: 300n,
      cpuRequestMillis: 20n,
      memoryRequestBytes: 41943040n,
    });
    const refused = await refusalOf(create("large", "acme", { cpuMillis: 301n, memoryRequestBytes: 1n }));
    expect(refused).toMatchObject({ code: "InvalidArgument", reason: "LIMIT_RANGE_VIOLATED" });
    expect(violationsOf(refused).map(({ subject }) => subject)).toEqual([
      "sandbox/cpu_millis",
      "sandbox/memory_request_bytes",
    ]);
    const fields = refused.error
      .findDetails(BadRequestSchema)
      .flatMap(({ fieldViolations }) => fieldViolations);
    expect(fields.map(({ field }) => field)).toEqual([
      "spec.resources.cpu_millis",
      "spec.resources.memory_request_bytes",
    ]);
  });

  test.each<[string, object, string]>([
    ["that contradicts itself", { min: { pids: 9n }, max: { pids: 8n } }, "limit_range.min.pids"],
    [
      "with what it cannot bound",
      { max: { blockIo: { readBytesPerSecond: 4096n } } },
      "limit_range.max.block_io",
    ],
    ["beyond the contract's bounds", { max: { pids: 1n } }, "limit_range.max.pids"],
  ])("a limit range %s is refused, naming the field", async (_, limitRange, field) => {
    const refused = await refusalOf(host.tenants.putTenant({ tenant: "acme", limitRange }));
    expect(refused).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
    expect(refused.message).toContain(field);
    expect((await refusalOf(host.tenants.getTenant({ tenant: "acme" }))).reason).toBe("TENANT_NOT_FOUND");
  });

  test("the kernel holds the quota, as it is put while sandboxes run, and lets go of it with the last", async () => {
    await create("one", "acme");
    const { uid } = await statusOf("acme");
    const held = () => ({
      memory: kernelFile(uid, "memory", "memory.limit_in_bytes", "memory.max"),
      pids: kernelFile(uid, "pids", "pids.max", "pids.max"),
    });
    expect(held().pids).toBe("max");
    const quota = { memoryBytes: BigInt(96 * mebibyte), pids: 48n, cpuMillis: 700n };
    const { tenant } = await host.tenants.putTenant({ tenant: "acme", quota });
    expect(held()).toEqual({ memory: String(96 * mebibyte), pids: "48" });
    expect(tenant?.status?.cgroup).toMatchObject(quota);

    const { tenant: lowered } = await host.tenants.putTenant({ tenant: "acme", quota: { pids: 5n } });
    expect(lowered?.status?.overQuota).toEqual(["pids"]);
    expect(held().pids, "what is promised is not taken away").toBe("16");
    expect(whereIs(await host.get("one")).state).toBe("RUNNING");
    expect((await refusalOf(create("two", "acme", { pids: 4n }))).reason).toBe("TENANT_QUOTA_EXCEEDED");
    await host.sandboxes.updateSandbox({ sandboxId: "one", resources: { pids: 4n } });
    await eventually("the lower limit", held, ({ pids }) => pids === "5");

    await host.sandboxes.deleteSandbox({ sandboxId: "one" });
    await eventually("an end of the cgroup", held, ({ pids }) => pids === undefined);
    const of = (controller: string) =>
      join("/sys/fs/cgroup", isUnified ? "" : controller, host.daemon.cgroupParent);
    await eventually(
      "an end of that of all",
      () => existsSync(of("pids")) || existsSync(of("freezer")),
      (is) => !is,
    );
    expect((await statusOf("acme")).cgroup).toBeUndefined();
  });

  test("a group that somebody removed limits from is held again before the next start", async () => {
    await host.tenants.putTenant({ tenant: "acme", quota: { pids: 64n } });
    await create("one", "acme");
    const { uid } = await statusOf("acme");
    const file = join(
      "/sys/fs/cgroup",
      isUnified ? "" : "pids",
      host.daemon.cgroupParent,
      String(uid),
      "pids.max",
    );
    writeFileSync(file, "max");
    expect((await statusOf("acme")).cgroup?.pids).toBeUndefined();
    await create("two", "acme");
    expect((await statusOf("acme")).cgroup?.pids).toBe(64n);
  });

  test("sandboxes that each stay within their own limits are stopped at their tenant's total", async () => {
    const quota = { pids: 40n, memoryBytes: BigInt(80 * mebibyte) };
    await host.tenants.putTenant({ tenant: "acme", quota });
    const half = BigInt(40 * mebibyte);
    const own = { pids: 20n, memoryBytes: half, shmBytes: half, tmpfsBytes: half };
    const writing = (file: string) => `dd if=/dev/zero of=${file} bs=1M count=38 2>/dev/null || echo stopped`;
    const awaited = "until test -e /tmp/go; do sleep 0.1; done";
    const filling = `${awaited}; ${writing("/tmp/a")}; ${writing("/dev/shm/a")}; exec sleep 1000`;
    const forking = `${awaited}; for i in $(seq 30); do sleep 1000 & done; echo forked; wait`;
    const ids = ["one", "two"];
    for (const id of ids) await create(id, "acme", own, filling);
    const letGo = async () => {
      for (const id of ids) {
        const container = host.docker.getContainer(present((await host.get(id)).status).containerId);
        await (await container.exec({ Cmd: ["touch", "/tmp/go"] })).start({});
      }
    };
    // as if the ledger were wrong: behind daemon and engine, each is given what both may have together
    const widen = async (controller: string, files: readonly string[], limit: bigint) => {
      for (const id of ids) {
        const directory = join(
          "/sys/fs/cgroup",
          isUnified ? "" : controller,
          host.cgroupOf(present((await host.get(id)).status)),
        );
        for (const file of files) writeFileSync(join(directory, file), String(limit));
      }
    };
    // with swap accounted for, its limit is never below the other
    const memoryFiles = ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"];
    await widen("memory", isUnified ? ["memory.max"] : memoryFiles, quota.memoryBytes);
    const outputs = async () => (await Promise.all(ids.map(host.output))).join();
    const { uid } = await statusOf("acme");
    const peak = () => BigInt(kernelFile(uid, "memory", "memory.max_usage_in_bytes", "memory.peak") ?? 0);
    await letGo();
    await eventually("a write that is stopped", outputs, (text) => text.includes("stopped"));
    expect(peak(), "at the total, not at what each has").toBe(quota.memoryBytes);

    // whoever was killed for it is begun anew: both together may fork as often as one of them
    await Promise.all(ids.map((sandboxId) => host.sandboxes.deleteSandbox({ sandboxId })));
    for (const id of ids) await create(id, "acme", own, forking);
    await widen("pids", ["pids.max"], quota.pids);
    await letGo();
    await eventually("a fork that is refused", outputs, (text) => text.includes("can't fork"));
    expect((await statusOf("acme")).cgroup?.pidsUsed).toBeLessThanOrEqual(quota.pids);
    await create("theirs", "other", {}, "echo alive; exec sleep 1000");
    await expect.poll(() => host.output("theirs"), { timeout: 15_000 }).toContain("alive");
  });

  test("under contention, tenants get CPU as their sandboxes' requests say", async () => {
    const busy = "for i in 1 2 3; do (while :; do :; done) & done; wait";
    const ask = (id: string, tenant: string, cpuRequestMillis: bigint) =>
      create(id, tenant, { cpuMillis: 2_000n, cpuRequestMillis }, busy);
    await ask("much", "large", 600n);
    await ask("little", "small", 100n);
    const weights = async () =>
      await Promise.all(
        ["large", "small"].map(async (name) => (await statusOf(name)).cgroup?.cpuWeight ?? 0n),
      );
    await eventually("the weights", weights, ([large, little]) => large === 614n && little === 102n);
    const usage = async () =>
      await Promise.all(
        ["large", "small"].map(async (name) => Number((await statusOf(name)).cgroup?.cpuUsageUsec ?? 0)),
      );
    const before = await usage();
    await sleep(4_000);
    const after = await usage();
    const [large = 0, little = 0] = after.map((usec, index) => usec - (before[index] ?? 0));
    // six times as much, but for what the scheduler rounds and what else runs on the host; without weights it would be 1
    expect(large / little).toBeGreaterThan(2);
  });

  test("the next life of the daemon knows the same numbers, and goes on holding them", async () => {
    await host.tenants.putTenant({ tenant: "acme", quota: { pids: 64n, sandboxes: 2n } });
    await create("one", "acme");
    const before = await get("acme");
    await host.daemon.kill("SIGKILL");
    await host.daemon.start();
    const after = await get("acme");
    expect({ ...after, status: { ...after.status, cgroup: undefined } }).toEqual({
      ...before,
      status: { ...before.status, cgroup: undefined },
    });
    await create("two", "acme");
    expect((await refusalOf(create("three", "acme"))).reason).toBe("TENANT_QUOTA_EXCEEDED");
    const { host: facts } = await host.host.getHost({});
    expect(facts?.allocated?.sandboxes).toBe((await statusOf("acme")).promised?.runningSandboxes);
  });

  test("a deletion is refused while it owns something, or takes all of it along, and is told", async () => {
    await create("one", "acme");
    await create("two", "acme", {}, "exit 3");
    await host.until("two", isIn(SandboxState.FAILED));
    expect(await refusalOf(host.tenants.deleteTenant({ tenant: "acme" }))).toMatchObject({
      code: "FailedPrecondition",
      reason: "TENANT_NOT_EMPTY",
    });
    await host.tenants.deleteTenant({ tenant: "acme", cascade: true });
    await host.tenants.deleteTenant({ tenant: "acme", cascade: true });
    expect(await host.containers()).toEqual([]);
    expect((await host.tenants.listTenants({})).tenants).toEqual([]);
    const { events } = await host.events.listEvents({ filter: { tenant: "acme" }, pageSize: 100 });
    expect(events.map(({ type }) => EventType[type]).at(0)).toBe("TENANT_CHANGED");
    expect(events.at(-1)).toMatchObject({ type: EventType.TENANT_DELETED, tenantPolicy: { tenant: "acme" } });
  });

  test("a deletion that a crash interrupts is gone on with", async () => {
    await Promise.all(["one", "two", "three"].map((id) => create(id, "acme")));
    const deleting = host.tenants.deleteTenant({ tenant: "acme", cascade: true }).catch(() => undefined);
    const isMarked = async () => (await get("acme")).status?.deleting;
    await eventually("the mark", isMarked, (is) => is === true);
    await host.daemon.kill("SIGKILL");
    await deleting;
    await host.daemon.start();
    await eventually(
      "an end of all",
      () => host.tenants.listTenants({}),
      ({ tenants }) => tenants.length === 0,
    );
    expect(await host.containers()).toEqual([]);
  });

  test("are listed in order of name, in pages", async () => {
    for (const tenant of ["c", "a", "b"]) await host.tenants.putTenant({ tenant, quota: { pids: 9n } });
    const first = await host.tenants.listTenants({ pageSize: 2 });
    expect(first.tenants.map(({ tenant }) => tenant)).toEqual(["a", "b"]);
    const second = await host.tenants.listTenants({ pageSize: 2, pageToken: first.nextPageToken });
    expect(second.tenants.map(({ tenant }) => tenant)).toEqual(["c"]);
    expect(second.nextPageToken).toBe("");
    const audited = host.daemon
      .logs()
      .split("\n")
      .filter((line) => line.includes("TenantService/PutTenant"));
    expect(audited.map((line) => (JSON.parse(line) as { tenant: string }).tenant)).toEqual(["c", "a", "b"]);
    expect((await refusalOf(host.tenants.listTenants({ pageToken: "x" }))).reason).toBe("INVALID_FIELD");
  });

  test("that nobody put are refused where the configuration says so, from a reload on", async () => {
    await create("one", "acme");
    host.daemon.configure({ tenants: { unknown: "refuse", default: { quota: { sandboxes: 1 } } } });
    await host.daemon.kill("SIGHUP");
    await eventually(
      "the new default",
      () => get("acme"),
      ({ quota }) => quota?.sandboxes === 1n,
    );
    expect(await refusalOf(create("two", "other"))).toMatchObject({
      code: "NotFound",
      reason: "TENANT_NOT_FOUND",
    });
    expect((await refusalOf(create("two", "acme"))).reason).toBe("TENANT_QUOTA_EXCEEDED");
    await host.tenants.putTenant({ tenant: "other" });
    await create("two", "other");
  });
});
