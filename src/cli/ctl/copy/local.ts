// Places on this machine. What comes out of a sandbox is hostile: it is put below the place that was named, under no name but its own, and
// through no link, also none that an earlier copy left there.

import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  createReadStream,
  fchmodSync,
  fstatSync,
  futimesSync,
  lstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  symlinkSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { SandboxdError } from "../../../errors.ts";
import { packTree } from "../../../workspace/archive/pack.ts";
import { createTarWriter } from "../../../workspace/archive/tar-writer.ts";
import { unpackTree } from "../../../workspace/archive/unpack.ts";
import { createByteOutput } from "../byte-output.ts";
import { CommandFailed } from "../context.ts";
import { printable } from "../text.ts";
import { type Destination, meansContent, type Source } from "./place.ts";

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** What a sandbox may have this machine hold for one copy: as much as the daemon sends by itself. */
const mostBytes = 16 * 1024 ** 3;
const mostEntries = 1_000_000;

const pieceBytes = 256 * 1024;

export function localSource(path: string, { follow }: { readonly follow: boolean }): Source {
  const stat = (follow || path.endsWith("/") || meansContent(path) ? statSync : lstatSync)(path);
  if (stat.isDirectory()) return { kind: "directory", path };
  if (stat.isSymbolicLink()) return { kind: "link", path };
  if (stat.isFile()) return { kind: "file", path };
  throw new CommandFailed(`${printable(path)}: it is neither a file, a directory nor a symbolic link`);
}

export function localDestination(path: string): Destination {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory()) return { path, kind: "directory", hasParent: true };
  const isThere = stat !== undefined || lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  if (isThere) return { path, kind: "file", hasParent: true };
  return { path, kind: "absent", hasParent: isDirectory(dirname(path)) };
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** What was left out of an archive that was made here. */
export interface LeftOut {
  readonly unreadable: number;
  readonly special: number;
}

/** Packs what is in a directory. */
export function* archiveOfLocal(path: string, tell: (left: LeftOut) => void): Generator<Uint8Array> {
  const root = openSync(path, O_RDONLY | O_DIRECTORY);
  try {
    tell(yield* packTree({ root }));
  } finally {
    closeSync(root);
  }
}

/** An archive of a symbolic link alone, under this name. */
export function* archiveOfLink(path: string, name: string): Generator<Uint8Array> {
  const writer = createTarWriter();
  const linkPath = readlinkSync(path, { encoding: "latin1" });
  const latin1 = Buffer.from(name).toString("latin1");
  const mtime = Math.floor(lstatSync(path).mtimeMs / 1_000);
  yield* writer.header({ type: "2", path: latin1, linkPath, mode: 0o777, size: 0, mtime });
  yield* writer.end();
}

/** A file that is open, as it is now: what is added to it later is not read. */
export function openLocalFile(path: string): { readonly stat: Stats; content(): AsyncIterable<Uint8Array> } {
  const fd = openSync(path, O_RDONLY | O_NONBLOCK);
  const stat = fstatSync(fd);
  return {
    stat,
    async *content() {
      if (stat.size === 0) return closeSync(fd);
      yield* createReadStream(path, { fd, end: stat.size - 1, highWaterMark: pieceBytes });
    },
  };
}

/** Unpacks into a directory, which is made if it is absent. `isNamed`: the caller named it, so a link at its end is the caller's. */
export async function unpackAtLocal(
  path: string,
  chunks: AsyncIterable<Uint8Array>,
  { isNamed }: { readonly isNamed: boolean },
): Promise<{ readonly bytes: number; readonly entries: number }> {
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) mkdirSync(path);
  const root = openSync(path, O_RDONLY | O_DIRECTORY | (isNamed ? 0 : O_NOFOLLOW));
  try {
    return await unpackTree({ root, chunks, maxBytes: mostBytes, maxEntries: mostEntries });
  } catch (error) {
    // the one thing that is told in the words of a workspace
    if (error instanceof SandboxdError && error.message.startsWith("the workspace is full"))
      throw new CommandFailed(`${printable(path)}: no space is left`);
    throw error;
  } finally {
    closeSync(root);
  }
}

export interface FileAttributes {
  readonly mode: number;
  readonly modifiedMs: number;
}

/** Makes a file, or replaces what is there, whole: nobody sees half of it. Resolves to its size. */
export async function writeLocalFile(
  path: string,
  { mode, modifiedMs }: FileAttributes,
  content: AsyncIterable<Uint8Array>,
): Promise<number> {
  assertReplaceable(path);
  const temporary = join(dirname(path), `.sandboxctl-${randomBytes(6).toString("hex")}`);
  const fd = openSync(temporary, O_WRONLY | O_CREAT | O_EXCL, 0o600);
  let bytes = 0;
  try {
    const output = createByteOutput(fd);
    for await (const piece of content) {
      await output.write(piece);
      bytes += piece.length;
    }
    fchmodSync(fd, mode & 0o777);
    futimesSync(fd, Date.now() / 1_000, modifiedMs / 1_000);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
  return bytes;
}

/** Makes a symbolic link, or replaces what is there by one. */
export function writeLocalLink(path: string, target: string): void {
  assertReplaceable(path);
  const temporary = join(dirname(path), `.sandboxctl-${randomBytes(6).toString("hex")}`);
  symlinkSync(target, temporary);
  renameSync(temporary, path);
}

function assertReplaceable(path: string): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined || stat.isFile() || stat.isSymbolicLink()) return;
  throw new CommandFailed(
    `${printable(path)}: it is ${stat.isDirectory() ? "a directory" : "no regular file"}, and is not replaced`,
  );
}
