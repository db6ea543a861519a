// Workspaces as btrfs subvolumes, each held by its quota group. A space's content is a subvolume, and so is each of its snapshots,
// which are beside it.
//
// Whoever owns a directory may make a subvolume in it, which no limit of the first would count: the sandboxes' system call filter
// lets none of btrfs's calls through but those that copy by sharing.

import { chmod, lstat, readdir, rename, rmdir, statfs } from "node:fs/promises";
import { join } from "node:path";
import type { Waiting } from "../../engine/runtime.ts";
import type { Backend, Space } from "./backend.ts";
import { openBtrfsQuota } from "./btrfs-quota.ts";
import { failing, isGone, unavailable, unenforceable } from "./failing.ts";
import { assertName, type Home, makeOwn, passMode } from "./home.ts";
import { contentName, identityOf, makeLayout, persist } from "./layout.ts";
import type { RunTool } from "./tool.ts";

export interface BtrfsOptions {
  /** Mounted: spaces are directories of its file system. */
  readonly home: Home;
  readonly run: RunTool;
}

/** In a space's folder, beside its content. */
const names = { snapshots: "snapshots", restoring: "restoring", replaced: "replaced" } as const;

/** The least that the layout takes, and some to work in: a subvolume begins with 16 KiB, and grows by as much. */
const leastBytes = 1_024 * 1_024;

