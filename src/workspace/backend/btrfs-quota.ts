// The quota groups of a btrfs file system: one for each subvolume, which bounds what it refers to. Limits and figures are read from
// the kernel's own files, so that it costs nothing to ask; programs are only run to change something.

import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Waiting } from "../../engine/runtime.ts";
import { codeOf, isGone, unenforceable } from "./failing.ts";
import type { RunTool } from "./tool.ts";

export interface BtrfsQuota {
  /** Rejects with LIMIT_UNENFORCEABLE if the kernel does not count, or has lost count: then no limit of it holds. */
  assertCounting(waiting: Waiting): Promise<void>;
  /** Makes a subvolume, and resolves to its id. */
  create(path: string, waiting: Waiting): Promise<number>;
  /** Has one not refer to more than that. Rejects with LIMIT_UNENFORCEABLE if the kernel does not show it then. */
  limit(id: number, path: string, bytes: number, waiting: Waiting): Promise<void>;
  /** What a subvolume refers to, as of the file system's last commit: it makes one every 30 s. */
  referenced(id: number): Promise<number>;
  /** Makes a commit. */
  commit(waiting: Waiting): Promise<void>;
  idOf(path: string, waiting: Waiting): Promise<number>;
  /** Removes the groups of those that are gone, and of all that have no subvolume any more when it was first opened. */
  forget(ids: readonly number[]): Promise<void>;
}

/** Above the highest level that a tree has: however large what is removed, it is counted, and no group loses count. */
const countAll = "8";
const rescanMs = 10 * 60_000;

/** Turns the counting on if it is off. */
export async function openBtrfsQuota(directory: string, run: RunTool): Promise<BtrfsQuota> {
  const shown = await run("btrfs", ["filesystem", "show", "--raw", directory]);
  const uuid = /uuid: ([0-9a-f-]{36})/.exec(shown)?.[1];
  if (uuid === undefined)
    throw new Error(`btrfs does not say which file system ${directory} is on: ${shown}`);
  const groups = `/sys/fs/btrfs/${uuid}/qgroups`;
  /** Whose groups could not be removed yet: the kernel still takes apart what was in them. */
  const stale = new Set<number>();
  let making: Promise<unknown> = Promise.resolve();

  const read = async (file: string) => (await readFile(join(groups, file), "utf8")).trim();

  async function readIfThere(file: string): Promise<string | undefined> {
    try {
      return await read(file);
    } catch (error) {
      // ENODEV: it went between the opening and the reading
      if (isGone(error) || codeOf(error) === "ENODEV") return undefined;
      throw error;
    }
  }

  async function idOf(path: string, waiting: Waiting): Promise<number> {
    const id = Number(await run("btrfs", ["inspect-internal", "rootid", path], waiting));
    // those below are the file system's own
    if (Number.isSafeInteger(id) && id >= 256) return id;
    throw new Error(`btrfs does not say which subvolume ${path} is`);
  }

  /** All subvolumes that have a group. */
  async function idsThere(): Promise<readonly number[]> {
    const names = await readdir(groups);
    return names.flatMap((name) => (name.startsWith("0_") ? [Number(name.slice(2))] : []));
  }

  async function create(path: string, waiting: Waiting): Promise<number> {
    const before = new Set(await idsThere());
    await run("btrfs", ["subvolume", "create", path], waiting);
    const fresh = (await idsThere()).filter((id) => !before.has(id));
    // somebody else may have made one meanwhile
    const [id, other] = fresh;
    return id !== undefined && other === undefined ? id : idOf(path, waiting);
  }

  async function sweep(): Promise<void> {
    for (const id of stale) {
      const held = await readIfThere(`0_${id}/referenced`);
      const isRemoved =
        held === undefined ||
        (held === "0" &&
          (await run("btrfs", ["qgroup", "destroy", `0/${id}`, directory]).then(
            () => true,
            // busy, or removed by the kernel, as newer ones do
            () => false,
          )));
      if (isRemoved) stale.delete(id);
    }
  }

  async function assertCounting(waiting: Waiting): Promise<void> {
    const [enabled, mode, inconsistent, threshold] = await Promise.all(
      ["enabled", "mode", "inconsistent", "drop_subtree_threshold"].map(readIfThere),
    );
    if (inconsistent === undefined) {
      throw unenforceable(
        `the kernel does not say whether the quotas that ${directory} is under are consistent`,
        "Linux 6.1 and later do",
      );
    }
    if (threshold !== countAll) await writeFile(join(groups, "drop_subtree_threshold"), countAll);
    if (enabled !== "1" || (mode ?? "qgroup") !== "qgroup") {
      throw unenforceable(
        `${directory} is on a btrfs file system whose quotas are ${mode === "squota" ? "simple ones" : "off"}`,
        "quotas must be of the full kind: btrfs quota enable, without --simple",
      );
    }
    if (inconsistent === "0") return;
    await run("btrfs", ["quota", "rescan", "-w", directory], { ...waiting, timeoutMs: rescanMs });
    if ((await readIfThere("inconsistent")) === "0") return;
    throw unenforceable(
      `the quotas of the btrfs file system that ${directory} is on are inconsistent: no limit of them holds`,
      "btrfs quota rescan -w counts anew",
    );
  }

  if (!(await isThere(groups))) await run("btrfs", ["quota", "enable", directory]);
  await assertCounting({});
  const listed = await run("btrfs", ["subvolume", "list", directory]);
  const subvolumes = new Set([...listed.matchAll(/^ID (\d+) /gm)].map(([, id]) => Number(id)));
  for (const id of await idsThere()) if (id >= 256 && !subvolumes.has(id)) stale.add(id);
  await sweep();

  return {
    assertCounting,

    create(path, waiting) {
      const made = making.then(() => create(path, waiting));
      making = made.catch(() => {});
      return made;
    },

    async limit(id, path, bytes, waiting) {
      const shows = async () => {
        const [most, flags] = await Promise.all([
          readIfThere(`0_${id}/max_referenced`),
          readIfThere(`0_${id}/limit_flags`),
        ]);
        // 1: what is referred to is limited
        return most === String(bytes) && (Number(flags) & 1) === 1;
      };
      if (await shows()) return;
      await run("btrfs", ["qgroup", "limit", String(bytes), path], waiting);
      if (await shows()) return;
      throw unenforceable(
        `${path} cannot be held to ${bytes} bytes: its quota group 0/${id} does not show it`,
        "btrfs qgroup show -re says what the file system holds",
      );
    },

    async referenced(id) {
      return Number(await read(`0_${id}/referenced`));
    },

    async commit(waiting) {
      await run("btrfs", ["filesystem", "sync", directory], waiting);
    },

    idOf,

    async forget(ids) {
      for (const id of ids) stale.add(id);
      await sweep();
    },
  };
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isGone(error)) return false;
    throw error;
  }
}
