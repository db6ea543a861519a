// Parent cgroups: groups above containers, which bound what all within them use together. One is of all sandboxes, and in it
// there is one of each tenant. Only the kernel's files are believed: they are read before anything is changed, and after.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf, SandboxdError } from "../errors.ts";
import { type CgroupPaths, cgroupDirectories, parentPath } from "./cgroup-path.ts";
import { makeVersion1, makeVersion2, writeChanges } from "./group-files.ts";
import {
  type Change,
  changesBetween,
  freshLimits,
  type GroupLimits,
  type GroupState,
  isGone,
  readGroup,
  readLimits,
  stateOf,
  wantedLimits,
} from "./group-limits.ts";
import { createSlices } from "./systemd-slice.ts";

export type { GroupLimits, GroupState };

/**
 * A parent is named as the engine is told it: `/a/b` under its cgroupfs driver, `a-b.slice` under systemd's. Calls about one
 * parent, or about two of which one is in the other, must come one after the other.
 */
export interface ParentCgroups {
  /**
   * Sees to it that the group is there, with these limits. Changes only what is not as it should be. The group around it must
   * have been held before, and be wide enough: version 1 refuses a CPU quota above that of the group around, or below that of
   * one within. Memory below what is in use is refused by either version.
   *
   * @param options.keepWeight a group that is there keeps the weight that it has.
   * @throws SandboxdError LIMIT_UNENFORCEABLE if the kernel does not hold them then; a group that was there is as before.
   */
  hold(parent: string, limits: GroupLimits, options?: { readonly keepWeight?: boolean }): Promise<void>;
  /** Reads some small files of the kernel. Undefined if there is no such group, or if one of its controllers is absent. */
  read(parent: string): GroupState | undefined;
  /**
   * Removes the group from every hierarchy if nothing is in it, not even an empty group. Resolves to whether it is gone.
   * Nothing may be started in it meanwhile.
   */
  remove(parent: string): Promise<boolean>;
}

export interface ParentCgroupsOptions {
  readonly version: 1 | 2;
  /** Default `/sys/fs/cgroup`. */
  readonly cgroupRoot?: string;
  /** Default: systemd's own. */
  readonly systemctl?: string;
}

export function createParentCgroups({
  version,
  cgroupRoot = "/sys/fs/cgroup",
  systemctl = "systemctl",
}: ParentCgroupsOptions): ParentCgroups {
  const slices = createSlices(version, systemctl);
  const pathsOf = (parent: string) =>
    cgroupDirectories(parentPath(assertName(parent)), { version, cgroupRoot });

  async function make(parent: string, changes: readonly Change[]): Promise<void> {
    if (isSlice(parent)) await slices.start(parent, changes);
    else if (version === 1) await makeVersion1(pathsOf(parent));
    else await makeVersion2(parent, cgroupRoot);
  }

  async function change(parent: string, changes: readonly Change[]): Promise<void> {
    const paths = pathsOf(parent);
    await (isSlice(parent) ? slices.change(parent, paths, changes) : writeChanges(paths, changes));
  }

  /** Also what the kernel did not take: systemd would try it again. Why that had to be undone tells more than what cannot. */
  async function undo(parent: string, changes: readonly Change[]): Promise<void> {
    for (const { limit, from, to } of changes.toReversed()) {
      const back = { limit, from: to, to: from };
      if ((await reclaim(pathsOf(parent), back)) === 0) await change(parent, [back]).catch(() => {});
    }
  }

  /** In every hierarchy: the engine makes a group in more of them than are used here. */
  function directoriesOf(parent: string): readonly string[] {
    const hierarchies = version === 1 ? readdirSync(cgroupRoot) : [""];
    const path = parentPath(assertName(parent));
    return hierarchies
      .map((name) => join(cgroupRoot, name, path))
      .filter((directory) => existsSync(directory));
  }

  return {
    async hold(parent, limits, { keepWeight = false } = {}) {
      const paths = pathsOf(parent);
      // what a step says of itself serves as the reason, when the kernel then shows that it did not do
      const reasons: unknown[] = [];
      const attempt = (step: Promise<void>) => step.catch((error: unknown) => void reasons.push(error));

      let before = readLimits(paths);
      const asked = wantedLimits(limits, version);
      const wanted = before !== undefined && keepWeight ? { ...asked, cpuWeight: before.cpuWeight } : asked;
      if (before === undefined) {
        await attempt(make(parent, changesBetween(freshLimits(version), wanted)));
        before = readLimits(paths);
      }
      if (before === undefined) throw absent(parent, reasons);
      const changes = changesBetween(before, wanted);
      if (changes.length === 0) return;
      for (const one of changes) {
        const excess = await reclaim(paths, one);
        if (excess > 0) throw refused(parent, one, [`${excess} bytes more are in use`]);
      }
      await attempt(change(parent, changes));
      const after = readLimits(paths);
      if (after === undefined) throw absent(parent, reasons);
      const [missing] = changesBetween(after, wanted);
      if (missing === undefined) return;
      await undo(parent, changes);
      throw refused(parent, missing, reasons);
    },

    read(parent) {
      const reading = readGroup(pathsOf(parent));
      return reading && stateOf(reading, version);
    },

    async remove(parent) {
      const found = directoriesOf(parent);
      if (found.length > 0 && isSlice(parent)) {
        // systemd stops what is in a slice together with it
        if (found.some(isUsed)) return false;
        await slices.stop(parent);
      }
      for (const directory of directoriesOf(parent)) await removeIfEmpty(directory);
      return directoriesOf(parent).length === 0;
    },
  };
}

