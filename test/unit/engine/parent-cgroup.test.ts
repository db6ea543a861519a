import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { changesBetween, sharesOf, wantedLimits, weightOf } from "../../../src/engine/group-limits.ts";
import { createParentCgroups, type GroupLimits } from "../../../src/engine/parent-cgroup.ts";

type Files = Readonly<Record<string, string>>;

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "parent-cgroup-"));
});
afterEach(() => rmSync(root, { recursive: true }));

const inRoot = (path: string) => join(root, path);
const content = (path: string) => readFileSync(inRoot(path), "latin1");

/** Files as a kernel shows them: each ends with a newline. */
function show(files: Files): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(inRoot(path)), { recursive: true });
    writeFileSync(inRoot(path), `${text}\n`);
  }
}

/** Those of the files that were written since, and what: no write ends with a newline. */
function writtenOf(files: Files): Files {
  const now = Object.keys(files).map((path) => [path, content(path)] as const);
  return Object.fromEntries(now.filter(([, text]) => !text.endsWith("\n")));
}

/** Puts in the place of a file one that shows a number, and takes none. */
function refuse(path: string): void {
  rmSync(inRoot(path));
  symlinkSync("/proc/self/oom_score", inRoot(path));
}

const limits: GroupLimits = { cpuMillis: 1_500, cpuWeight: 2_048, memoryBytes: 67_108_864, pids: 200 };

const memory1 = (name: string) => `memory/sandboxd/7/memory.${name}`;
const cpu1 = (name: string) => `cpu,cpuacct/sandboxd/7/${name}`;
const version1 = {
  version: 1,
  parent: "/sandboxd/7",
  /** A group of which only the weight is limited. */
  loose: {
    [memory1("limit_in_bytes")]: "9223372036854771712",
    [memory1("memsw.limit_in_bytes")]: "9223372036854771712",
    [memory1("usage_in_bytes")]: "4096",
    [cpu1("cpu.cfs_quota_us")]: "-1",
    [cpu1("cpu.cfs_period_us")]: "100000",
    [cpu1("cpu.shares")]: "1024",
    [cpu1("cpuacct.usage")]: "1234567",
    "pids/sandboxd/7/pids.max": "max",
    "pids/sandboxd/7/pids.current": "3",
  },
  /** What becomes of it with all limits. */
  bounds: {
    [memory1("limit_in_bytes")]: "67108864",
    [memory1("memsw.limit_in_bytes")]: "67108864",
    [cpu1("cpu.cfs_quota_us")]: "150000",
    [cpu1("cpu.shares")]: "2048",
    "pids/sandboxd/7/pids.max": "200",
  },
  swap: memory1("memsw.limit_in_bytes"),
  pids: "pids/sandboxd/7/pids.max",
  memory: memory1("limit_in_bytes"),
  looseWeight: 1_024,
  weight: 2_048,
} as const;

const version2 = {
  version: 2,
  parent: "/sandboxd/7",
  loose: {
    "sandboxd/7/memory.max": "max",
    "sandboxd/7/memory.swap.max": "max",
    "sandboxd/7/memory.current": "4096",
    "sandboxd/7/cpu.max": "max 100000",
    "sandboxd/7/cpu.weight": "100",
    "sandboxd/7/cpu.stat": "usage_usec 1234\nuser_usec 1000\nsystem_usec 234",
    "sandboxd/7/pids.max": "max",
    "sandboxd/7/pids.current": "3",
  },
  bounds: {
    "sandboxd/7/memory.max": "67108864",
    "sandboxd/7/memory.swap.max": "0",
    "sandboxd/7/cpu.max": "150000 100000",
    "sandboxd/7/cpu.weight": "79",
    "sandboxd/7/pids.max": "200",
  },
  swap: "sandboxd/7/memory.swap.max",
  pids: "sandboxd/7/pids.max",
  memory: "sandboxd/7/memory.max",
  looseWeight: 2_598,
  weight: 2_047,
} as const;