/** Turns quotas on if they are off, which counts what is there at first. */
export async function createBtrfs({ home, run }: BtrfsOptions): Promise<Backend> {
  const quota = await openBtrfsQuota(home.directory, run);
  /** Of contents, by space. */
  const ids = new Map<string, number>();

  const snapshotsOf = (name: string) => join(home.folderOf(name), names.snapshots);
  const snapshotPath = (space: Space, name: string) => join(snapshotsOf(space.name), assertName(name));

  async function idOf({ name }: Space, waiting: Waiting): Promise<number> {
    const id = ids.get(name) ?? (await quota.idOf(home.contentOf(name), waiting));
    ids.set(name, id);
    return id;
  }

  /** Those of them that are there. */
  async function removeSubvolumes(paths: readonly string[], waiting: Waiting = {}): Promise<void> {
    const found = (
      await Promise.all(paths.map(async (path) => ((await isSubvolume(path)) ? [path] : [])))
    ).flat();
    if (found.length === 0) return;
    const gone = await Promise.all(found.map((path) => quota.idOf(path, waiting)));
    // the kernel begins to take them apart, and gives back their bytes, at a commit
    await run("btrfs", ["subvolume", "delete", "--commit-after", ...found], waiting);
    await quota.forget(gone);
  }

  /** Finishes or undoes what a restore left. The content is only ever away once its copy is whole. */
  async function settle({ name }: Space, waiting: Waiting): Promise<void> {
    const folder = home.folderOf(name);
    const found = await entriesOf(folder);
    if (found.includes(names.restoring) && !found.includes(contentName)) {
      ids.delete(name);
      await rename(join(folder, names.restoring), join(folder, contentName));
    }
    const left = [names.restoring, names.replaced].filter((one) => found.includes(one));
    await removeSubvolumes(
      left.map((one) => join(folder, one)),
      waiting,
    );
  }

  /** Within its limits, and with the layout in it. */
  async function hold(space: Space, waiting: Waiting): Promise<void> {
    const content = home.contentOf(space.name);
    await quota.limit(await idOf(space, waiting), content, space.limits.bytes, waiting);
    await chmod(content, 0o700);
    await makeLayout(home.folderOf(space.name), space.uid);
  }

  /** Of a space that is there: whatever a kill has left undone is done. */
  async function usable(space: Space, waiting: Waiting): Promise<string> {
    await settle(space, waiting);
    const content = home.contentOf(space.name);
    if (await isSubvolume(content)) return content;
    throw unavailable(`workspace ${space.name} has no subvolume ${content}`);
  }

  async function create(space: Space, waiting: Waiting): Promise<void> {
    assertLimits(space);
    await quota.assertCounting(waiting);
    const content = home.contentOf(space.name);
    await makeOwn(home.folderOf(space.name), passMode);
    await settle(space, waiting);
    const isNew = !(await isSubvolume(content));
    try {
      if (isNew) ids.set(space.name, await quota.create(content, waiting));
      await hold(space, waiting);
      // a new subvolume has the whole transaction committed, its limit included
      if (isNew) await persist(home.folderOf(space.name));
    } catch (error) {
      // what cannot be removed now is found by `list`
      if (isNew) await remove(space).catch(() => {});
      throw error;
    }
  }

  async function resize(space: Space, waiting: Waiting): Promise<void> {
    assertLimits(space);
    const { bytes } = space.limits;
    const content = await usable(space, waiting);
    await quota.assertCounting(waiting);
    const id = await idOf(space, waiting);
    await quota.commit(waiting);
    await assertFits(`workspace ${space.name}`, id, bytes);
    await quota.limit(id, content, bytes, waiting);
  }

  async function assertFits(what: string, id: number, bytes: number): Promise<void> {
    const held = await quota.referenced(id);
    if (held <= bytes) return;
    throw unenforceable(
      `${what} holds ${held} bytes: it cannot have ${bytes} bytes`,
      "remove some of what it holds first, or allow it more",
    );
  }

  async function snapshot(space: Space, name: string, waiting: Waiting) {
    const path = snapshotPath(space, name);
    const content = await usable(space, waiting);
    await makeOwn(snapshotsOf(space.name), 0o700);
    // it makes a commit itself, so its figures are exact
    if (!(await isSubvolume(path)))
      await run("btrfs", ["subvolume", "snapshot", "-r", content, path], waiting);
    return { bytes: await quota.referenced(await quota.idOf(path, waiting)) };
  }

  async function restore(space: Space, name: string, waiting: Waiting): Promise<void> {
    assertLimits(space);
    const from = await snapshotOf(space, name);
    await usable(space, waiting);
    await quota.assertCounting(waiting);
    await assertFits(`snapshot ${name}`, await quota.idOf(from, waiting), space.limits.bytes);
    const folder = home.folderOf(space.name);
    const [content, restoring, replaced] = [
      home.contentOf(space.name),
      join(folder, names.restoring),
      join(folder, names.replaced),
    ];
    try {
      await run("btrfs", ["subvolume", "snapshot", from, restoring], waiting);
      const id = await quota.idOf(restoring, waiting);
      await quota.limit(id, restoring, space.limits.bytes, waiting);
      await rename(content, replaced);
      await rename(restoring, content);
      ids.set(space.name, id);
    } catch (error) {
      await settle(space, {}).catch(() => {});
      throw error;
    }
    // what cannot be removed now is when the space is next used
    await settle(space, {}).catch(() => {});
  }

  async function snapshotOf(space: Space, name: string): Promise<string> {
    const path = snapshotPath(space, name);
    if (await isSubvolume(path)) return path;
    throw unavailable(`workspace ${space.name} has no snapshot ${name}`);
  }

  async function remove({ name }: Pick<Space, "name">): Promise<void> {
    const folder = home.folderOf(name);
    const snapshots = (await entriesOf(snapshotsOf(name))).map((one) => join(snapshotsOf(name), one));
    const others = [names.restoring, names.replaced, contentName].map((one) => join(folder, one));
    await removeSubvolumes([...snapshots, ...others]);
    ids.delete(name);
    for (const directory of [snapshotsOf(name), folder]) await rmdir(directory).catch(assertGone);
  }

  return {
    kind: "BTRFS",
    boundsInodes: false,
    resizesLive: true,
    isSnapshotAtomic: true,
    isSnapshotInstant: true,

    capacity: () =>
      failing("the host's room for workspaces cannot be told", async () => {
        const { blocks, bsize } = await statfs(home.directory);
        return { bytes: blocks * bsize };
      }),

    create: (space, waiting = {}) =>
      failing(`workspace ${space.name} cannot be made`, () => create(space, waiting)),

    ready: (space, waiting = {}) =>
      failing(`workspace ${space.name} cannot be made ready`, async () => {
        assertLimits(space);
        const path = await usable(space, waiting);
        await quota.assertCounting(waiting);
        await hold(space, waiting);
        return { path, identity: await identityOf(path) };
      }),

    resize: (space, { isInUse: _, ...waiting }) =>
      failing(`workspace ${space.name} cannot be resized`, () => resize(space, waiting)),

    usage: (space) =>
      failing(`what workspace ${space.name} uses cannot be told`, async () => ({
        bytes: await quota.referenced(await idOf(space, {})),
      })),

    remove: (space) => failing(`workspace ${space.name} cannot be removed`, () => remove(space)),

    snapshot: (space, name, waiting = {}) =>
      failing(`snapshot ${name} of workspace ${space.name} cannot be made`, () =>
        snapshot(space, name, waiting),
      ),

    restore: (space, name, waiting = {}) =>
      failing(`workspace ${space.name} cannot be restored from ${name}`, () => restore(space, name, waiting)),

    removeSnapshot: (space, name, waiting = {}) =>
      failing(`snapshot ${name} of workspace ${space.name} cannot be removed`, () =>
        removeSubvolumes([snapshotPath(space, name)], waiting),
      ),

    openSnapshot: (space, name) =>
      failing(`snapshot ${name} of workspace ${space.name} cannot be read`, async () => ({
        path: await snapshotOf(space, name),
        close: async () => {},
      })),

    list: () => failing("workspaces cannot be listed", async () => (await home.names()).toSorted()),

    close: () => failing("workspaces cannot be unmounted", () => home.close()),
  };
}

function assertLimits({ name, limits: { bytes, inodes } }: Space): void {
  if (inodes !== undefined) {
    throw unenforceable(
      `workspace ${name} cannot be held to ${inodes} inodes: btrfs bounds none`,
      "leave the limit of inodes out, or use another backend",
    );
  }
  if (bytes >= leastBytes) return;
  throw unenforceable(
    `workspace ${name} cannot be held to ${bytes} bytes`,
    `it can have ${leastBytes} bytes at least`,
  );
}

/** The root of each subvolume has this number, on a device of its own; so has no directory in one. */
const rootInode = 256;

async function isSubvolume(path: string): Promise<boolean> {
  try {
    const found = await lstat(path);
    return found.isDirectory() && found.ino === rootInode;
  } catch (error) {
    assertGone(error);
    return false;
  }
}

async function entriesOf(path: string): Promise<readonly string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    assertGone(error);
    return [];
  }
}

function assertGone(error: unknown): void {
  if (!isGone(error)) throw error;
}
