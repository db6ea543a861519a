import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { cgroupPathsOf } from "../../../src/engine/cgroup-path.ts";
import { findUnenforced, readBackLimits } from "../../../src/engine/limits.ts";
import { plan } from "./plan.ts";

const containerId = "c".repeat(64);
const device = "254:0";
let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "limits-"));
});
afterEach(() => {
  rmSync(root, { recursive: true });
});

function write(files: Readonly<Record<string, string>>): void {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), `${content}\n`);
  }
}

const locate = () =>
  cgroupPathsOf(42, { containerId, procRoot: join(root, "proc"), cgroupRoot: join(root, "cgroup") });
const unenforced = () =>
  findUnenforced(plan, readBackLimits({ paths: locate(), device })).map(({ limit }) => limit);

describe("a container's limits under cgroup version 2", () => {
  const scope = `cgroup/sandboxd.slice/docker-${containerId}.scope`;
  const held = {
    "proc/42/cgroup": `0::/sandboxd.slice/docker-${containerId}.scope`,
    [`${scope}/memory.max`]: "67108864",
    [`${scope}/memory.swap.max`]: "0",
    [`${scope}/cpu.max`]: "50000 100000",
    [`${scope}/cpu.weight`]: "20",
    [`${scope}/pids.max`]: "64",
    [`${scope}/io.max`]:
      "8:0 rbps=1 wbps=1 riops=1 wiops=1\n254:0 rbps=20000000 wbps=max riops=max wiops=500",
  };

  test("are all held where the files say what the plan says", () => {
    write(held);
    expect(unenforced()).toEqual([]);
  });

  test("are held with the weight that newer runtimes make of the shares", () => {
    write({ ...held, [`${scope}/cpu.weight`]: "59" });
    expect(unenforced()).toEqual([]);
  });

  test.each([
    ["memory.max", "max", "memoryBytes"],
    ["memory.max", "67108865", "memoryBytes"],
    ["memory.max", "60000000", "memoryBytes"],
    ["memory.swap.max", "max", "swapBytes"],
    ["memory.swap.max", "4096", "swapBytes"],
    ["cpu.max", "max 100000", "cpuMillis"],
    ["cpu.max", "100000 100000", "cpuMillis"],
    ["cpu.weight", "100", "cpuWeight"],
    ["pids.max", "max", "pids"],
  ])("miss one where %s is %s", (file, content, limit) => {
    write({ ...held, [`${scope}/${file}`]: content });
    expect(unenforced()).toEqual([limit]);
  });

  test("miss both throttles where io.max has no line for the device", () => {
    write({ ...held, [`${scope}/io.max`]: "" });
    expect(unenforced()).toEqual(["blockIo.readBytesPerSecond", "blockIo.writeOperationsPerSecond"]);
  });

  test("are not taken from a process of another container", () => {
    write({ ...held, "proc/42/cgroup": "0::/system.slice/ssh.service" });
    expect(locate).toThrow(/not in that of container/);
  });
});

describe("a container's limits under cgroup version 1", () => {
  const path = `sandboxd/t/${containerId}`;
  const controllers = ["memory", "cpu,cpuacct", "pids", "blkio", "freezer"];
  const held = {
    "proc/42/cgroup": [...controllers.map((list, index) => `${index + 1}:${list}:/${path}`), "0::/"].join(
      "\n",
    ),
    [`cgroup/memory/${path}/memory.limit_in_bytes`]: "67108864",
    [`cgroup/memory/${path}/memory.memsw.limit_in_bytes`]: "67108864",
    [`cgroup/cpu,cpuacct/${path}/cpu.cfs_quota_us`]: "50000",
    [`cgroup/cpu,cpuacct/${path}/cpu.cfs_period_us`]: "100000",
    [`cgroup/cpu,cpuacct/${path}/cpu.shares`]: "512",
    [`cgroup/pids/${path}/pids.max`]: "64",
    [`cgroup/blkio/${path}/blkio.throttle.read_bps_device`]: "254:0 20000000",
    [`cgroup/blkio/${path}/blkio.throttle.write_iops_device`]: "254:0 500",
  };

  test("are all held where the files say what the plan says", () => {
    write(held);
    expect(unenforced()).toEqual([]);
  });

  test.each([
    [`cgroup/memory/${path}/memory.limit_in_bytes`, "9223372036854771712", "memoryBytes"],
    [`cgroup/memory/${path}/memory.memsw.limit_in_bytes`, "9223372036854771712", "swapBytes"],
    [`cgroup/cpu,cpuacct/${path}/cpu.cfs_quota_us`, "-1", "cpuMillis"],
    [`cgroup/cpu,cpuacct/${path}/cpu.shares`, "1024", "cpuWeight"],
    [`cgroup/pids/${path}/pids.max`, "max", "pids"],
    [`cgroup/blkio/${path}/blkio.throttle.read_bps_device`, "8:0 20000000", "blockIo.readBytesPerSecond"],
  ])("miss one where %s is %s", (file, content, limit) => {
    write({ ...held, [file]: content });
    expect(unenforced()).toEqual([limit]);
  });

  test("miss the swap limit where the kernel does not account for swap", () => {
    write(held);
    rmSync(join(root, `cgroup/memory/${path}/memory.memsw.limit_in_bytes`));
    expect(unenforced()).toEqual(["swapBytes"]);
  });
});