describe.each([version1, version2])("a parent cgroup of version $version", (layout) => {
  const { version, parent, bounds, pids, memory, swap, looseWeight, weight } = layout;
  const loose: Files = layout.loose;
  const bounded: Files = { ...loose, ...bounds };
  const cgroups = () => createParentCgroups({ version, cgroupRoot: root });

  test("is read as its files are", () => {
    show(bounded);
    expect(cgroups().read(parent)).toEqual({
      limits: { ...limits, cpuWeight: weight },
      cpuUsageUsec: 1_234,
      memoryBytes: 4_096,
      pids: 3,
    });
  });

  test("shows no limit that it does not have", () => {
    show(loose);
    expect(cgroups().read(parent)?.limits).toEqual({ cpuWeight: looseWeight });
  });

  test.each(Object.keys(loose).filter((path) => path !== swap))("is none without %s", (path) => {
    show(bounded);
    rmSync(inRoot(path));
    expect(cgroups().read(parent)).toBeUndefined();
  });

  test("is given each limit in the kernel's words", async () => {
    show(loose);
    await cgroups().hold(parent, limits);
    expect(writtenOf(loose)).toEqual(bounds);
  });

  test("is not written to while it has its limits, in whole pages", async () => {
    show(bounded);
    await cgroups().hold(parent, { ...limits, memoryBytes: 67_108_864 + 4_095 });
    expect(writtenOf(bounded)).toEqual({});
  });

  test("is told only what differs", async () => {
    show(bounded);
    await cgroups().hold(parent, { ...limits, pids: 201 });
    expect(writtenOf(bounded)).toEqual({ [pids]: "201" });
  });

  test("keeps the weight that it has if asked to", async () => {
    show(bounded);
    await cgroups().hold(parent, { ...limits, cpuWeight: 512, pids: 201 }, { keepWeight: true });
    expect(writtenOf(bounded)).toEqual({ [pids]: "201" });
    await cgroups().hold(parent, { ...limits, cpuWeight: 512, pids: 201 });
    expect(cgroups().read(parent)?.limits.cpuWeight).not.toBe(weight);
  });

  test("goes without a limit of swap where the kernel does not account for it", async () => {
    show(loose);
    rmSync(inRoot(swap));
    await cgroups().hold(parent, limits);
    expect(content(memory)).toBe("67108864");
  });

  test("is as before when it was refused one of several limits, and the error says which", async () => {
    show(bounded);
    refuse(pids);
    const shown = Number(content(pids));
    await expect(cgroups().hold(parent, { ...limits, cpuWeight: 512, pids: 99 })).rejects.toMatchObject({
      reason: "LIMIT_UNENFORCEABLE",
      message: expect.stringMatching(
        `^cgroup /sandboxd/7 cannot have pids 99, the kernel holds ${shown}: E[A-Z]+`,
      ),
    });
    expect(cgroups().read(parent)?.limits).toEqual({ ...limits, cpuWeight: weight, pids: shown });
  });

  test("cannot be made where a controller is absent", async () => {
    await expect(cgroups().hold(parent, limits)).rejects.toMatchObject({
      reason: "LIMIT_UNENFORCEABLE",
      message: expect.stringMatching("^cgroup /sandboxd/7 cannot be made: "),
    });
  });

  test("is gone if it never was", async () => {
    expect(await cgroups().remove(parent)).toBe(true);
  });

  test.each(["/", "", "sandboxd", "/sandboxd/..", "-.slice", "--help.slice", "a/b.slice"])(
    "is not called %j",
    async (name) => {
      await expect(cgroups().hold(name, limits)).rejects.toThrow("is not the name of a parent cgroup");
      await expect(cgroups().remove(name)).rejects.toThrow("is not the name of a parent cgroup");
    },
  );
});

