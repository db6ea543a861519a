// The samplers against the machine's own kernel: cgroups made here, without an engine, with real children in them.
// Needs root, and write access to cgroups of either version with the cpu, memory and pids controllers.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { openSandboxSampler, type SandboxSampler } from "../../src/monitor/cgroup-sampler.ts";
import { systemClock } from "../../src/monitor/clock.ts";
import { openHostSampler } from "../../src/monitor/host-sampler.ts";
import { readInventory } from "../../src/monitor/inventory.ts";
import { createHistory } from "../../src/monitor/ring-buffer.ts";
import type { CgroupLocation, SandboxSample } from "../../src/monitor/sample.ts";

const root = "/sys/fs/cgroup";
const v1Controllers = ["cpu", "cpuacct", "memory", "pids", "blkio"] as const;
const isV2 = existsSync(`${root}/cgroup.controllers`);
const unavailable =
  process.getuid?.() === 0 && (isV2 || existsSync(`${root}/memory`)) ? "" : "no root or no cgroups";

interface Limits {
  readonly cpuMillis?: number;
  readonly memoryBytes?: number;
  readonly pids?: number;
}

interface Cgroup {
  readonly location: CgroupLocation;
  /** Runs a shell line in the cgroup. */
  run(line: string): ChildProcess;
  /** Ends everything in it and takes it away. */
  remove(): Promise<void>;
}

let made: Cgroup[] = [];
let samplers: SandboxSampler[] = [];
let counter = 0;
let scratch: string | undefined;

afterEach(async () => {
  for (const sampler of samplers) {
    sampler.close();
  }
  await Promise.all(made.map((cgroup) => cgroup.remove()));
  made = [];
  samplers = [];
  if (scratch !== undefined) {
    rmSync(scratch, { recursive: true });
    scratch = undefined;
  }
});

function makeCgroup(limits: Limits = {}): Cgroup {
  const name = `sandboxd-test-${process.pid}-${counter++}`;
  const cgroup = isV2 ? makeV2(`${root}/${name}`, limits) : makeV1(name, limits);
  made.push(cgroup);
  return cgroup;
}

function makeV1(name: string, limits: Limits): Cgroup {
  const pathOf = (controller: string): string => `${root}/${controller}/${name}`;
  // cpu and cpuacct may be one hierarchy under two names
  for (const controller of v1Controllers) {
    mkdirSync(pathOf(controller), { recursive: true });
  }
  set(`${pathOf("cpu")}/cpu.cfs_quota_us`, limits.cpuMillis, (millis) => millis * 100);
  set(`${pathOf("memory")}/memory.limit_in_bytes`, limits.memoryBytes);
  set(`${pathOf("pids")}/pids.max`, limits.pids);
  const paths = {
    cpu: pathOf("cpu"),
    cpuacct: pathOf("cpuacct"),
    memory: pathOf("memory"),
    pids: pathOf("pids"),
    blkio: pathOf("blkio"),
  };
  return cgroupAt({ version: 1, paths }, Object.values(paths));
}

function makeV2(path: string, limits: Limits): Cgroup {
  writeFileSync(`${root}/cgroup.subtree_control`, "+cpu +memory +pids +io");
  mkdirSync(path);
  set(`${path}/cpu.max`, limits.cpuMillis, (millis) => `${millis * 100} 100000`);
  set(`${path}/memory.max`, limits.memoryBytes);
  set(`${path}/memory.swap.max`, limits.memoryBytes === undefined ? undefined : 0);
  set(`${path}/pids.max`, limits.pids);
  return cgroupAt({ version: 2, path }, [path]);
}

function set(file: string, value: number | undefined, encode: (value: number) => unknown = String): void {
  if (value !== undefined) {
    writeFileSync(file, String(encode(value)));
  }
}

function cgroupAt(location: CgroupLocation, directories: readonly string[]): Cgroup {
  const members = (): number[] =>
    directories
      .filter((directory) => existsSync(directory))
      .flatMap((directory) => readFileSync(`${directory}/cgroup.procs`, "utf8").split("\n"))
      .filter(Boolean)
      .map(Number);
  return {
    location,
    run(line) {
      const enter = directories.map((directory) => `echo $$ > ${directory}/cgroup.procs`).join(" && ");
      return spawn("bash", ["-c", `${enter} && ${line}`], { stdio: "ignore" });
    },
    async remove() {
      for (let left = members(); left.length > 0; left = members()) {
        for (const pid of left) {
          killIfThere(pid);
        }
        await sleep(20);
      }
      for (const directory of directories.filter((path) => existsSync(path))) {
        rmdirSync(directory);
      }
    },
  };
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) {
      throw error;
    }
  }
}