const isSlice = (parent: string): boolean => parent.endsWith(".slice");

/** A name becomes a path, and an argument of a program. The root itself is never a parent: it bounds the whole host. */
function assertName(parent: string): string {
  if (/^(\/[a-z0-9_-]+)+$|^[a-z0-9_]+(-[a-z0-9_]+)*\.slice$/.test(parent)) return parent;
  throw new Error(`${parent} is not the name of a parent cgroup`);
}

/**
 * Before a limit of memory below what is in use, has the kernel reclaim what can be. Resolves to the bytes that are still too
 * many. Version 1 does so by itself, and refuses the limit where it fails; version 2 takes it, and kills until it is kept.
 */
async function reclaim(paths: CgroupPaths, { limit, to }: Change): Promise<number> {
  if (paths.version === 1 || limit !== "memoryBytes") return 0;
  const excess = () => Math.max(0, (readGroup(paths)?.memoryBytes ?? 0) - to);
  // since Linux 5.19; what counts is what is in use then
  if (excess() > 0) await writeFile(join(paths.memory, "memory.reclaim"), String(excess())).catch(() => {});
  return excess();
}

/** Whether there is a process in it, or a group. */
function isUsed(directory: string): boolean {
  try {
    const hasGroup = readdirSync(directory, { withFileTypes: true }).some((entry) => entry.isDirectory());
    return hasGroup || readFileSync(join(directory, "cgroup.procs"), "latin1") !== "";
  } catch (error) {
    if (isGone(error)) return false;
    throw error;
  }
}

async function removeIfEmpty(directory: string): Promise<void> {
  try {
    await rmdir(directory);
  } catch (error) {
    const isBusy = error instanceof Error && "code" in error && error.code === "EBUSY";
    if (!isBusy && !isGone(error)) throw error;
  }
}

function absent(parent: string, [reason]: readonly unknown[]): SandboxdError {
  const why =
    reason === undefined ? "one of its controllers is absent, or it was removed" : messageOf(reason);
  return new SandboxdError("LIMIT_UNENFORCEABLE", `cgroup ${parent} cannot be made: ${why}`, {
    hint: controllersHint,
    cause: reason,
  });
}

function refused(parent: string, { limit, from, to }: Change, reasons: readonly unknown[]): SandboxdError {
  const why = reasons.map((reason) => `: ${messageOf(reason)}`).join("");
  const message = `cgroup ${parent} cannot have ${limit} ${to}, the kernel holds ${from}${why}`;
  return new SandboxdError("LIMIT_UNENFORCEABLE", message, { hint: hints[limit], cause: reasons[0] });
}

const controllersHint =
  "the host's cgroup controllers cpu, memory and pids must be enabled, and writable to the daemon";

const memoryHint =
  "a limit cannot go below what is in use: end some of what runs in the group, or allow it more";

const hints: Readonly<Record<Change["limit"], string>> = {
  memoryBytes: memoryHint,
  swapBytes: memoryHint,
  cpuMillis:
    "it is 10 at least; on cgroup v1, also as much as each group within has, and no more than the group around has",
  cpuWeight: controllersHint,
  pids: "it is 4194304 at most",
};
