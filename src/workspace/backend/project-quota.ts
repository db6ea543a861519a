// Workspaces as directories of an XFS or ext4 file system, each in a project of its own, which the kernel holds to its limits. A
// space's folder is in its project from when it was empty, and all that is made in it comes into the project by itself.

import { rename, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import type { Waiting } from "../../engine/runtime.ts";
import type { Backend, Space } from "./backend.ts";
import { failing, unavailable, unenforceable } from "./failing.ts";
import { type Home, makeOwn } from "./home.ts";
import { contentName, identityOf, makeLayout, persist } from "./layout.ts";
import { isDirectory, move, namesIn } from "./project-files.ts";
import { type Amounts, createProjectLimits, idOf, snapshotIdOf, withInodes } from "./project-limits.ts";
import { createProjectSnapshots, replaced, restoring } from "./project-snapshots.ts";
import { createTrees } from "./project-trees.ts";
import type { RunTool } from "./tool.ts";

export interface ProjectQuotaOptions {
  /** Mounted: spaces are directories of its file system. */
  readonly home: Home;
  readonly run: RunTool;
}

export function createProjectQuota({ home, run }: ProjectQuotaOptions): Backend {
  const projects = createProjectLimits(home.directory, run);
  const trees = createTrees(run);
  const snapshots = createProjectSnapshots({ home, projects, trees });
  const trash = () => home.own("trash");

  /** Finishes or undoes what a restore left, and removes what it put aside. The content is only ever away once its copy is whole. */
  async function settle(space: Space, options: Waiting): Promise<void> {
    const folder = home.folderOf(space.name);
    const found = await namesIn(folder);
    if (found.includes(restoring) && !found.includes(contentName)) {
      await rename(join(folder, restoring), join(folder, contentName));
    }
    const left = [restoring, replaced].filter((name) => found.includes(name));
    if (left.length === 0) return;
    await trees.remove(
      left.map((name) => join(folder, name)),
      options,
    );
  }

  /** Whatever was going on when a daemon was killed is over then. */
  async function contentOf(space: Space, options: Waiting): Promise<string> {
    await settle(space, options);
    const content = home.contentOf(space.name);
    if (await isDirectory(content)) return content;
    throw unavailable(`workspace ${space.name} has no directory ${content}`);
  }

  /** With what is not on the disk yet, where the kernel shows that. */
  async function usage(space: Space, options: Waiting = {}): Promise<Amounts> {
    const folder = home.folderOf(space.name);
    if (!(await isDirectory(folder))) throw unavailable(`workspace ${space.name} has no directory ${folder}`);
    const shown = await projects.shown(folder, space.limits);
    if (shown?.used !== undefined) return shown.used;
    const account = await projects.read(idOf(space), options);
    if (account === undefined) throw unavailable(`workspace ${space.name} has no project ${idOf(space)}`);
    return account.used;
  }

  /** What was made of a space that nobody has used. A limit that stays holds nothing: the project is nobody else's ever. */
  async function abandon(space: Space): Promise<void> {
    await projects.clear(idOf(space)).catch(() => {});
    await rm(home.folderOf(space.name), { recursive: true, force: true }).catch(() => {});
  }

  async function create(space: Space, options: Waiting): Promise<void> {
    const [folder, id] = [home.folderOf(space.name), idOf(space)];
    const removing = join(await trash(), space.name);
    if (await isDirectory(removing)) await trees.remove([removing], options);
    await makeOwn(folder, 0o711);
    const isNew = !(await isDirectory(home.contentOf(space.name)));
    try {
      await projects.hold(id, space.limits, { folder, isNew, ...options });
      await makeLayout(folder, space.uid);
      await persist(folder);
    } catch (error) {
      if (isNew) await abandon(space);
      throw error;
    }
  }

  async function resize(space: Space, options: Waiting): Promise<void> {
    await contentOf(space, options);
    const [folder, id] = [home.folderOf(space.name), idOf(space)];
    const before = await projects.read(id, options);
    if (before === undefined) throw unavailable(`workspace ${space.name} has no project ${id}`);
    assertRoom(space, await usage({ ...space, limits: before.limits }, options));
    try {
      await projects.hold(id, space.limits, { folder, ...options });
      // what was written in between may have been too much
      assertRoom(space, await usage(space, options));
    } catch (error) {
      await projects.hold(id, before.limits).catch(() => {});
      throw error;
    }
  }

  async function remove(space: Space, options: Waiting): Promise<void> {
    const folder = home.folderOf(space.name);
    const removing = join(await trash(), space.name);
    const kept = await snapshots.directoryOf(space);
    const there = await Promise.all([folder, removing, kept].map(isDirectory));
    const [isThere, isHalfRemoved] = there;
    if (!there.includes(true)) return;
    if (isThere && isHalfRemoved) await trees.remove([removing], options);
    await move(folder, removing);
    for (const id of [idOf(space), snapshotIdOf(space)]) await projects.clear(id, options);
    await trees.remove([removing, kept], options);
  }

  return {
    kind: "PROJECT_QUOTA",
    boundsInodes: true,
    resizesLive: true,
    isSnapshotAtomic: false,
    isSnapshotInstant: false,

    async capacity() {
      const { type, bsize, blocks, bfree, bavail, files } = await statfs(home.directory);
      // what is kept for root is no tenant's
      const bytes = (blocks - (bfree - bavail)) * bsize;
      // XFS makes inodes as it needs them, of the same bytes
      return type === xfsMagic ? { bytes } : { bytes, inodes: files };
    },

    create: (space, options = {}) =>
      failing(`workspace ${space.name} cannot be made`, () => create(space, options)),

    ready: (space, options = {}) =>
      failing(`workspace ${space.name} cannot be made ready`, async () => {
        const path = await contentOf(space, options);
        const folder = home.folderOf(space.name);
        if ((await projects.shown(folder, space.limits)) === undefined)
          await projects.hold(idOf(space), space.limits, { folder, ...options });
        return { path, identity: await identityOf(path) };
      }),

    resize: (space, options) =>
      failing(`workspace ${space.name} cannot be resized`, () => resize(space, options)),

    usage: (space) => failing(`what workspace ${space.name} uses cannot be told`, () => usage(space)),

    remove: (space, options = {}) =>
      failing(`workspace ${space.name} cannot be removed`, () => remove(space, options)),

    snapshot: (space, name, options = {}) =>
      failing(`snapshot ${name} of workspace ${space.name} cannot be made`, async () =>
        snapshots.take(space, name, await contentOf(space, options), options),
      ),

    restore: (space, name, options = {}) =>
      failing(`workspace ${space.name} cannot be restored from ${name}`, async () => {
        await contentOf(space, options);
        await snapshots.restore(space, name, await usage(space, options), options);
      }),

    removeSnapshot: (space, name, options = {}) =>
      failing(`snapshot ${name} of workspace ${space.name} cannot be removed`, () =>
        snapshots.remove(space, name, options),
      ),

    openSnapshot: (space, name) => snapshots.open(space, name),

    async list() {
      const ours = [await namesIn(await trash()), await snapshots.spaces()].flat();
      return [...new Set([...(await home.names()), ...ours])];
    },

    close: () => home.close(),
  };
}

const xfsMagic = 0x58465342;

function assertRoom({ name, limits }: Space, used: Amounts): void {
  const { bytes, inodes } = withInodes(limits);
  if (used.bytes <= bytes && used.inodes <= inodes) return;
  const held = `${used.bytes} bytes and ${used.inodes} inodes`;
  throw unenforceable(
    `workspace ${name} cannot have ${bytes} bytes and ${inodes} inodes: it holds ${held}`,
    "remove some of what it holds first, or allow it more",
  );
}
