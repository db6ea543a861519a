// The directory that workspaces are kept in. All of it down to a space's content is root's, so that no tenant can put a link
// into a path that the engine follows; and nothing in it can be a device, or run as another user.

import { chmod, lstat, mkdir, readdir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { messageOf, SandboxdError } from "../../errors.ts";
import { contentName } from "./layout.ts";
import { isWithin, type Mount, mountOf, mounts } from "./mount-table.ts";
import type { RunTool } from "./tool.ts";

export interface Home {
  readonly directory: string;
  /** Of a space: root's. */
  folderOf(name: string): string;
  /** Of a space: its tenant's. */
  contentOf(name: string): string;
  /** Names of the spaces that have a folder. */
  names(): Promise<readonly string[]>;
  /** A directory of a backend's own beside the spaces, root's alone. Made if it is not there. */
  own(name: string): Promise<string>;
  /** Undoes what was mounted on it. Nothing may be in use of it. */
  close(): Promise<void>;
}

export interface OpenedHome extends Home {
  /** Whether it was mounted now, and not by an earlier life of the daemon. */
  readonly isFresh: boolean;
}

export interface HomeOptions {
  readonly run: RunTool;
  /**
   * Whether spaces are directories of the file system that this one is on: it is then mounted onto itself with what a space's
   * mount must have. A backend that mounts each space by itself does without.
   */
  readonly isMounted: boolean;
}

/** Traversable: a tenant's process has to get to its content by the path that was mounted for it, and may read nothing else. */
export const passMode = 0o711;

const namePattern = /^[a-z0-9-]{1,63}$/;

/** Rejects with WORKSPACES_UNAVAILABLE if the directory cannot be trusted, or not be mounted as it must be. */
export async function openHome(directory: string, { run, isMounted }: HomeOptions): Promise<OpenedHome> {
  const place = await trusted(directory);
  const spaces = join(place, "spaces");
  const isFresh = isMounted && (await guard(place, run));
  await makeOwn(spaces, passMode);
  const folderOf = (name: string) => join(spaces, assertName(name));
  return {
    directory: place,
    isFresh,
    folderOf,
    contentOf: (name) => join(folderOf(name), contentName),
    names: async () => (await readdir(spaces)).filter((name) => namePattern.test(name)),
    async own(name) {
      const path = join(place, name);
      await makeOwn(path, 0o700);
      return path;
    },
    async close() {
      if (isMounted && (await guardOf(place)) !== undefined) await run("umount", [place]);
    },
  };
}

/** A name becomes a path, and an argument of programs. */
export function assertName(name: string): string {
  if (namePattern.test(name)) return name;
  throw new Error(`${JSON.stringify(name)} is not the name of a space or a snapshot`);
}

/** Makes a directory with this very mode, or sees to it that it has it. */
export async function makeOwn(path: string, mode: number): Promise<void> {
  await mkdir(path, { recursive: true, mode });
  // the mode it is made with is cut by the process's mask
  if (((await stat(path)).mode & 0o7777) !== mode) await chmod(path, mode);
}

/** Resolves to the directory's path, once it is certain that it, and all above it, is root's alone. */
async function trusted(directory: string): Promise<string> {
  try {
    await mkdir(directory, { recursive: true, mode: passMode });
    const found = await lstat(directory);
    if (found.isSymbolicLink()) throw new Error("it is a link");
    if (!found.isDirectory()) throw new Error("it is no directory");
    const place = await realpath(directory);
    await assertRoots(place);
    if ((found.mode & 0o7777) !== passMode) await chmod(place, passMode);
    return place;
  } catch (error) {
    throw unusable(directory, error);
  }
}

/** Where a user can write, the user can put another directory in place. A sticky directory keeps from it. */
async function assertRoots(place: string): Promise<void> {
  const parts = place.split("/").slice(1);
  for (let length = 0; length <= parts.length; length += 1) {
    const path = `/${parts.slice(0, length).join("/")}`;
    const { uid, mode } = await lstat(path);
    const isSticky = length < parts.length && (mode & 0o1000) !== 0;
    if (uid !== 0) throw new Error(`${path} is of user ${uid}, not root's`);
    if ((mode & 0o022) !== 0 && !isSticky) throw new Error(`${path} can be written by others than root`);
  }
}

const guarded = ["nosuid", "nodev"] as const;

/** Its mount onto itself, if it has one. */
async function guardOf(place: string): Promise<Mount | undefined> {
  return (await mounts()).findLast(({ path }) => path === place);
}

/**
 * Mounts the directory onto itself, once. A file system that is mounted there by its operator is mounted over as well: what the
 * operator chose is not changed. Resolves to whether that had to be done.
 */
async function guard(place: string, run: RunTool): Promise<boolean> {
  try {
    const isHeld = (mount: Mount | undefined) => guarded.every((option) => mount?.options.includes(option));
    const top = await guardOf(place);
    if (isHeld(top)) return false;
    // half done, by a daemon that was killed: a mount of the directory itself on top of what it is on
    const isOurs = top !== undefined && (await isOnItself(place));
    if (!isOurs) await run("mount", ["--bind", place, place]);
    await run("mount", ["-o", `remount,bind,${guarded.join(",")}`, place]);
    if (!isHeld(await guardOf(place))) throw new Error("the mount does not hold nosuid and nodev");
    return true;
  } catch (error) {
    throw unusable(place, error);
  }
}

async function isOnItself(place: string): Promise<boolean> {
  const table = await mounts();
  const own = table.findLast(({ path }) => path === place);
  const below = mountOf(
    table.filter((mount) => mount !== own),
    place,
  );
  return (
    own !== undefined && below !== undefined && own.source === below.source && isWithin(own.root, below.root)
  );
}

function unusable(directory: string, cause: unknown): SandboxdError {
  return new SandboxdError(
    "WORKSPACES_UNAVAILABLE",
    `workspaces cannot be kept in ${directory}: ${messageOf(cause)}`,
    { hint: "the directory, and each above it, must be root's, written by nobody else, and no link", cause },
  );
}