function sample(cgroup: Cgroup, pid?: number): SandboxSampler {
  const source = { cgroup: cgroup.location, hasNetwork: pid !== undefined };
  const sampler = openSandboxSampler(pid === undefined ? source : { ...source, pid }, systemClock);
  if (sampler === undefined) {
    throw new Error("the cgroup just made is not there");
  }
  samplers.push(sampler);
  return sampler;
}

/** Samples until the condition holds; fails after ten seconds. */
async function until(
  sampler: SandboxSampler,
  condition: (sample: SandboxSample) => boolean,
): Promise<SandboxSample> {
  const deadline = systemClock.monotonicMs() + 10_000;
  let last: SandboxSample | undefined;
  while (systemClock.monotonicMs() < deadline) {
    last = sampler.sample({ everything: true });
    if (last !== undefined && condition(last)) {
      return last;
    }
    await sleep(20);
  }
  throw new Error(`not seen within 10 s; last: ${JSON.stringify(last)}`);
}

function openDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

describe.skipIf(unavailable !== "")(`a sampler on a real cgroup (v${isV2 ? 2 : 1}) ${unavailable}`, () => {
  it("sees a busy loop held at its CPU limit", async () => {
    const cgroup = makeCgroup({ cpuMillis: 200 });
    cgroup.run("while :; do :; done");
    const sampler = sample(cgroup);
    const history = createHistory(10);
    history.push(await until(sampler, ({ cpu }) => cpu.throttledPeriods > 0));
    await sleep(1500);
    history.push(await until(sampler, () => true));
    const cpu = history.summary(0)?.cpu;
    expect(cpu?.averageMillis).toBeGreaterThan(120);
    expect(cpu?.averageMillis).toBeLessThan(280);
    expect(cpu?.throttledShare).toBeGreaterThan(0.5);
    expect(cpu?.throttledUsec).toBeGreaterThan(0);
  });

  it("sees a memory hog killed, its limit, and its limit met", async () => {
    const memoryBytes = 32 * 1024 * 1024;
    const cgroup = makeCgroup({ memoryBytes });
    const sampler = sample(cgroup);
    // the shell that waits outlives the process that is killed
    cgroup.run("tail /dev/zero; sleep 60");
    const { memory } = await until(sampler, (seen) => seen.memory.oomKills > 0);
    expect(memory).toMatchObject({ oomKills: 1, limitBytes: memoryBytes });
    expect(memory.oomEvents).toBeGreaterThan(0);
    expect(memory.limitHits).toBeGreaterThan(0);
  });

  it("tells page cache that could be dropped from memory that could not", async () => {
    const cgroup = makeCgroup();
    const sampler = sample(cgroup);
    // on a real file system: on a tmpfs the pages would be memory that can't be dropped
    scratch = mkdtempSync("/var/tmp/sandboxd-test-");
    cgroup.run(`head -c 32M /dev/zero > ${scratch}/file; sleep 60`);
    const { memory } = await until(sampler, (seen) => seen.memory.cacheBytes >= 32 * 1024 * 1024);
    expect(memory.usageBytes).toBeGreaterThanOrEqual(memory.cacheBytes);
    expect(memory.workingSetBytes).toBeLessThan(memory.usageBytes - 16 * 1024 * 1024);
  });

  it("sees forks refused at the limit of processes", async () => {
    const cgroup = makeCgroup({ pids: 10 });
    const sampler = sample(cgroup);
    cgroup.run("for i in {1..30}; do sleep 60 & done; sleep 60");
    const { pids } = await until(sampler, (seen) => seen.pids.refusedForks > 0);
    expect(pids.limit).toBe(10);
    expect(pids.current).toBeLessThanOrEqual(10);
    expect(pids.current).toBeGreaterThan(5);
  });

  it("sees a limit that was changed meanwhile", async () => {
    const cgroup = makeCgroup({ memoryBytes: 32 * 1024 * 1024, pids: 10 });
    const sampler = sample(cgroup);
    expect(sampler.sample()?.memory.limitBytes).toBe(32 * 1024 * 1024);
    const { location } = cgroup;
    const file =
      location.version === 1
        ? `${location.paths.memory}/memory.limit_in_bytes`
        : `${location.path}/memory.max`;
    writeFileSync(file, String(64 * 1024 * 1024));
    expect(sampler.sample({ everything: true })?.memory.limitBytes).toBe(64 * 1024 * 1024);
  });

  it("ends, without an error and with nothing left open, when the kernel takes the cgroup away", async () => {
    const descriptors = openDescriptors();
    const cgroup = makeCgroup();
    const sampler = sample(cgroup);
    expect(sampler.sample()).toBeDefined();
    await cgroup.remove();
    expect(sampler.sample()).toBeUndefined();
    expect(openDescriptors()).toBe(descriptors);
  });

  it("counts the traffic of the sandbox's own network namespace", async () => {
    const cgroup = makeCgroup();
    const child = cgroup.run("exec unshare --net bash -c 'read -t 60 <> <(:)'");
    await until(sample(cgroup), ({ pids }) => pids.current > 0);
    await sleep(100);
    const pid = child.pid ?? 0;
    const sampler = sample(cgroup, pid);
    expect(sampler.sample()?.network).toMatchObject({ txBytes: 0, rxBytes: 0 });
    const inside =
      "ip link add d0 type veth peer name d1 && ip addr add 192.0.2.1/24 dev d0 && ip link set d0 up && ip link set d1 up";
    const packet =
      "ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:01 dev d0 && echo hello > /dev/udp/192.0.2.2/9";
    const talk = spawn("nsenter", ["-t", String(pid), "-n", "bash", "-c", `${inside} && ${packet}`]);
    const [code] = await once(talk, "exit");
    expect(code).toBe(0);
    expect(
      (await until(sampler, (seen) => (seen.network?.txPackets ?? 0) > 0)).network?.txBytes,
    ).toBeGreaterThan(0);
  });

  it("costs less than half of opening and reading the same files", async () => {
    const cgroup = makeCgroup();
    cgroup.run("sleep 60");
    const sampler = sample(cgroup);
    await until(sampler, ({ pids }) => pids.current > 0);
    const { location } = cgroup;
    const files =
      location.version === 1
        ? [
            ...["cpuacct.usage", "cpuacct.stat"].map((file) => `${location.paths.cpuacct}/${file}`),
            `${location.paths.cpu}/cpu.stat`,
            ...["usage_in_bytes", "stat", "limit_in_bytes", "failcnt", "oom_control"].map(
              (file) => `${location.paths.memory}/memory.${file}`,
            ),
            ...["current", "max", "events"].map((file) => `${location.paths.pids}/pids.${file}`),
          ]
        : [
            ...["cpu.stat", "memory.current", "memory.stat", "memory.max", "memory.events"],
            ...["pids.current", "pids.max", "pids.events", "io.stat"],
          ].map((file) => `${location.path}/${file}`);
    const anew = cpuUsecOf(500, () => {
      for (const file of files) {
        readFileSync(file);
      }
    });
    const kept = cpuUsecOf(500, () => sampler.sample());
    expect(kept).toBeLessThan(anew / 2);
  });
});

