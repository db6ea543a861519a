// Whether a container's main command has come to run. The engine says "started" once its own init process runs, which then
// starts the command: one that cannot be executed ends a moment later.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { CgroupPaths } from "./cgroup-path.ts";

/** As a rule it has happened before the engine answers; on a busy machine it takes some milliseconds. */
const longestWaitMs = 50;
const lookEveryMs = 1;

/** Waits until a process of the container runs something else than the init process does. False if none came to. */
export async function hasExecuted({ pids: directory }: CgroupPaths): Promise<boolean> {
  const deadline = performance.now() + longestWaitMs;
  for (;;) {
    const programs = programsIn(directory);
    if (programs.length === 0) return false;
    if (new Set(programs).size > 1) return true;
    if (performance.now() >= deadline) return false;
    await sleep(lookEveryMs);
  }
}

/** The name of what each process executes, which anyone may read; none once it has ended. */
function programsIn(directory: string): readonly string[] {
  const processes = unlessGone(() => readFileSync(join(directory, "cgroup.procs"), "latin1")) ?? "";
  return processes
    .split("\n")
    .filter((pid) => pid !== "")
    .flatMap((pid) => unlessGone(() => readFileSync(`/proc/${pid}/comm`, "latin1")) ?? []);
}

/** A process or cgroup that has ended is no failure: ENOENT, ESRCH for what goes while it is read, ENODEV for a cgroup. */
function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" || code === "ESRCH" || code === "ENODEV") return undefined;
    throw error;
  }
}
