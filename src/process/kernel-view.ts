// What the kernel of the host tells of the processes of a sandbox, whoever started them. Names and arguments are whatever a program
// made of them.

import { closeSync, constants, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { OtherProcess } from "./record.ts";

export interface KernelPlace {
  /** The container's cgroup that counts processes. */
  readonly directory: string;
  /** A process counts only if it says that it is in this container's cgroup. */
  readonly containerId: string;
}

const mostProcesses = 4_096;
const mostCommandBytes = 4_096;
/** Of all commands together; names alone are told beyond. */
const mostAllBytes = 1024 * 1024;
/** Others get a turn after so long. */
const sliceMs = 8;
/** Of the times in /proc, on every architecture that Node runs on (sysconf(_SC_CLK_TCK)). */
const ticksPerSecond = 100;
const pageBytes = 4_096;

/** Whether any process is left in the sandbox; undefined if that can't be seen. */
export function hasProcesses({ directory }: KernelPlace): boolean | undefined {
  try {
    return readFileSync(join(directory, "cgroup.procs"), "latin1") !== "";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? false : undefined;
  }
}

/** In order of pid. What ended meanwhile is left out. */
export async function processesIn(place: KernelPlace): Promise<readonly OtherProcess[]> {
  const list = orUndefined(() => readFileSync(join(place.directory, "cgroup.procs"), "latin1")) ?? "";
  const bootedAtMs = bootTimeMs();
  const found: Seen[] = [];
  let bytes = 0;
  let until = performance.now() + sliceMs;
  for (const pid of list.split("\n").filter(Boolean).slice(0, mostProcesses)) {
    const seen = orUndefined(() => look(pid, place.containerId, bootedAtMs, bytes < mostAllBytes));
    if (seen !== undefined) {
      bytes += seen.command.reduce((sum, word) => sum + word.length, 0);
      found.push(seen);
    }
    if (performance.now() < until) continue;
    await new Promise((resolve) => setImmediate(resolve));
    until = performance.now() + sliceMs;
  }
  const insideOf = new Map(found.map(({ hostPid, pid }) => [hostPid, pid]));
  return found
    .map(({ hostPid: _, hostParent, ...process }) => ({
      ...process,
      usage: { ...process.usage, parentPid: insideOf.get(hostParent) ?? 0 },
    }))
    .sort((a, b) => a.pid - b.pid);
}

interface Seen extends OtherProcess {
  readonly hostPid: number;
  readonly hostParent: number;
}

/** Through one descriptor, so that all that is read is of one process; its number may be another's meanwhile. */
function look(
  hostPid: string,
  containerId: string,
  bootedAtMs: number,
  isCommandWanted: boolean,
): Seen | undefined {
  const descriptor = openSync(`/proc/${hostPid}`, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const read = (file: string) => readFileSync(`/proc/self/fd/${descriptor}/${file}`);
    if (!read("cgroup").toString("latin1").includes(containerId)) return undefined;
    const stat = statOf(read("stat").toString("utf8"));
    const numbers =
      /^NSpid:\s+(.*)$/m.exec(read("status").toString("latin1"))?.[1]?.trim().split(/\s+/) ?? [];
    // one that is on its way in is not in the sandbox's own namespace yet
    if (stat === undefined || numbers.length < 2) return undefined;
    const command = isCommandWanted ? commandOf(read("cmdline")) : [];
    return {
      hostPid: Number(hostPid),
      hostParent: stat.parent,
      pid: Number(numbers.at(-1)),
      command: command.length > 0 ? command : [`[${stat.name}]`],
      startedAtMs: bootedAtMs + (stat.startTicks * 1_000) / ticksPerSecond,
      usage: {
        parentPid: 0,
        cpuMs: (stat.cpuTicks * 1_000) / ticksPerSecond,
        residentBytes: stat.residentPages * pageBytes,
      },
    };
  } finally {
    closeSync(descriptor);
  }
}

/** Words of UTF-8; what is none is replaced. */
function commandOf(bytes: Buffer): readonly string[] {
  const text = bytes.subarray(0, mostCommandBytes).toString("utf8");
  return text === "" ? [] : text.replace(/\0+$/, "").split("\0");
}

/** See proc(5). The name may hold anything, so fields are counted from its end. */
function statOf(text: string) {
  const end = text.lastIndexOf(")");
  const fields = text.slice(end + 2).split(" ");
  const numberAt = (field: number) => Number(fields[field - 3]);
  const [parent, cpuTicks, startTicks, residentPages] = [
    numberAt(4),
    numberAt(14) + numberAt(15),
    numberAt(22),
    numberAt(24),
  ];
  if (![parent, cpuTicks, startTicks, residentPages].every(Number.isSafeInteger)) return undefined;
  return { name: text.slice(text.indexOf("(") + 1, end), parent, cpuTicks, startTicks, residentPages };
}

function bootTimeMs(): number {
  const seconds = /^btime (\d+)$/m.exec(readFileSync("/proc/stat", "latin1"))?.[1];
  return Number(seconds ?? 0) * 1_000;
}

/** A process that ends while it is looked at is no failure. */
function orUndefined<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
