// Writes cgroup directories with contents as a kernel shows them, so that readers can be tried without one.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { CgroupLocation } from "../../../src/monitor/sample.ts";

export interface CgroupTree {
  readonly cgroup: CgroupLocation;
  /** Replaces the contents of one file, by its path in the tree. */
  write(path: string, contents: string): void;
  remove(path?: string): void;
  [Symbol.dispose](): void;
}

/** A v1 cgroup in the middle of its work. Files are at "<controller>/<file>". */
export function v1Tree(): CgroupTree {
  const root = mkdtempSync(join(tmpdir(), "cgroup-v1-"));
  return tree(root, v1Files, {
    version: 1,
    paths: {
      cpu: join(root, "cpu"),
      cpuacct: join(root, "cpuacct"),
      memory: join(root, "memory"),
      pids: join(root, "pids"),
      blkio: join(root, "blkio"),
    },
  });
}

/** A v2 cgroup in the middle of its work. */
export function v2Tree(): CgroupTree {
  const root = mkdtempSync(join(tmpdir(), "cgroup-v2-"));
  return tree(root, v2Files, { version: 2, path: root });
}

/** How many descriptors this process has open. */
export function openDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

/** A directory with these files in it. */
function tree(root: string, files: Readonly<Record<string, string>>, cgroup: CgroupLocation): CgroupTree {
  const write = (path: string, contents: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), contents);
  };
  for (const [path, contents] of Object.entries(files)) {
    write(path, contents);
  }
  const remove = (path = ""): void => rmSync(join(root, path), { recursive: true, force: true });
  return { cgroup, write, remove, [Symbol.dispose]: remove };
}

export const v1Files: Readonly<Record<string, string>> = {
  "cpuacct/cpuacct.usage": "1234567890\n",
  "cpuacct/cpuacct.stat": "user 98\nsystem 25\n",
  "cpu/cpu.stat": "nr_periods 40\nnr_throttled 30\nthrottled_time 2500000999\nnr_bursts 0\nburst_time 0\n",
  "memory/memory.usage_in_bytes": "52428800\n",
  "memory/memory.limit_in_bytes": "67108864\n",
  "memory/memory.failcnt": "17\n",
  "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
  "memory/memory.stat": [
    "cache 1",
    "rss 2",
    "rss_huge 0",
    "inactive_file 3",
    "hierarchical_memory_limit 67108864",
    "total_cache 20971520",
    "total_rss 31457280",
    "total_rss_huge 0",
    "total_pgfault 123456",
    "total_inactive_anon 31457280",
    "total_inactive_file 10485760",
    "total_active_file 4",
    "",
  ].join("\n"),
  "pids/pids.current": "7\n",
  "pids/pids.max": "64\n",
  "pids/pids.events": "max 5\n",
  "blkio/blkio.throttle.io_service_bytes_recursive": [
    "254:0 Read 4096",
    "254:0 Write 8192",
    "254:0 Sync 12288",
    "254:0 Async 0",
    "254:0 Discard 0",
    "254:0 Total 12288",
    "7:3 Read 100",
    "7:3 Write 200",
    "7:3 Total 300",
    "Total 12588",
    "",
  ].join("\n"),
  "blkio/blkio.throttle.io_serviced_recursive": "254:0 Read 1\n254:0 Write 2\n254:0 Total 3\nTotal 3\n",
};

export const v2Files: Readonly<Record<string, string>> = {
  "cpu.stat": [
    "usage_usec 1234567",
    "user_usec 1000000",
    "system_usec 234567",
    "core_sched.force_idle_usec 0",
    "nr_periods 40",
    "nr_throttled 30",
    "throttled_usec 2500000",
    "nr_bursts 0",
    "burst_usec 0",
    "",
  ].join("\n"),
  "memory.current": "52428800\n",
  "memory.max": "67108864\n",
  "memory.events": "low 0\nhigh 0\nmax 17\noom 3\noom_kill 2\noom_group_kill 0\n",
  "memory.stat": [
    "anon 31457280",
    "file 20971520",
    "kernel 1048576",
    "file_mapped 4096",
    "inactive_anon 31457280",
    "active_anon 0",
    "inactive_file 10485760",
    "active_file 4096",
    "workingset_refault_anon 0",
    "",
  ].join("\n"),
  "pids.current": "7\n",
  "pids.max": "64\n",
  "pids.events": "max 5\n",
  "io.stat": [
    "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=77 dios=7",
    "7:3 rbytes=100 wbytes=200 rios=3 wios=4 dbytes=0 dios=0",
    "",
  ].join("\n"),
};
