// Whether a process has ended, or is ending: what is read of it then says nothing about its container.

import { readFileSync } from "node:fs";
import { join } from "node:path";

/** From include/linux/sched.h: set first when a process ends. On cgroup v1 it is in the root cgroup from then on. */
const pfExiting = 0x4;

/** From the end of a process to the engine's knowing of it, as a rule. */
export const engineLagMs = 50;

/** Also of one that its parent has not yet waited for. */
export function hasEnded(pid: number, procRoot = "/proc"): boolean {
  let stat: string;
  try {
    stat = readFileSync(join(procRoot, String(pid), "stat"), "latin1");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" || code === "ESRCH") return true;
    throw error;
  }
  // proc_pid_stat(5): the name, which may contain anything, ends with the last parenthesis; flags are the ninth field
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[6]) & pfExiting) !== 0;
}
