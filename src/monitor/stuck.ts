// What is seen of processes that do not end although they were killed.

import { readFileSync } from "node:fs";
import { join } from "node:path";

const mostProcesses = 20;
const mostBytes = 4_096;

/**
 * One line a process of the cgroup: pid, state, name, and the kernel function it waits in (proc(5)); undefined if none is
 * left. State D is the one that no signal ends.
 */
export function stuckProcesses({ pids }: { readonly pids: string }): string | undefined {
  const found = (read(join(pids, "cgroup.procs")) ?? "").split("\n").filter((pid) => pid !== "");
  const lines = found.slice(0, mostProcesses).flatMap((pid) => {
    const stat = read(`/proc/${pid}/stat`);
    if (stat === undefined) return [];
    const [, name = "", state = "?"] = /\((.*)\) (\S)/s.exec(stat) ?? [];
    const waitsIn = read(`/proc/${pid}/wchan`)?.trim();
    const where = waitsIn === undefined || waitsIn === "0" || waitsIn === "" ? "" : ` in ${waitsIn}`;
    return [`pid ${pid} (${name.replace(/\p{Cc}/gu, "?")}) ${state}${where}`];
  });
  if (lines.length === 0) return undefined;
  const more = found.length > mostProcesses ? [`and ${found.length - mostProcesses} more`] : [];
  return [...lines, ...more].join("; ").slice(0, mostBytes);
}

/** Undefined for what is gone, or may not be read on this kernel. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // a process that ended meanwhile is no evidence
    return undefined;
  }
}
