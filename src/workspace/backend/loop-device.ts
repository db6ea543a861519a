// Which file is behind what is mounted: read from the kernel's own files, so that it costs nothing to ask.

import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { codeOf, isGone } from "./failing.ts";

export interface MountedImage {
  /** The file; "" if what is mounted is in none. */
  readonly image: string;
  /** Of its loop device, in the kernel's tree. */
  readonly device: string;
}

/** What is mounted on a directory, whose parent is on another file system then. */
export async function mountedOn(directory: string): Promise<MountedImage | undefined> {
  try {
    const [{ dev }, above] = await Promise.all([stat(directory), stat(dirname(directory))]);
    if (dev === above.dev) return undefined;
    const device = deviceDirectory(dev);
    return { device, image: (await backingFile(device)) ?? "" };
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

/** Whether blocks that the file system has no use for may be given back to the host. */
export async function allowsDiscard(device: string): Promise<boolean> {
  return Number(await readFile(`${device}/queue/discard_max_bytes`, "utf8")) > 0;
}

/** Whoever asks for it then. */
export async function forbidDiscard(device: string): Promise<void> {
  await writeFile(`${device}/queue/discard_max_bytes`, "0");
}

/** How long the kernel may take to let go of a file after the last mount of it has gone. */
const detachMs = 2_000;

/** Resolves to whether the kernel has let go of the file: as long as it has not, the file is somebody's disk. */
export async function isDetached(device: string, image: string): Promise<boolean> {
  for (const end = Date.now() + detachMs; ; ) {
    if ((await backingFile(device)) !== image) return true;
    if (Date.now() > end) return false;
    await sleep(5);
  }
}

/** The devices that a file is behind, wherever they are mounted. */
export async function devicesOf(image: string): Promise<readonly string[]> {
  const names = (await readdir("/sys/block")).filter((name) => name.startsWith("loop"));
  const devices = names.map((name) => `/sys/block/${name}`);
  const files = await Promise.all(devices.map(backingFile));
  return devices.filter((_, index) => files[index] === image);
}

/** Numbers as makedev(3) packs them. */
function deviceDirectory(dev: number): string {
  const bits = BigInt(dev);
  const major = ((bits >> 8n) & 0xfffn) | ((bits >> 32n) & ~0xfffn);
  const minor = (bits & 0xffn) | ((bits >> 12n) & 0xffffff00n);
  return `/sys/dev/block/${major}:${minor}`;
}

async function backingFile(device: string): Promise<string | undefined> {
  try {
    return (await readFile(`${device}/loop/backing_file`, "utf8")).replace(/\n$/, "");
  } catch (error) {
    // one that is being let go of answers with one of the others
    if (isGone(error) || ["ENXIO", "ENODEV"].includes(String(codeOf(error)))) return undefined;
    throw error;
  }
}