function cpuUsecOf(times: number, work: () => unknown): number {
  for (let i = 0; i < times; i++) {
    work();
  }
  const before = process.cpuUsage();
  for (let i = 0; i < times; i++) {
    work();
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / times;
}

describe("a sampler on the real host", () => {
  it("sees the CPU that this process uses", async () => {
    const sampler = await openHostSampler({ directories: ["/"] });
    sampler.sample();
    const end = systemClock.monotonicMs() + 500;
    while (systemClock.monotonicMs() < end) {
      // nothing but burning
    }
    const { cpu, memory, disks, pids } = sampler.sample();
    sampler.close();
    expect(cpu.usageMillis).toBeGreaterThan(300);
    expect(cpu.usageMillis).toBeLessThanOrEqual(cpu.cpus * 1000);
    expect(memory.availableBytes).toBeLessThan(memory.totalBytes);
    expect(disks[0]?.space?.totalInodes).toBeGreaterThan(0);
    expect(pids.current).toBeLessThan(pids.limit);
  });

  it("has an inventory with its kernel in it", async () => {
    const { source, problem, os, cpu } = await readInventory({ timeoutMs: 20_000 });
    expect(source, problem).toBe("systeminformation");
    expect(os.kernel).toBe(readFileSync("/proc/sys/kernel/osrelease", "utf8").trim());
    expect(cpu.logical).toBeGreaterThan(0);
  });
});
