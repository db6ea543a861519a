// Makes and changes parent cgroups by the kernel's files, where nothing else manages them (the engine's cgroupfs driver).
// Writes are left to other threads: the kernel may reclaim memory for long before it takes a lower limit.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { CgroupPaths } from "./cgroup-path.ts";
import type { Change } from "./group-limits.ts";

/** Makes the group in each hierarchy whose limits or figures are used; in the others, the engine does. */
export async function makeVersion1(paths: CgroupPaths): Promise<void> {
  for (const directory of [paths.memory, paths.cpu, paths.cpuacct, paths.pids]) {
    await mkdir(directory, { recursive: true });
  }
  // before Linux 5.11 a limit did not bound the groups within unless told so, which is possible while there are none
  const hierarchical = join(paths.memory, "memory.use_hierarchy");
  const text = await readFile(hierarchical, "utf8");
  if (text.trim() === "0") await writeFile(hierarchical, "1");
}

/**
 * Makes the group and those around it, each with every controller that containers within it need: version 2 hands a
 * controller down from one level to the next.
 */
export async function makeVersion2(path: string, cgroupRoot: string): Promise<void> {
  let directory = cgroupRoot;
  await enableControllers(directory);
  for (const name of path.split("/").filter((part) => part !== "")) {
    directory = join(directory, name);
    await mkdir(directory, { recursive: true });
    await enableControllers(directory);
  }
}

/** Writes the changes in their order. Ends with the first one that the kernel refuses. */
export async function writeChanges(paths: CgroupPaths, changes: readonly Change[]): Promise<void> {
  for (const change of changes) {
    const [file, text] = paths.version === 1 ? version1File(paths, change) : version2File(paths, change);
    await writeFile(file, text);
  }
}

/** The last two bound nothing here; the engine wants them for what it bounds below. */
const controllers = ["cpu", "memory", "pids", "io", "cpuset"];

/** The kernel's own default, in either version. */
const cpuPeriodMicros = 100_000;

async function enableControllers(directory: string): Promise<void> {
  const words = async (file: string) =>
    new Set((await readFile(join(directory, file), "utf8")).trim().split(" "));
  const [available, enabled] = [await words("cgroup.controllers"), await words("cgroup.subtree_control")];
  const missing = controllers.filter((name) => available.has(name) && !enabled.has(name));
  if (missing.length === 0) return;
  await writeFile(join(directory, "cgroup.subtree_control"), missing.map((name) => `+${name}`).join(" "));
}

function version1File(paths: CgroupPaths, { limit, to }: Change): readonly [file: string, text: string] {
  switch (limit) {
    case "memoryBytes":
      return [join(paths.memory, "memory.limit_in_bytes"), orUnbounded(to, "-1")];
    case "swapBytes":
      return [join(paths.memory, "memory.memsw.limit_in_bytes"), orUnbounded(to, "-1")];
    case "cpuMillis":
      return [join(paths.cpu, "cpu.cfs_quota_us"), orUnbounded(quotaMicros(to), "-1")];
    case "cpuWeight":
      return [join(paths.cpu, "cpu.shares"), String(to)];
    case "pids":
      return [join(paths.pids, "pids.max"), orUnbounded(to, "max")];
  }
}

function version2File(paths: CgroupPaths, { limit, to }: Change): readonly [file: string, text: string] {
  switch (limit) {
    case "memoryBytes":
      return [join(paths.memory, "memory.max"), orUnbounded(to, "max")];
    case "swapBytes":
      return [join(paths.memory, "memory.swap.max"), orUnbounded(to, "max")];
    case "cpuMillis":
      return [join(paths.cpu, "cpu.max"), `${orUnbounded(quotaMicros(to), "max")} ${cpuPeriodMicros}`];
    case "cpuWeight":
      return [join(paths.cpu, "cpu.weight"), String(to)];
    case "pids":
      return [join(paths.pids, "pids.max"), orUnbounded(to, "max")];
  }
}

const quotaMicros = (cpuMillis: number): number => (cpuMillis * cpuPeriodMicros) / 1_000;

const orUnbounded = (value: number, word: string): string =>
  value === Number.POSITIVE_INFINITY ? word : String(value);
