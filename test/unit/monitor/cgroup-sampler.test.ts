import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { openSandboxSampler, type SandboxSampler } from "../../../src/monitor/cgroup-sampler.ts";
import { idleUsec, type SandboxSample } from "../../../src/monitor/sample.ts";
import { type CgroupTree, openDescriptors, v1Files, v1Tree, v2Files, v2Tree } from "./cgroup-tree.ts";

const clock = { monotonicMs: () => 1000, wallMs: () => 1_700_000_000_000 };

function open({ cgroup }: CgroupTree): SandboxSampler & Disposable {
  const sampler = openSandboxSampler({ cgroup, hasNetwork: false }, clock);
  if (sampler === undefined) {
    throw new Error("the tree is not there");
  }
  return { ...sampler, [Symbol.dispose]: sampler.close };
}

function sampleOf(tree: CgroupTree): SandboxSample | undefined {
  using sampler = open(tree);
  return sampler.sample();
}

const common = {
  monotonicMs: 1000,
  wallMs: 1_700_000_000_000,
  pids: { current: 7, limit: 64, refusedForks: 5 },
};

const memory = {
  usageBytes: 52428800,
  workingSetBytes: 41943040,
  rssBytes: 31457280,
  cacheBytes: 20971520,
  limitBytes: 67108864,
  oomKills: 2,
  limitHits: 17,
};