describe("a parent cgroup of version 1", () => {
  const cgroups = () => createParentCgroups({ version: 1, cgroupRoot: root });
  const held = (memoryBytes: number) => wantedLimits({ ...limits, memoryBytes }, 1);
  const orderOf = (from: number, to: number) =>
    changesBetween(held(from), held(to)).map(({ limit }) => limit);

  test("is raised from outside to inside, and lowered the other way, as its memory is within that of both", () => {
    expect(orderOf(10_000_000, 20_000_000)).toEqual(["swapBytes", "memoryBytes"]);
    expect(orderOf(20_000_000, 10_000_000)).toEqual(["memoryBytes", "swapBytes"]);
  });

  test("is told to bound the groups within where old kernels would not", async () => {
    const flag = memory1("use_hierarchy");
    show({ [flag]: "0" });
    await cgroups()
      .hold("/sandboxd/7", limits)
      .catch(() => {});
    expect(content(flag)).toBe("1");
  });
});

describe("a parent cgroup of version 2", () => {
  const cgroups = () => createParentCgroups({ version: 2, cgroupRoot: root });

  test("gets the controllers that there are from every group around it, and hands them down", async () => {
    const available = "cpuset cpu memory pids rdma";
    show({
      "cgroup.controllers": available,
      "cgroup.subtree_control": "memory pids rdma",
      "sandboxd/cgroup.controllers": available,
      "sandboxd/cgroup.subtree_control": "",
      "sandboxd/7/cgroup.controllers": available,
      "sandboxd/7/cgroup.subtree_control": "cpu memory pids cpuset",
    });
    await cgroups()
      .hold("/sandboxd/7", limits)
      .catch(() => {});
    expect(content("cgroup.subtree_control")).toBe("+cpu +cpuset");
    expect(content("sandboxd/cgroup.subtree_control")).toBe("+cpu +memory +pids +cpuset");
    expect(content("sandboxd/7/cgroup.subtree_control")).toBe("cpu memory pids cpuset\n");
  });

  test("has its memory reclaimed before a limit below what is in use, and is spared that if it is in vain", async () => {
    const used: Files = { ...version2.loose, "sandboxd/7/memory.current": "50000000" };
    show(used);
    await expect(cgroups().hold("/sandboxd/7", { ...limits, memoryBytes: 30_000_000 })).rejects.toMatchObject(
      {
        reason: "LIMIT_UNENFORCEABLE",
        message:
          "cgroup /sandboxd/7 cannot have memoryBytes 30000000, the kernel holds Infinity: 20000000 bytes more are in use",
      },
    );
    expect(content("sandboxd/7/memory.reclaim")).toBe("20000000");
    expect(writtenOf(used)).toEqual({});
  });

  test("weighs what shares are worth", () => {
    expect([2, 1_024, 262_144].map(weightOf)).toEqual([1, 39, 10_000]);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 10_000 }), (weight) => weightOf(sharesOf(weight)) === weight),
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 262_144 }),
        (shares) => sharesOf(weightOf(shares)) <= shares && sharesOf(weightOf(shares) + 1) > shares,
      ),
    );
  });
});

