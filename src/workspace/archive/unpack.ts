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
import { assertTarget, entriesWithin, hardLinkTarget } from "./judged.ts";
import { componentsOf, refused, shown } from "./names.ts";
import type { Entry } from "./tar-reader.ts";
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
  let bytes = 0;
  let entries = 0;
  try {
    for await (const entry of entriesWithin(decompressed(chunks), { maxBytes, maxEntries })) {
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

/** To a file in the tree: one that the archive made, or that was there before and is its owner's all the same. */
function makeHardLink(tree: UnpackTree, directory: number, name: string, { path, linkPath }: Entry): void {
  const target = hardLinkTarget(path, linkPath);
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

/** After another error, which tells more. */
function closeQuietly(tree: UnpackTree): void {
  try {
    tree.close();
  } catch {
    // the modes and times of directories are the least of it now
  }
}

function isFull(error: unknown): boolean {
  return errorCode(error) === "ENOSPC" || errorCode(error) === "EDQUOT";
}

function full(error: unknown): SandboxdError {
  return new SandboxdError("ARCHIVE_TOO_LARGE", `the workspace is full (${errorCode(error)})`, {
    hint: "what was unpacked before stays; give the workspace more bytes or inodes",
  });
}