describe("a sampler on cgroup v1", () => {
  it("reads every figure from the file that has it", () => {
    using tree = v1Tree();
    expect(sampleOf(tree)).toEqual({
      ...common,
      cpu: {
        usageUsec: 1234567,
        userUsec: 980_000,
        systemUsec: 250_000,
        periods: 40,
        throttledPeriods: 30,
        throttledUsec: 2_500_000,
      },
      memory: { ...memory, oomEvents: 2 },
      blockIo: { readBytes: 4196, writeBytes: 8392, readOperations: 1, writeOperations: 2 },
    });
  });

  it("reads slow figures at once when something was killed, for it may be the last sample", () => {
    using tree = v1Tree();
    using sampler = open(tree);
    sampler.sample();
    tree.write("memory/memory.failcnt", "99\n");
    expect(sampler.sample()?.memory.limitHits).toBe(17);
    tree.write("cpuacct/cpuacct.usage", "1234967890\n");
    tree.write("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
    expect(sampler.sample()?.memory).toMatchObject({ oomKills: 3, limitHits: 99 });
  });

  it("leaves block I/O out where the host has no such controller", () => {
    using tree = v1Tree();
    tree.remove("blkio");
    expect(sampleOf(tree)?.blockIo).toBeUndefined();
  });
});

describe("a sampler on cgroup v2", () => {
  it("reads every figure from the file that has it", () => {
    using tree = v2Tree();
    expect(sampleOf(tree)).toEqual({
      ...common,
      cpu: {
        usageUsec: 1234567,
        userUsec: 1_000_000,
        systemUsec: 234_567,
        periods: 40,
        throttledPeriods: 30,
        throttledUsec: 2_500_000,
      },
      memory: { ...memory, oomEvents: 3 },
      blockIo: { readBytes: 4196, writeBytes: 8392, readOperations: 4, writeOperations: 6 },
    });
  });

  it("counts no block I/O while the kernel's file is still empty", () => {
    using tree = v2Tree();
    tree.write("io.stat", "");
    expect(sampleOf(tree)?.blockIo).toEqual({
      readBytes: 0,
      writeBytes: 0,
      readOperations: 0,
      writeOperations: 0,
    });
  });
});

const versions = [
  { version: 1, make: v1Tree, files: v1Files, limits: ["memory/memory.limit_in_bytes", "pids/pids.max"] },
  { version: 2, make: v2Tree, files: v2Files, limits: ["memory.max", "pids.max"] },
] as const;

describe.each(versions)("a sampler on either cgroup version ($version)", ({ make, files, limits }) => {
  it("sees what changes without opening anything again", () => {
    using tree = make();
    using sampler = open(tree);
    const descriptors = openDescriptors();
    expect(sampler.sample()?.pids.limit).toBe(64);
    tree.write(limits[1], "128\n");
    expect(sampler.sample({ everything: true })?.pids.limit).toBe(128);
    expect(openDescriptors()).toBe(descriptors);
  });

  it("reads slow figures in every fifth sample", () => {
    using tree = make();
    using sampler = open(tree);
    const limitsSeen = Array.from({ length: 11 }, (_, index) => {
      tree.write(limits[0], `${index}\n`);
      return sampler.sample()?.memory.limitBytes;
    });
    expect(limitsSeen).toEqual([0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 10]);
  });

  it("is as it was but for its CPU while it uses next to none, for five samples at most unless all is asked for", () => {
    using tree = make();
    using sampler = open(tree);
    const pids = "pids/pids.current" in files ? "pids/pids.current" : "pids.current";
    const seen = (count: number, asked?: { everything: boolean }): number | undefined => {
      tree.write(pids, `${count}\n`);
      return sampler.sample(asked)?.pids.current;
    };
    expect([8, 9].map((count) => seen(count))).toEqual([8, 8]);
    const usage = Object.keys(files).find((path) => /cpuacct\.usage|^cpu\.stat/.test(path)) ?? "";
    const perUsec = usage.startsWith("cpuacct") ? 1_000 : 1;
    const used = (usec: number): void =>
      tree.write(
        usage,
        (files[usage] ?? "").replace(/\d+/, (from) => String(Number(from) + usec * perUsec)),
      );
    used(idleUsec - 1);
    tree.write(pids, "11\n");
    expect(sampler.sample()).toMatchObject({
      pids: { current: 8 },
      cpu: { usageUsec: 1_234_567 + idleUsec - 1 },
    });
    used(idleUsec);
    expect(sampler.sample({ everything: false })?.pids.current).toBe(11);
    expect(seen(12, { everything: true })).toBe(12);
    expect([13, 14, 15].map((count) => seen(count))).toEqual([13, 13, 13]);
  });

  it("has no limit to tell where the kernel holds none", () => {
    using tree = make();
    for (const limit of limits) {
      tree.write(limit, "max\n");
    }
    const sample = sampleOf(tree);
    expect(sample?.memory.limitBytes).toBeUndefined();
    expect(sample?.pids.limit).toBeUndefined();
  });

  it("never tells a working set below zero when reclaim runs between two reads", () => {
    using tree = make();
    const usage = Object.keys(files).find((path) => /usage_in_bytes|memory\.current/.test(path)) ?? "";
    tree.write(usage, "4096\n");
    expect(sampleOf(tree)?.memory.workingSetBytes).toBe(0);
  });

  it("isn't made for a cgroup that is gone, and leaves nothing open", () => {
    using tree = make();
    tree.remove();
    const descriptors = openDescriptors();
    expect(openSandboxSampler({ cgroup: tree.cgroup, hasNetwork: false }, clock)).toBeUndefined();
    expect(openDescriptors()).toBe(descriptors);
  });

  it("isn't made when a controller is missing, names the file, and leaves nothing open", () => {
    using tree = make();
    tree.remove(limits[1]);
    const descriptors = openDescriptors();
    expect(() => openSandboxSampler({ cgroup: tree.cgroup, hasNetwork: false }, clock)).toThrow("pids.max");
    expect(openDescriptors()).toBe(descriptors);
  });

  it("ends when a file that must have content is empty, wherever in the sample that happens", () => {
    for (const path of Object.keys(files).filter((name) => !/blkio|io\.stat/.test(name))) {
      using tree = make();
      const descriptors = openDescriptors();
      using sampler = open(tree);
      expect(sampler.sample()).toBeDefined();
      tree.write(path, "");
      expect(sampler.sample({ everything: true }), path).toBeUndefined();
      expect(openDescriptors(), path).toBe(descriptors);
      tree.write(path, files[path] ?? "");
      expect(sampler.sample(), path).toBeUndefined();
    }
  });

  it("yields finite integers of 0 or more whatever the files hold", () => {
    using tree = make();
    using sampler = open(tree);
    const contents = fc.oneof(fc.string({ minLength: 1 }), fc.stringMatching(/^[a-z0-9 =_:\n]{1,80}$/));
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(files)), contents, (path, text) => {
        tree.write(path, text);
        const sample = sampler.sample({ everything: true });
        expect(sample).toBeDefined();
        for (const group of [sample?.cpu, sample?.memory, sample?.pids, sample?.blockIo]) {
          for (const value of Object.values(group ?? {}).filter((figure) => figure !== undefined)) {
            expect(Number.isInteger(value) && value >= 0, `${path}: ${value}`).toBe(true);
          }
        }
      }),
    );
  });
});

describe("network figures", () => {
  it("are left out for a process that is not in the sandbox's cgroup, and its file is let go on close", () => {
    using tree = v2Tree();
    const descriptors = openDescriptors();
    const sampler = openSandboxSampler({ cgroup: tree.cgroup, pid: process.pid, hasNetwork: true }, clock);
    expect(sampler?.sample()?.network).toBeUndefined();
    sampler?.close();
    expect(openDescriptors()).toBe(descriptors);
  });
});
