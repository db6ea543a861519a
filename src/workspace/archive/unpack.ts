// Unpacks a tar archive over what is in a directory. The archive is hostile until the contrary is shown of each of its entries.

import {
  closeSync,
  constants,
  fchmodSync,
  futimesSync,
  linkSync,
  openSync,
  symlinkSync,
  writeSync,
} from "node:fs";
import { SandboxdError } from "../../errors.ts";
import { decompressed } from "./compression.ts";
import { at, errorCode } from "./directory.ts";
import { componentsOf, mostPathBytes, refused, shown } from "./names.ts";
import { type Entry, readTar } from "./tar-reader.ts";
import { createUnpackTree, setTime, type UnpackTree } from "./unpack-tree.ts";

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;

export interface UnpackReport {
  /** Of the files. */
  readonly bytes: number;
  readonly entries: number;
}

export interface UnpackOptions {
  /** Open; it stays so. */
  readonly root: number;
  /** A tar archive, compressed with zstd or not. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Of the files. */
  readonly maxBytes: number;
  readonly maxEntries: number;
}

/** For each entry beside its content: what headers and fillers may take. Archives with long names have 3 KiB. Unit: bytes. */
const headerBytes = 4096;

/** For what is around the entries: extended headers for all, and fillers at the end. Unit: bytes. */
const frameBytes = 16 * 1024 * 1024;

/** What the kernel says to an entry that a workspace cannot have, or has no right to replace. */
const refusals: ReadonlySet<string> = new Set([
  "EACCES",
  "EPERM",
  "EMLINK",
  "EXDEV",
  "EINVAL",
  "EILSEQ",
  "ENAMETOOLONG",
  "EFBIG",
]);

/**
 * Files and links take the place of what is there, directories are kept and filled. Symbolic links are made as they are, to
 * wherever: nothing here follows one. What was unpacked before an error stays.
 *
 * @throws SandboxdError ARCHIVE_REFUSED, ARCHIVE_TOO_LARGE
 */
export async function unpackTree({
  root,
  chunks,
  maxBytes,
  maxEntries,
}: UnpackOptions): Promise<UnpackReport> {
  const tree = createUnpackTree(root);
  const mostRead = maxBytes + maxEntries * headerBytes + frameBytes;
  let bytes = 0;
  let entries = 0;
  const onBytes = (position: number) => {
    if (position > mostRead)
      throw tooLarge(`the archive has more than ${mostRead} bytes, headers included`, mostRead, position);
  };
  try {
    for await (const entry of readTar(decompressed(chunks), onBytes)) {
      if (entries === maxEntries)
        throw tooLarge(`the archive has more than ${maxEntries} entries`, maxEntries, entries + 1, entry);
      if (bytes + entry.size > maxBytes)
        throw tooLarge(`the files have more than ${maxBytes} bytes`, maxBytes, bytes + entry.size, entry);
      await unpackEntry(tree, entry).catch((error) => {
        throw refusals.has(errorCode(error))
          ? refused(entry.path, `it cannot be made here (${errorCode(error)})`)
          : error;
      });
      bytes += entry.size;
      entries += 1;
    }
    tree.close();
    return { bytes, entries };
  } catch (error) {
    closeQuietly(tree);
    throw isFull(error) ? full(error) : error;
  }
}

async function unpackEntry(tree: UnpackTree, entry: Entry): Promise<void> {
  const { kind, path, mode, mtime } = entry;
  const components = componentsOf(path, kind === "directory");
  if (kind === "directory") return tree.makeDirectory(components, path, { mode, mtime });
  const name = components.at(-1) ?? "";
  const directory = tree.enter(components.slice(0, -1), path);
  switch (kind) {
    case "file":
      tree.makeRoom(directory, name, path);
      return await writeFile(directory, name, entry);
    case "symlink":
      assertTarget(entry);
      tree.makeRoom(directory, name, path);
      symlinkSync(Buffer.from(entry.linkPath, "latin1"), at(directory, name));
      return setTime(directory, name, mtime);
    case "hardlink":
      return makeHardLink(tree, directory, name, entry);
    default:
      return kind satisfies never;
  }
}

async function writeFile(directory: number, name: string, { mode, mtime, readSome }: Entry): Promise<void> {
  const fd = openSync(at(directory, name), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    for (let piece = await readSome(); piece.length > 0; piece = await readSome())
      for (let done = 0; done < piece.length; ) done += writeSync(fd, piece, done);
    fchmodSync(fd, mode);
    futimesSync(fd, Date.now() / 1000, mtime);
  } finally {
    closeSync(fd);
  }
}

function assertTarget({ path, linkPath }: Entry): void {
  if (linkPath === "") throw refused(path, "it is a link to nothing");
  if (linkPath.includes("\0")) throw refused(path, "its target has a NUL");
  if (linkPath.length >= mostPathBytes)
    throw refused(path, `its target is longer than ${mostPathBytes - 1} bytes`, {
      limit: `${mostPathBytes - 1}`,
    });
}

/** To a file in the tree: one that the archive made, or that was there before and is its owner's all the same. */
function makeHardLink(tree: UnpackTree, directory: number, name: string, { path, linkPath }: Entry): void {
  const target = targetOf(path, linkPath);
  const isThere = tree.withFile(target, (from, fromName) => {
    if (target.join("/") === componentsOf(path, false).join("/"))
      throw refused(path, "it is a hard link to itself");
    tree.makeRoom(directory, name, path);
    linkSync(at(from, fromName), at(directory, name));
  });
  if (!isThere)
    throw refused(path, "it is a hard link to what is no file in the archive before it", {
      target: shown(linkPath),
    });
}

function targetOf(path: string, linkPath: string): readonly string[] {
  try {
    return componentsOf(linkPath, false);
  } catch {
    throw refused(path, "it is a hard link to a path that is refused", { target: shown(linkPath) });
  }
}

/** After another error, which tells more. */
function closeQuietly(tree: UnpackTree): void {
  try {
    tree.close();
  } catch {
    // the modes and times of directories are the least of it now
  }
}

function tooLarge(message: string, limit: number, value: number, entry?: Entry): SandboxdError {
  const place: Record<string, string> = entry === undefined ? {} : { entry: shown(entry.path) };
  return new SandboxdError("ARCHIVE_TOO_LARGE", message, {
    metadata: { limit: `${limit}`, value: `${value}`, ...place },
    hint: "what was unpacked before stays",
  });
}

function isFull(error: unknown): boolean {
  return errorCode(error) === "ENOSPC" || errorCode(error) === "EDQUOT";
}

function full(error: unknown): SandboxdError {
  return new SandboxdError("ARCHIVE_TOO_LARGE", `the workspace is full (${errorCode(error)})`, {
    hint: "what was unpacked before stays; give the workspace more bytes or inodes",
  });
}
