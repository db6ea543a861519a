// A cgroup of a test's own, apart from those of sandboxes: for a daemon that is to run short of something, or for processes
// that are to be frozen.

import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { engineMark, removeCgroups } from "../../tools/lib/leftovers.mjs";

const root = "/sys/fs/cgroup";

/** Whether the machine has cgroup v2, and no other. */
export const isUnified = existsSync(join(root, "cgroup.controllers"));

export interface Cgroup {
  /** Begins a program inside, see `DaemonOptions.launcher`. */
  readonly launcher: readonly string[];
  read(file: string): string;
  write(file: string, value: string | number): void;
  /** Removes it. Nothing may be in it any more, or be about to stay. */
  close(): Promise<void>;
}

/** Makes one. Close it in every case. */
export function makeCgroup(controller: "freezer" | "memory" | "pids"): Cgroup {
  const token = randomBytes(4).toString("hex");
  // below the runner's name, so that it is removed even if this test is killed
  const name = `${process.env[engineMark] ?? `sandboxd-test-${process.pid}`}-${token}-${controller}`;
  const directory = join(root, ...(isUnified ? [] : [controller]), name);
  mkdirSync(directory);
  return {
    launcher: ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', directory],
    read: (file) => readFileSync(join(directory, file), "latin1").trim(),
    write: (file, value) => writeFileSync(join(directory, file), String(value)),
    close: () => removeCgroups(name),
  };
}
