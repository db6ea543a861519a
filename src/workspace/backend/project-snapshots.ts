// Snapshots of spaces in projects: copies beside them, in a second project of the space. No limit of the first counts them, and none
// is without a limit: what changes while it is copied could have a copy without end.

import { readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import type { Waiting } from "../../engine/runtime.ts";
import type { Space, SpaceUsage } from "./backend.ts";
import { unavailable } from "./failing.ts";
import { assertName, type Home, makeOwn } from "./home.ts";
import { persist } from "./layout.ts";
import { isDirectory, move, namesIn } from "./project-files.ts";
import { type Amounts, idOf, type ProjectLimits, snapshotIdOf, withInodes } from "./project-limits.ts";
import type { Trees } from "./project-trees.ts";

/** In a space's folder beside its content, while it is restored: the copy that is to be its content, and the content that was. */
export const restoring = "restoring";
export const replaced = "replaced";

/** Beside snapshots; none has such a name. */
const copying = ".copying";
const removing = ".removing";

export interface ProjectSnapshots {
  /** That a space's are in; it may not be there. */
  directoryOf(space: Space): Promise<string>;
  /** Names of those that have some, or had. */
  spaces(): Promise<readonly string[]>;
  take(space: Space, name: string, content: string, options: Waiting): Promise<SpaceUsage>;
  /** `used`: by the space now. */
  restore(space: Space, name: string, used: Amounts, options: Waiting): Promise<void>;
  remove(space: Space, name: string, options: Waiting): Promise<void>;
  open(space: Space, name: string): Promise<{ readonly path: string; close(): Promise<void> }>;
}

export interface ProjectSnapshotsOptions {
  readonly home: Home;
  readonly projects: ProjectLimits;
  readonly trees: Trees;
}

export function createProjectSnapshots({ home, projects, trees }: ProjectSnapshotsOptions): ProjectSnapshots {
  const own = () => home.own("snapshots");
  const directoryOf = async ({ name }: Space) => join(await own(), assertName(name));

  /** What a daemon that was killed left. */
  async function sweep(directory: string, options: Waiting): Promise<void> {
    const left = (await namesIn(directory)).filter((name) => [copying, removing].includes(name));
    if (left.length === 0) return;
    await trees.remove(
      left.map((name) => join(directory, name)),
      options,
    );
  }

  async function pathOf(space: Space, name: string): Promise<string> {
    const path = join(await directoryOf(space), assertName(name));
    if (await isDirectory(path)) return path;
    throw unavailable(`workspace ${space.name} has no snapshot ${name}`);
  }

  /** The directory, with room in its project for one more. Resolves to what it uses with none more. */
  async function makeRoom(space: Space, directory: string, options: Waiting): Promise<Amounts> {
    const id = snapshotIdOf(space);
    await makeOwn(directory, 0o700);
    const isNew = (await readdir(directory)).length === 0;
    const before = (await projects.read(id, options))?.used ?? nothing;
    const room = sum(sum(before, withInodes(space.limits)), itself);
    await projects.hold(id, room, { folder: directory, isNew, ...options });
    return isNew ? ((await projects.read(id, options))?.used ?? nothing) : before;
  }

  return {
    directoryOf,
    spaces: async () => readdir(await own()),

    async take(space, name, content, options) {
      const directory = await directoryOf(space);
      const [target, copy] = [join(directory, assertName(name)), join(directory, copying)];
      await sweep(directory, options);
      const before = await makeRoom(space, directory, options);
      try {
        await trees.copy(content, copy, space.uid, options);
        const after = (await projects.read(snapshotIdOf(space), options))?.used ?? nothing;
        // it was kept before, by a daemon that was killed before it could say so
        await move(target, join(directory, removing));
        await rename(copy, target);
        await persist(directory);
        await sweep(directory, options);
        return {
          bytes: Math.max(0, after.bytes - before.bytes),
          inodes: Math.max(0, after.inodes - before.inodes),
        };
      } catch (error) {
        // the next step about snapshots of this space removes what this does not
        await trees.remove([copy]).catch(() => {});
        throw error;
      }
    },

    async restore(space, name, used, options) {
      const source = await pathOf(space, name);
      const [folder, id] = [home.folderOf(space.name), idOf(space)];
      const [content, copy] = [home.contentOf(space.name), join(folder, restoring)];
      const old = join(folder, replaced);
      // Both are in the project until one is gone. Nothing runs with the space meanwhile, and the copy has no more room than the space
      // is to have. A daemon that is killed leaves these limits: the space is not made ready with them.
      await projects.hold(id, sum(used, withInodes(space.limits)), { folder, ...options });
      try {
        await trees.copy(source, copy, space.uid, options);
      } catch (error) {
        await trees.remove([copy]).catch(() => {});
        await projects.hold(id, space.limits, { folder }).catch(() => {});
        throw error;
      }
      // not called off any more
      await rename(content, old);
      await rename(copy, content);
      await persist(folder);
      await trees.remove([old]);
      await projects.hold(id, space.limits, { folder });
    },

    async remove(space, name, options) {
      const directory = await directoryOf(space);
      await sweep(directory, options);
      await move(join(directory, assertName(name)), join(directory, removing));
      await sweep(directory, options);
    },

    async open(space, name) {
      const path = await pathOf(space, name);
      return { path, close: async () => {} };
    },
  };
}

const nothing: Amounts = { bytes: 0, inodes: 0 };

/** The directory that snapshots are in, with the block that its entries grow to. */
const itself: Amounts = { bytes: 65_536, inodes: 1 };

const sum = (one: Amounts, other: Amounts): Amounts => ({
  bytes: one.bytes + other.bytes,
  inodes: one.inodes + other.inodes,
});
