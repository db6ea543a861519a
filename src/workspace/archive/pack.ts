// Packs a directory tree as it is found: in one order, so that the same tree gives the same archive, and nothing from outside of
// it, whatever a running sandbox swaps meanwhile.

import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  opendirSync,
  openSync,
  readlinkSync,
  readSync,
} from "node:fs";
import { at, errorCode, itself, openDirectory, statAt } from "./directory.ts";
import { mostDepth, mostPathBytes, refused } from "./names.ts";
import type { Header } from "./tar-header.ts";
import { createTarWriter } from "./tar-writer.ts";

const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;

/** Names of all directories that are open at one time: they are sorted, so they are held. Some 600,000 names. Unit: bytes. */
const mostHeldBytes = 32 * 1024 * 1024;

/** What a name takes beside its bytes. Unit: bytes. */
const nameOverheadBytes = 32;

/** First names of files with several, which are remembered. Beyond it each name is packed as a file of its own. Unit: bytes. */
const mostLinkedBytes = 8 * 1024 * 1024;

export interface PackReport {
  /** Of the archive before its compression. */
  readonly bytes: number;
  readonly entries: number;
  /** Files and directories left out, or without what they hold, since their owner may not read them. */
  readonly unreadable: number;
  /** Left out, for they are neither file, directory nor symbolic link. */
  readonly special: number;
}

export interface PackOptions {
  /** Open; it stays so. */
  readonly root: number;
  /** Of the archive before its compression. Default: any number. */
  readonly maxBytes?: number | undefined;
}

/**
 * Yields the archive in pieces, and returns what was packed. The second name of a file is packed as a hard link to the first. A
 * file that shrinks meanwhile is filled up with zeros, one that grows is cut, one that goes away is left out.
 *
 * @throws SandboxdError ARCHIVE_TOO_LARGE; ARCHIVE_REFUSED for what could not be unpacked again: too deep, or too long a path.
 */
export function* packTree({ root, maxBytes }: PackOptions): Generator<Buffer, PackReport> {
  const writer = createTarWriter(maxBytes);
  const linked = new Map<string, string>();
  let [entries, unreadable, special, heldBytes, linkedBytes] = [0, 0, 0, 0, 0];

  function* entry(type: string, path: string, found: Partial<Header>, stat: BigIntStats): Generator<Buffer> {
    if (path.length > mostPathBytes)
      throw refused(path, `its path is longer than ${mostPathBytes} bytes`, { limit: `${mostPathBytes}` });
    entries += 1;
    const mode = Number(stat.mode & 0o777n);
    yield* writer.header({ type, path, linkPath: "", mode, size: 0, mtime: mtimeOf(stat), ...found });
  }

  function* directory(parent: number, name: string, path: string, depth: number): Generator<Buffer> {
    if (depth > mostDepth)
      throw refused(path, `it is deeper than ${mostDepth} directories`, { limit: `${mostDepth}` });
    const fd = opened(() => openDirectory(parent, name));
    if (fd === "unreadable") {
      const stat = statAt(parent, name);
      if (stat?.isDirectory()) yield* entry("5", `${path}/`, {}, stat);
    }
    if (typeof fd !== "number") return;
    try {
      yield* entry("5", `${path}/`, {}, fstatSync(fd, { bigint: true }));
      yield* content(fd, `${path}/`, depth);
    } finally {
      closeSync(fd);
    }
  }

  function* file(parent: number, name: string, path: string): Generator<Buffer> {
    // a FIFO that took the file's place would have us wait for its writer
    const fd = opened(() => openSync(at(parent, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    if (typeof fd !== "number") return;
    try {
      const stat = fstatSync(fd, { bigint: true });
      if (!stat.isFile()) return;
      const first = firstName(stat, path);
      if (first !== undefined) return yield* entry("1", path, { linkPath: first }, stat);
      const size = Number(stat.size);
      yield* entry("0", path, { size }, stat);
      yield* writer.content(size, (into) => readSync(fd, into));
    } finally {
      closeSync(fd);
    }
  }

  function firstName({ nlink, dev, ino }: BigIntStats, path: string): string | undefined {
    if (nlink < 2n) return undefined;
    const first = linked.get(`${dev}:${ino}`);
    if (first === undefined && linkedBytes < mostLinkedBytes) {
      linked.set(`${dev}:${ino}`, path);
      linkedBytes += path.length;
    }
    return first;
  }

  /** What open made of it: gone, or something else by now, is undefined. */
  function opened(open: () => number): number | "unreadable" | undefined {
    try {
      return open();
    } catch (error) {
      const code = errorCode(error);
      if (["ENOENT", "ENOTDIR", "ELOOP", "ENXIO"].includes(code)) return undefined;
      if (code !== "EACCES" && code !== "EPERM") throw error;
      unreadable += 1;
      return "unreadable";
    }
  }

  function* content(fd: number, prefix: string, depth: number): Generator<Buffer> {
    const { names, bytes } = namesIn(fd, mostHeldBytes - heldBytes, prefix);
    heldBytes += bytes;
    for (const name of names) {
      const path = prefix + name;
      const stat = statAt(fd, name);
      if (stat === undefined) continue;
      if (stat.isDirectory()) yield* directory(fd, name, path, depth + 1);
      else if (stat.isFile()) yield* file(fd, name, path);
      else if (stat.isSymbolicLink()) {
        const linkPath = targetOf(fd, name);
        if (linkPath !== undefined) yield* entry("2", path, { linkPath }, stat);
      } else special += 1;
    }
    heldBytes -= bytes;
  }

  yield* content(root, "", 0);
  yield* writer.end();
  return { bytes: writer.bytes, entries, unreadable, special };
}

/** In the order of their bytes. @throws SandboxdError ARCHIVE_REFUSED if they take more than `mostBytes` */
function namesIn(fd: number, mostBytes: number, prefix: string) {
  const names: string[] = [];
  let bytes = 0;
  const directory = opendirSync(itself(fd), { encoding: "latin1", bufferSize: 256 });
  try {
    for (let one = directory.readSync(); one !== null; one = directory.readSync()) {
      bytes += one.name.length + nameOverheadBytes;
      if (bytes > mostBytes)
        throw refused(prefix, "there are too many names in it", { limit: `${mostHeldBytes}` });
      names.push(one.name);
    }
  } finally {
    directory.closeSync();
  }
  return { names: names.sort((a, b) => (a < b ? -1 : 1)), bytes };
}

function targetOf(fd: number, name: string): string | undefined {
  try {
    return readlinkSync(at(fd, name), { encoding: "latin1" });
  } catch (error) {
    if (errorCode(error) === "EINVAL" || errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** To the microsecond: what Node can set again. Unit: seconds. */
function mtimeOf({ mtimeNs }: BigIntStats): number {
  const micros = (mtimeNs + (mtimeNs < 0n ? -500n : 500n)) / 1000n;
  return Number(micros) / 1e6;
}