describe("a parent cgroup of systemd", () => {
  // of no slice that a machine may have: what systemd was told of it is removed
  const [host, tenant] = ["parentcgrouptest.slice", "parentcgrouptest-7.slice"];

  /** Stands in for systemctl: notes its arguments, and has these files show what they are to. */
  function cgroupsWith(files: Files = {}) {
    const program = inRoot("systemctl");
    const effects = Object.entries(files).map(([path, text]) => `echo "${text}" >"${inRoot(path)}"`);
    writeFileSync(program, ["#!/bin/sh", `echo "$*" >>"${inRoot("calls")}"`, ...effects].join("\n"));
    chmodSync(program, 0o755);
    return createParentCgroups({ version: 2, cgroupRoot: inRoot("fs"), systemctl: program });
  }
  const calls = () => content("calls").trim().split("\n");
  const at = (files: Files): Files =>
    Object.fromEntries(
      Object.entries(files).map(([path, text]) => [path.replace("sandboxd/7", `fs/${host}/${tenant}`), text]),
    );

  test("is changed by properties, of which only those that differ are named", async () => {
    show(at({ ...version2.loose, "sandboxd/7/pids.max": "200" }));
    await cgroupsWith(at(version2.bounds)).hold(tenant, limits);
    expect(calls()).toEqual([
      `--no-ask-password set-property --runtime ${tenant} MemoryMax=67108864 MemorySwapMax=0 CPUQuota=150% CPUWeight=79`,
    ]);
  });

  test("is freed of limits", async () => {
    show(at({ ...version2.loose, ...version2.bounds }));
    await cgroupsWith(at(version2.loose)).hold(tenant, { cpuWeight: 2_598 });
    expect(calls()).toEqual([
      `--no-ask-password set-property --runtime ${tenant} MemorySwapMax=infinity MemoryMax=infinity CPUQuota= CPUWeight=100 TasksMax=infinity`,
    ]);
  });

  test("is not asked about while its files say what they should", async () => {
    show(at({ ...version2.loose, ...version2.bounds }));
    await createParentCgroups({ version: 2, cgroupRoot: inRoot("fs"), systemctl: "/nonexistent" }).hold(
      tenant,
      limits,
    );
  });

  test("that does not come to hold what systemd took has its properties set back", async () => {
    const files = at({ ...version2.loose, ...version2.bounds });
    show(files);
    const cgroups = cgroupsWith(at({ "sandboxd/7/cpu.weight": "39" }));
    await expect(cgroups.hold(tenant, { ...limits, cpuWeight: 1_024, pids: 5_000_000 })).rejects.toThrow(
      `cgroup ${tenant} cannot have pids 5000000, the kernel holds 200`,
    );
    const setBack = ["TasksMax=200", "CPUWeight=79"];
    expect(calls().slice(1)).toEqual(
      setBack.map((property) => `--no-ask-password set-property --runtime ${tenant} ${property}`),
    );
  });

  test("is started with its limits if there is none", async () => {
    const cgroups = cgroupsWith();
    await expect(cgroups.hold(tenant, { cpuWeight: 1_024, pids: 200 })).rejects.toMatchObject({
      reason: "LIMIT_UNENFORCEABLE",
    });
    expect(calls()).toEqual([
      `--no-ask-password set-property --runtime ${tenant} CPUWeight=39 TasksMax=200`,
      `--no-ask-password start ${tenant}`,
    ]);
  });

  test("is not stopped while anything is in it", async () => {
    show(at({ "sandboxd/7/cgroup.procs": "" }));
    mkdirSync(inRoot(`fs/${host}/${tenant}/docker-1.scope`));
    expect(await cgroupsWith().remove(tenant)).toBe(false);
    rmSync(inRoot(`fs/${host}/${tenant}/docker-1.scope`), { recursive: true });
    writeFileSync(inRoot(`fs/${host}/${tenant}/cgroup.procs`), "1\n");
    expect(await cgroupsWith().remove(tenant)).toBe(false);
  });

  test("is stopped when it is removed, but never what was started in it meanwhile", async () => {
    mkdirSync(inRoot(`fs/${host}/${tenant}`), { recursive: true });
    expect(await cgroupsWith().remove(tenant)).toBe(true);
    expect(calls()).toEqual([`--no-ask-password stop --job-mode=ignore-requirements ${tenant}`]);
  });
});

test("a group of version 1 is made again where only what counts its CPU has gone", async () => {
  const apart = (path: string) =>
    path.replace("cpu,cpuacct/", path.endsWith("cpuacct.usage") ? "cpuacct/" : "cpu/");
  const files = { ...version1.loose, ...version1.bounds };
  show(Object.fromEntries(Object.entries(files).map(([path, text]) => [apart(path), text])));
  rmSync(inRoot("cpuacct/sandboxd"), { recursive: true });
  await createParentCgroups({ version: 1, cgroupRoot: root })
    .hold(version1.parent, limits)
    .catch(() => {});
  expect(existsSync(inRoot("cpuacct/sandboxd/7"))).toBe(true);
});
