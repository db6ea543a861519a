// What is in every workspace from its beginning, what of it a sandbox sees as the root of its mount, and that it lasts.

import { chown, mkdir, open, stat } from "node:fs/promises";
import { join } from "node:path";
import type { FileIdentity } from "./backend.ts";

/** In a space: all that is the tenant's. What is beside it is the daemon's. */
export const contentName = "data";

/** As the users of coding tools expect them. */
const directories = ["projects", "tmp", "cache"] as const;

/** Nobody but the tenant's user. */
const mode = 0o700;

/**
 * Makes the content's directory in `folder`, which is root's, with the layout in it. It is given to its user last, so that what is there and its
 * user's is complete.
 */
export async function makeLayout(folder: string, uid: number): Promise<void> {
  const content = join(folder, contentName);
  await mkdir(content, { recursive: true, mode });
  if ((await stat(content)).uid === uid) return;
  for (const name of directories) {
    await mkdir(join(content, name), { recursive: true, mode });
    await chown(join(content, name), uid, uid);
  }
  await chown(content, uid, uid);
}

/** Tells the content from whatever else could be mounted in its place. */
export async function identityOf(path: string): Promise<FileIdentity> {
  const { dev, ino } = await stat(path);
  return { device: dev, inode: ino };
}

/** Has a file, or what was made and renamed in a directory, survive a power cut. */
export async function persist(path: string): Promise<void> {
  const handle = await open(path);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
