// Workspaces that are a file system each, in a file of the host: works on any kernel, and holds bytes and inodes by being no larger.

import { access, open, readdir, rename, rm, rmdir, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import type { Waiting } from "../../engine/runtime.ts";
import { messageOf, SandboxdError } from "../../errors.ts";
import type { Backend, Space } from "./backend.ts";
import { heldOf, imageLimits, makeImage, readImageLimits } from "./ext4-image.ts";
import { failing, isGone, unavailable, unenforceable } from "./failing.ts";
import { assertName, type Home } from "./home.ts";
import { contentName, identityOf, makeLayout, persist } from "./layout.ts";
import { createLoopMounts } from "./loop-mounts.ts";
import { isWithin, mounts } from "./mount-table.ts";
import { type RunTool, ToolError } from "./tool.ts";

export interface LoopImageOptions {
  /** Not mounted: each space is a mount of its own. */
  readonly home: Home;
  readonly run: RunTool;
}

/** Where things of a space are. A name has no dot, so no two of these are one. */
interface Places {
  readonly folder: string;
  readonly image: string;
  /** An image that is not complete yet. */
  readonly draft: string;
  /** A snapshot that is not complete yet: while it is there, the file system may be frozen. */
  readonly snapshotDraft: string;
  snapshot(name: string): string;
}

/** A large image is copied in minutes. */
const copyMs = 30 * 60_000;

/** Closes what an earlier life of the daemon had opened to read. */
export async function createLoopImage({ home, run }: LoopImageOptions): Promise<Backend> {
  const images = await home.own("images");
  const snapshots = await home.own("snapshots");
  const opened = await home.own("opened");
  const held = createLoopMounts(run);
  let openings = 0;
  await closeOpened("");

  const placesOf = (name: string): Places => ({
    folder: home.folderOf(name),
    image: join(images, `${name}.img`),
    draft: join(images, `${name}.new`),
    snapshotDraft: join(snapshots, `${name}.new`),
    snapshot: (snapshot) => join(snapshots, `${name}.${assertName(snapshot)}.img`),
  });

  /** Of snapshots: each has a directory, whose name begins with theirs. */
  async function closeOpened(start: string): Promise<void> {
    for (const name of (await readdir(opened)).filter((one) => one.startsWith(start))) {
      await held.unmount(join(opened, name));
      await rmdir(join(opened, name));
    }
  }

  /** A daemon that was killed while it made a snapshot may have left all that writes there waiting. */
  async function thaw({ image, folder, snapshotDraft }: Places): Promise<void> {
    if (!(await exists(snapshotDraft))) return;
    if (await held.isHeld(image, folder)) {
      await run("fsfreeze", ["--unfreeze", folder]).catch((error: unknown) => {
        // it was not frozen
        if (!(error instanceof ToolError) || !error.said.includes("Invalid argument")) throw error;
      });
    }
    await rm(snapshotDraft, { force: true });
  }

  /** Of a space that is there: whatever a kill or a power cut has left undone is done. */
  async function usable(space: Space, waiting: Waiting): Promise<Places> {
    const places = placesOf(space.name);
    if (!(await exists(places.image))) throw unavailable(`workspace ${space.name} has no image`);
    await thaw(places);
    await held.hold(places.image, places.folder, waiting);
    await makeLayout(places.folder, space.uid);
    return places;
  }

  /** Puts the draft, which is on the disk, in place of the image. */
  async function replace(space: Space, waiting: Waiting): Promise<void> {
    const { draft, image, folder } = placesOf(space.name);
    try {
      await held.release(image, folder);
    } catch (error) {
      await rm(draft, { force: true });
      throw error;
    }
    await rename(draft, image);
    await persist(images);
    await assertHeld(await usable(space, waiting), space);
  }

  async function snapshotOf(space: Space, name: string): Promise<string> {
    const path = placesOf(space.name).snapshot(name);
    if (await exists(path)) return path;
    throw unavailable(`workspace ${space.name} has no snapshot ${name}`);
  }

  async function openImage(image: string, as: string, waiting: Waiting) {
    openings += 1;
    const folder = join(opened, `${as}.${openings}`);
    const close = async () => {
      await held.unmount(folder);
      await rmdir(folder).catch(assertGone);
    };
    try {
      await held.open(image, folder, waiting);
    } catch (error) {
      await close();
      throw error;
    }
    return { folder, path: join(folder, contentName), close };
  }

  /**
   * A whole copy, and on the disk: of one that shared blocks with what it is of, a block would have to be found when either is
   * written, and there might be none.
   */
  async function copy(from: string, to: string, waiting: Waiting): Promise<void> {
    await run("cp", ["--sparse=auto", "--reflink=never", "--", from, to], { ...waiting, timeoutMs: copyMs });
    await persist(to);
  }

  async function create(space: Space, waiting: Waiting): Promise<void> {
    const wanted = imageLimits(space.limits);
    const { draft, image } = placesOf(space.name);
    const isNew = !(await exists(image));
    try {
      if (isNew) {
        await makeImage(draft, wanted, { ...waiting, run });
        await rename(draft, image);
        await persist(images);
      }
      await assertHeld(await usable(space, waiting), space);
    } catch (error) {
      // what cannot be removed now is found by `list`
      if (isNew) await remove(space).catch(() => {});
      throw error;
    }
  }

  async function resize(space: Space, isInUse: boolean, waiting: Waiting): Promise<void> {
    const wanted = imageLimits(space.limits);
    const { image, draft } = placesOf(space.name);
    if ((await exists(image)) && (await isOf(image, wanted))) return;
    if (isInUse) {
      throw unenforceable(
        `workspace ${space.name}: its limits cannot change while sandboxes run with it`,
        "it is a file system of its own, which has to be made anew: end those sandboxes first",
      );
    }
    const { folder } = await usable(space, waiting);
    await assertFits(`workspace ${space.name}`, folder, space);
    await makeImage(draft, wanted, { ...waiting, run, from: folder });
    await replace(space, waiting);
  }

  /** What is written meanwhile waits until the copy is made. */
  async function snapshot(space: Space, name: string, waiting: Waiting) {
    const path = placesOf(space.name).snapshot(name);
    const places = await usable(space, waiting);
    const { folder, image, snapshotDraft } = places;
    if (!(await exists(path))) {
      // it says that the file system may be frozen, so it is there before
      await (await open(snapshotDraft, "w", 0o600)).close();
      try {
        await run("fsfreeze", ["--freeze", folder], waiting);
        await copy(image, snapshotDraft, waiting);
        await run("fsfreeze", ["--unfreeze", folder]);
        await rename(snapshotDraft, path);
        await persist(snapshots);
      } catch (error) {
        await thaw(places);
        throw error;
      }
    }
    const { bytes } = (await readImageLimits(path)) ?? space.limits;
    return { bytes, inodes: (await usageOf(folder)).inodes };
  }

  async function restore(space: Space, name: string, waiting: Waiting): Promise<void> {
    const wanted = imageLimits(space.limits);
    const from = await snapshotOf(space, name);
    const { draft } = placesOf(space.name);
    const before = await openImage(from, `${space.name}.${name}`, waiting);
    try {
      await assertFits(`snapshot ${name}`, before.folder, space);
      if (await isOf(from, wanted)) {
        await copy(from, draft, waiting);
        // the copy has holes where nothing was written yet: those are reserved as well
        await run("fallocate", ["-l", String(wanted.bytes), draft], waiting);
      } else {
        await makeImage(draft, wanted, { ...waiting, run, from: before.folder });
      }
    } catch (error) {
      await rm(draft, { force: true });
      throw error;
    } finally {
      await before.close();
    }
    await replace(space, waiting);
  }

  async function remove({ name }: Space): Promise<void> {
    const places = placesOf(name);
    await closeOpened(`${name}.`);
    await thaw(places);
    await held.release(places.image, places.folder);
    for (const file of await readdir(snapshots)) {
      if (file.startsWith(`${name}.`)) await rm(join(snapshots, file), { force: true });
    }
    await rm(places.draft, { force: true });
    await rm(places.image, { force: true });
    // never what is in it: what could be there without the image is not the daemon's
    await rmdir(places.folder).catch(assertGone);
  }

  return {
    kind: "LOOP_IMAGE",
    boundsInodes: true,
    resizesLive: false,
    isSnapshotAtomic: true,
    isSnapshotInstant: false,

    capacity: () =>
      failing("the host's room for workspaces cannot be told", async () => {
        const { blocks, bfree, bavail, bsize } = await statfs(images);
        // what is kept for root is no tenant's
        return { bytes: (blocks - (bfree - bavail)) * bsize };
      }),

    create: (space, waiting = {}) =>
      failing(`workspace ${space.name} cannot be made`, () => create(space, waiting)),

    ready: (space, waiting = {}) =>
      failing(`workspace ${space.name} cannot be made ready`, async () => {
        const places = await usable(space, waiting).catch((error: unknown) => {
          if (error instanceof SandboxdError) throw error;
          throw unavailable(`workspace ${space.name} cannot be used: ${messageOf(error)}`, error);
        });
        await assertHeld(places, space);
        const path = home.contentOf(space.name);
        return { path, identity: await identityOf(path) };
      }),

    resize: (space, { isInUse, ...waiting }) =>
      failing(`workspace ${space.name} cannot be resized`, () => resize(space, isInUse, waiting)),

    usage: (space) =>
      failing(`what workspace ${space.name} uses cannot be told`, async () => {
        const { image, folder } = placesOf(space.name);
        if (await held.isHeld(image, folder)) return usageOf(folder);
        throw unavailable(`workspace ${space.name} is not mounted`);
      }),

    remove: (space) => failing(`workspace ${space.name} cannot be removed`, () => remove(space)),

    snapshot: (space, name, waiting = {}) =>
      failing(`snapshot ${name} of workspace ${space.name} cannot be made`, () =>
        snapshot(space, name, waiting),
      ),

    restore: (space, name, waiting = {}) =>
      failing(`workspace ${space.name} cannot be restored from ${name}`, () => restore(space, name, waiting)),

    removeSnapshot: (space, name) =>
      failing(`snapshot ${name} of workspace ${space.name} cannot be removed`, async () => {
        await closeOpened(`${space.name}.${name}.`);
        await rm(placesOf(space.name).snapshot(name), { force: true });
      }),

    openSnapshot: (space, name, waiting = {}) =>
      failing(`snapshot ${name} of workspace ${space.name} cannot be read`, async () => {
        const image = await snapshotOf(space, name);
        const { path, close } = await openImage(image, `${space.name}.${name}`, waiting);
        return { path, close };
      }),

    list: () =>
      failing("workspaces cannot be listed", async () => {
        const files = [...(await readdir(images)), ...(await readdir(snapshots))];
        const names = files.map((file) => file.slice(0, file.indexOf(".")));
        return [...new Set([...(await home.names()), ...names])].toSorted();
      }),

    close: () =>
      failing("workspaces cannot be unmounted", async () => {
        await held.close();
        await closeOpened("");
        const spaces = join(home.directory, "spaces");
        for (const { path } of await mounts()) if (isWithin(path, spaces)) await held.unmount(path);
        await home.close();
      }),
  };
}

const usageOf = async (folder: string) => heldOf(await statfs(folder));

/** Whether an image is just as large as that. */
async function isOf(image: string, wanted: ReturnType<typeof imageLimits>): Promise<boolean> {
  const found = await readImageLimits(image);
  return found?.bytes === wanted.bytes && found.inodes === wanted.inodes;
}

/** By what the kernel says of what is mounted. */
async function assertHeld({ folder, image }: Places, { limits }: Space): Promise<void> {
  const wanted = imageLimits(limits);
  const [{ files, blocks, bsize }, { size }] = await Promise.all([statfs(folder), stat(image)]);
  if (size <= wanted.bytes && blocks * bsize <= wanted.bytes && files <= wanted.inodes) return;
  throw unenforceable(
    `${image} has ${size} bytes and ${files} inodes, more than the ${wanted.bytes} and ${wanted.inodes} allowed`,
    "change the workspace's limits while no sandbox runs with it: it is made anew within them",
  );
}

async function assertFits(what: string, folder: string, { limits }: Space): Promise<void> {
  const { bytes, inodes } = await usageOf(folder);
  if (bytes <= limits.bytes && inodes <= (limits.inodes ?? 0)) return;
  throw unenforceable(
    `${what} holds ${bytes} bytes and ${inodes} inodes: it cannot have ${limits.bytes} bytes and ${limits.inodes} inodes`,
    "remove some of what it holds first, or allow it more",
  );
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    assertGone(error);
    return false;
  }
}

function assertGone(error: unknown): void {
  if (!isGone(error)) throw error;
}
