import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { deviceOf } from "../../../src/monitor/host-disks.ts";
import { type HostSamplerOptions, openHostSampler } from "../../../src/monitor/host-sampler.ts";
import { openDescriptors } from "./cgroup-tree.ts";

let root: string;
let nowMs: number;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "host-"));
  nowMs = 10_000;
  const { major, minor } = deviceOf(statSync(root).dev);
  write("proc/stat", stat(100));
  write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 400 kB\n");
  write("proc/loadavg", "0.5 0.4 0.3 2/98 8229\n");
  write("proc/sys/kernel/pid_max", "32768\n");
  write("proc/sys/kernel/threads-max", "20000\n");
  write("proc/self/mountinfo", "");
  write("proc/pressure/memory", "some avg10=1.00 avg60=0.50 avg300=0.00 total=9\n");
  write(
    "proc/diskstats",
    [
      "   7       0 loop0 9 9 9 9 9 9 9 9 9 9 9",
      ` ${major}       ${minor} disk 11 0 16 0 22 0 32 0 0 55 0 0 0 0 0 0 0`,
      "",
    ].join("\n"),
  );
  write(
    "proc/net/dev",
    [
      "lo: 9 9 9 9 9 9 9 9 9 9 9 9",
      "eth0: 1 2 0 3 0 0 0 0 4 5 0 6",
      "veth1: 7 7 7 7 7 7 7 7 7 7 7 7",
      "",
    ].join("\n"),
  );
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

function write(path: string, contents: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), contents);
}

/** /proc/stat of two CPUs with this many ticks (10 ms) of user time. */
function stat(userTicks: number): string {
  return `cpu ${userTicks} 0 0 900 0 0 0 0 0 0\ncpu0 1\ncpu1 1\n`;
}

async function open(options: Partial<HostSamplerOptions> = {}) {
  const sampler = await openHostSampler({
    directories: [root],
    clock: { monotonicMs: () => nowMs, wallMs: () => 1 },
    procPath: join(root, "proc"),
    sysPath: join(root, "sys"),
    ...options,
  });
  return { ...sampler, [Symbol.dispose]: sampler.close };
}

describe("the host's sampler", () => {
  it("reads every figure", async () => {
    using sampler = await open();
    expect(sampler.sample()).toMatchObject({
      monotonicMs: 10_000,
      wallMs: 1,
      cpu: { busyUsec: 1_000_000, totalUsec: 10_000_000, cpus: 2 },
      memory: { totalBytes: 1_024_000, availableBytes: 409_600, swapTotalBytes: 0 },
      load: { load1: 0.5, load5: 0.4, load15: 0.3 },
      pids: { current: 98, limit: 20_000 },
    });
  });

  it("has the CPU use since boot first, and since the sample before from then on", async () => {
    using sampler = await open();
    // 1 s busy on two CPUs that have been up for 5 s
    expect(sampler.sample().cpu.usageMillis).toBe(200);
    write("proc/stat", stat(250));
    nowMs += 1000;
    expect(sampler.sample().cpu.usageMillis).toBe(1500);
    write("proc/stat", stat(240));
    nowMs += 1000;
    expect(sampler.sample().cpu.usageMillis).toBe(0);
  });

  it("leaves out what the kernel doesn't have", async () => {
    using sampler = await open();
    expect(sampler.sample().pressure).toEqual({ memory: { some: { avg10: 1, avg60: 0.5, totalUsec: 9 } } });
  });

  it("has the space and the traffic of each directory's file system", async () => {
    using sampler = await open();
    const [disk] = sampler.sample().disks;
    expect(disk?.space?.totalBytes).toBeGreaterThan(0);
    expect(disk?.device).toEqual({
      readBytes: 16 * 512,
      writeBytes: 32 * 512,
      readOperations: 11,
      writeOperations: 22,
      busyMs: 55,
    });
  });

  it("says what is wrong with a directory, and has the others' figures all the same", async () => {
    using sampler = await open({ directories: [join(root, "absent"), root] });
    const [absent, present] = sampler.sample().disks;
    expect(absent?.problem).toContain("ENOENT");
    expect(absent?.space).toBeUndefined();
    expect(present?.space).toBeDefined();
  });

  it("watches one more directory from a later sample on, and once", async () => {
    using sampler = await open();
    sampler.watch("/proc");
    sampler.watch("/proc");
    sampler.watch(root);
    sampler.sample();
    await expect.poll(() => sampler.sample().disks[1]?.space).toBeDefined();
    expect(sampler.sample().disks.map(({ path }) => path)).toEqual([root, "/proc"]);
  });

  it("counts interfaces that have hardware, so that no packet counts twice", async () => {
    mkdirSync(join(root, "sys/class/net/eth0/device"), { recursive: true });
    mkdirSync(join(root, "sys/class/net/veth1"), { recursive: true });
    using sampler = await open();
    expect(sampler.sample().network).toEqual({
      rxBytes: 1,
      rxPackets: 2,
      rxDropped: 3,
      txBytes: 4,
      txPackets: 5,
      txDropped: 6,
    });
  });

  it("counts all but loopback where no interface has hardware", async () => {
    using sampler = await open();
    expect(sampler.sample().network.rxBytes).toBe(8);
  });

  it("leaves nothing open when it can't be made, when its opening is aborted, and when it is closed", async () => {
    const descriptors = openDescriptors();
    const sampler = await open();
    sampler.close();
    expect(() => sampler.sample()).toThrow("closed");
    expect(openDescriptors()).toBe(descriptors);
    await expect(
      openHostSampler({ directories: [root] }, { signal: AbortSignal.abort(new Error("stop")) }),
    ).rejects.toThrow("stop");
    rmSync(join(root, "proc/meminfo"));
    await expect(open()).rejects.toThrow("meminfo");
    expect(openDescriptors()).toBe(descriptors);
  });
});
