// Limits on a host with cgroup v2 and systemd as the engine's driver: what the kernel holds, read past the daemon.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HostConditionType } from "../../gen/sandboxd/v1/host_pb.ts";
import { type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { SandboxStats } from "../../gen/sandboxd/v1/stats_pb.ts";
import { type GuestHost, guestPatienceMs, isGuestMissing, startGuestHost } from "../harness/guest.ts";
import { eventually, isIn, mebibyte, present, sleeping, tenant, whereIs } from "../harness/sandboxes.ts";

describe.skipIf(isGuestMissing)("on cgroup v2 with the systemd driver", () => {
  let host: GuestHost;
  beforeAll(async () => {
    host = await startGuestHost();
  });
  afterAll(() => host?.close());

  /** The directory of a sandbox's cgroup in the guest, as the kernel tells it of the main process. */
  async function cgroupOf({ status }: Sandbox): Promise<string> {
    const { State } = await host.docker.getContainer(present(status).containerId).inspect();
    const line = await host.guest.run(`cat /proc/${State.Pid}/cgroup`);
    return `/sys/fs/cgroup${line.trim().slice("0::".length)}`;
  }

  /** Files of the cgroup by name, as the kernel has them now. */
  async function kernel<Name extends string>(
    sandbox: Sandbox,
    ...names: readonly Name[]
  ): Promise<Readonly<Record<Name, string>>> {
    const text = await host.guest.run(`cd ${await cgroupOf(sandbox)} && tail -vn +1 ${names.join(" ")}`);
    const files = text.split(/^==> (.*) <==$/m).slice(1);
    return Object.fromEntries(
      names.map((name) => [name, present(files[files.indexOf(name) + 1]).trim()]),
    ) as Record<Name, string>;
  }

  const statsOf = async (sandboxId: string): Promise<SandboxStats> =>
    present((await host.sandboxes.getSandboxStats({ sandboxId })).stats);
  const remove = (sandboxId: string) => host.sandboxes.deleteSandbox({ sandboxId });

  test("the host is told as what it is, and nothing is wrong with it", async () => {
    const { host: facts } = await host.host.getHost({});
    expect(facts?.engine).toMatchObject({ cgroupVersion: 2, cgroupDriver: "systemd" });
    expect(facts?.accepting).toBe(true);
    expect(facts?.conditions.filter(({ active }) => active)).toEqual([]);
    expect(facts?.conditions.map(({ type }) => type)).toContain(HostConditionType.CGROUP_UNSUPPORTED);
  });

  test("every limit that was asked for is in the kernel's files when the sandbox runs", async () => {
    const sandbox = await host.run(
      "bounded",
      "ulimit -n; grep -E ' (/tmp|/dev/shm) ' /proc/mounts; exec sleep 1000",
      {
        cpuMillis: 250n,
        cpuRequestMillis: 100n,
        memoryBytes: BigInt(48 * mebibyte),
        pids: 20n,
        openFiles: 99n,
        tmpfsBytes: BigInt(2 * mebibyte),
        tmpfsInodes: 321n,
        shmBytes: BigInt(mebibyte),
        logBytes: BigInt(2 * mebibyte),
        blockIo: {
          readBytesPerSecond: BigInt(8 * mebibyte),
          writeBytesPerSecond: BigInt(4 * mebibyte),
          readOperationsPerSecond: 200n,
          writeOperationsPerSecond: 100n,
        },
      },
    );
    expect(whereIs(sandbox)).toEqual({ state: "RUNNING", reason: "PROGRESS" });
    expect(await cgroupOf(sandbox)).toBe(
      `/sys/fs/cgroup/sandboxd.slice/sandboxd-${sandbox.status?.uid}.slice/docker-${sandbox.status?.containerId}.scope`,
    );
    const files = ["memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max", "io.max"] as const;
    const device = (await host.guest.run("lsblk -ndo MAJ:MIN $(findmnt -no SOURCE /var/lib/docker)")).trim();
    expect(await kernel(sandbox, ...files)).toEqual({
      "memory.max": `${48 * mebibyte}`,
      "memory.swap.max": "0",
      "cpu.max": "25000 100000",
      "cpu.weight": "4",
      "pids.max": "20",
      "io.max": `${device} rbps=${8 * mebibyte} wbps=${4 * mebibyte} riops=200 wiops=100`,
    });
    const output = () => host.output("bounded");
    const text = await eventually(
      "its output",
      output,
      (seen) => seen.includes(" /dev/shm "),
      guestPatienceMs,
    );
    const [openFiles, ...mounts] = text.trim().split("\n");
    expect(openFiles).toBe("99");
    expect(mounts.find((line) => line.includes(" /tmp "))).toMatch(/size=2048k,nr_inodes=321/);
    expect(mounts.find((line) => line.includes(" /dev/shm "))).toMatch(/size=1024k/);
    const { HostConfig } = await host.docker.getContainer(present(sandbox.status).containerId).inspect();
    const log = present(HostConfig.LogConfig).Config;
    expect(Number(log["max-size"]) * Number(log["max-file"])).toBeLessThanOrEqual(2 * mebibyte);
    await remove("bounded");
  });

  test("a tenant's quota is in the kernel's files, through systemd, as long as it runs something", async () => {
    const sandbox = await host.run("owned", sleeping, { cpuMillis: 200n, cpuRequestMillis: 100n, pids: 16n });
    const slice = `/sys/fs/cgroup/sandboxd.slice/sandboxd-${sandbox.status?.uid}.slice`;
    const held = () => host.guest.run(`cd ${slice} && cat memory.max memory.swap.max cpu.max pids.max`);
    expect(await held()).toBe("max\nmax\nmax 100000\nmax\n");
    const quota = { memoryBytes: BigInt(96 * mebibyte), pids: 48n, cpuMillis: 700n };
    const { tenant: told } = await host.tenants.putTenant({ tenant, quota });
    expect(told?.status?.cgroup).toMatchObject({ parent: `sandboxd-${sandbox.status?.uid}.slice`, ...quota });
    const bounded = `${96 * mebibyte}\n0\n70000 100000\n48\n`;
    expect(await held()).toBe(bounded);
    await host.guest.run("systemctl daemon-reload");
    expect(await held(), "systemd keeps it").toBe(bounded);
    const ofAll = await host.guest.run("cat /sys/fs/cgroup/sandboxd.slice/pids.max");
    expect(BigInt(ofAll), "the host as a whole").toBe((await host.host.getHost({})).host?.allocatable?.pids);
    await remove("owned");
    await eventually(
      "an end of the slice",
      () => host.guest.run(`if test -d ${slice}; then echo there; fi`),
      (text) => text === "",
      guestPatienceMs,
    );
    await host.tenants.putTenant({ tenant });
  });

  test("an update changes what the kernel holds while the sandbox runs", async () => {
    const created = await host.run("updated", sleeping);
    const files = ["memory.max", "memory.swap.max", "cpu.max", "pids.max"] as const;
    const { sandbox } = await host.sandboxes.updateSandbox({
      sandboxId: "updated",
      resources: { memoryBytes: BigInt(64 * mebibyte), pids: 40n, cpuMillis: 300n },
    });
    expect(sandbox?.status?.containerId).toBe(created.status?.containerId);
    expect(await kernel(created, ...files)).toEqual({
      "memory.max": `${64 * mebibyte}`,
      "memory.swap.max": "0",
      "cpu.max": "30000 100000",
      "pids.max": "40",
    });
    await host.sandboxes.updateSandbox({
      sandboxId: "updated",
      resources: { memoryBytes: BigInt(16 * mebibyte), pids: 10n, cpuMillis: 100n },
    });
    expect(await kernel(created, ...files)).toEqual({
      "memory.max": `${16 * mebibyte}`,
      "memory.swap.max": "0",
      "cpu.max": "10000 100000",
      "pids.max": "10",
    });
    // What the engine asked of systemd holds too when systemd writes its own properties anew.
    await host.guest.run("systemctl daemon-reload");
    expect(await kernel(created, ...files)).toMatchObject({ "pids.max": "10", "cpu.max": "10000 100000" });
    await remove("updated");
  });

  test("a command that takes more memory than it may is killed, and told to have been", async () => {
    await host.run("hog", "exec tail /dev/zero");
    const sandbox = await host.until("hog", isIn(SandboxState.FAILED));
    expect(whereIs(sandbox)).toEqual({ state: "FAILED", reason: "OOM_KILLED" });
    expect(sandbox.status?.exit).toMatchObject({ code: 137, signal: 9, oomKilled: true });
    await remove("hog");
  });

  test("forks beyond the pids limit are refused and counted, and the sandbox lives on", async () => {
    await host.run("forks", "(for i in $(seq 40); do sleep 1000 & done); exec sleep 1000", { pids: 8n });
    const stats = await eventually(
      "a refused fork",
      () => statsOf("forks"),
      (seen) => seen.pidsRefused > 0n,
      guestPatienceMs,
    );
    expect(stats.pids).toBeLessThanOrEqual(8n);
    expect(stats.pidsLimit).toBe(8n);
    expect((await host.get("forks")).status?.state).toBe(SandboxState.RUNNING);
    await remove("forks");
  });

  test("a busy loop is held back at its share of CPU, and its figures say so", async () => {
    const sandbox = await host.run("busy", "while :; do :; done", { cpuMillis: 100n });
    const stats = await eventually(
      "throttling",
      () => statsOf("busy"),
      ({ cpuThrottledPeriods }) => cpuThrottledPeriods > 20n,
      guestPatienceMs,
    );
    expect(stats.cpuThrottledUsec).toBeGreaterThan(0n);
    const counters = async (): Promise<(key: string) => number> => {
      const { "cpu.stat": text } = await kernel(sandbox, "cpu.stat");
      return (key) => Number(new RegExp(`^${key} (\\d+)$`, "m").exec(text)?.[1]);
    };
    const first = await counters();
    const then = await eventually(
      "more periods",
      counters,
      (seen) => seen("nr_periods") > first("nr_periods") + 30,
      guestPatienceMs,
    );
    // Both are by the kernel's own clock, whatever the emulator does to that of the wall.
    const usedMicros = then("usage_usec") - first("usage_usec");
    const millis = usedMicros / ((then("nr_periods") - first("nr_periods")) * 100);
    expect(millis, "a tenth of a CPU, and what one period may add").toBeLessThan(140);
    await eventually(
      "as much in its figures",
      () => statsOf("busy"),
      ({ cpuUsageUsec }) => Number(cpuUsageUsec) >= then("usage_usec"),
      guestPatienceMs,
    );
    await remove("busy");
  });

  test("the figures of a sandbox are those of the kernel", async () => {
    const fill =
      "dd if=/dev/zero of=/tmp/a bs=1M count=8; sleep 1000 & while :; do cat /bin/busybox; sleep 1; done";
    const sandbox = await host.run("measured", `(${fill}) >/dev/null`);
    // so that what the loop reads comes from the disk
    await host.guest.run("sync; echo 3 >/proc/sys/vm/drop_caches");
    const stats = await eventually(
      "reads",
      () => statsOf("measured"),
      ({ blockReadBytes, memoryUsageBytes }) => blockReadBytes > 0n && memoryUsageBytes > 8 * mebibyte,
      guestPatienceMs,
    );
    const files = ["memory.current", "memory.max", "pids.current", "io.stat"] as const;
    const now = await kernel(sandbox, ...files);
    expect(Math.abs(Number(stats.memoryUsageBytes) - Number(now["memory.current"]))).toBeLessThan(
      4 * mebibyte,
    );
    expect(stats.memoryWorkingSetBytes).toBeGreaterThan(BigInt(8 * mebibyte));
    expect(stats.memoryWorkingSetBytes).toBeLessThanOrEqual(stats.memoryUsageBytes);
    expect(String(stats.memoryLimitBytes)).toBe(now["memory.max"]);
    expect(stats.oomKills).toBe(0n);
    // the loop is always in its sleep or about to start it
    expect(Math.abs(Number(stats.pids) - Number(now["pids.current"]))).toBeLessThanOrEqual(1);
    expect(stats.pids).toBeGreaterThanOrEqual(3n);
    const read = [...now["io.stat"].matchAll(/rbytes=(\d+)/g)].map(([, bytes]) => Number(bytes));
    expect(stats.blockReadOperations).toBeGreaterThan(0n);
    expect(Number(stats.blockReadBytes)).toBeLessThanOrEqual(read.reduce((sum, bytes) => sum + bytes, 0));
    await remove("measured");
  });

  test("the host's pressure is told as its kernel has it", async () => {
    await host.run("pressing", "for i in 1 2 3 4; do while :; do :; done & done; wait", {
      cpuMillis: 1_000n,
    });
    const pressure = async () => {
      for await (const { update } of host.host.watchHost({ statsPeriod: { seconds: 1n } })) {
        if (update.case === "stats") return present(update.value.host);
      }
      throw new Error("the stream ended");
    };
    const told = await eventually(
      "pressure",
      pressure,
      ({ cpuPressure }) => present(cpuPressure).someAvg10 > 5,
      guestPatienceMs,
    );
    const [, kernelAvg60] =
      /^some .* avg60=([\d.]+)/.exec(await host.guest.run("cat /proc/pressure/cpu")) ?? [];
    // it may have been computed once more in between, every two seconds
    expect(Math.abs(present(told.cpuPressure).someAvg60 - Number(kernelAvg60))).toBeLessThan(10);
    expect(told.memoryPressure).toBeDefined();
    expect(told.ioPressure).toBeDefined();
    await remove("pressing");
  });
});
