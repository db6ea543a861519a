// What a process has used, as the kernel counts it.

import { readdirSync, readFileSync } from "node:fs";
import { basename, dirname } from "node:path";

/**
 * Microseconds of CPU that all threads of these processes have used: the scheduler's own count, in nanoseconds, where
 * utime and stime of /proc/PID/stat come in steps of 10 ms. Threads that have ended are not in it; neither Node nor the engine ends any when it is quiet.
 */
export function cpuMicros(pids: readonly number[]): number {
  const threads = pids.flatMap((pid) =>
    readdirSync(`/proc/${pid}/task`).map((thread) => `${pid}/task/${thread}`),
  );
  let nanos = 0;
  for (const thread of threads) {
    try {
      const text = readFileSync(`/proc/${thread}/schedstat`, "utf8");
      nanos += Number(text.split(" ")[0]);
    } catch (error) {
      // ended between the two reads
      if (!isGone(error)) throw error;
    }
  }
  return nanos / 1_000;
}

/** Bytes of memory that a process holds (VmRSS). */
export function residentBytes(pid: number): number {
  const kibibytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  if (kibibytes === undefined) throw new Error(`/proc/${pid}/status tells no VmRSS`);
  return Number(kibibytes) * 1_024;
}

/** The engine's processes: dockerd, its containerd, and the shims of its containers. */
export function engineProcesses(socket: string): readonly number[] {
  const found: number[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const [program = "", ...args] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      const name = basename(program);
      // all of them name the folder of a private engine's sockets
      if (!args.some((argument) => argument.includes(`${dirname(socket)}/`))) continue;
      if (name === "dockerd" || name.startsWith("containerd")) found.push(Number(pid));
    } catch (error) {
      // ended between the two reads
      if (!isGone(error)) throw error;
    }
  }
  if (found.length === 0) throw new Error(`no process of the engine at ${socket}`);
  return found;
}

function isGone(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ESRCH";
}
