// A file that holds an ext4 file system of a given size: how large it can be made, and what it was made to hold.

import { open, rm, stat, truncate, writeFile } from "node:fs/promises";
import type { Waiting } from "../../engine/runtime.ts";
import type { SpaceLimits, SpaceUsage } from "./backend.ts";
import { unenforceable } from "./failing.ts";
import type { RunTool } from "./tool.ts";

/** What an image holds, whatever is in it. */
export interface ImageLimits {
  readonly bytes: number;
  /** All that there are, with the file system's own. */
  readonly inodes: number;
}

const blockBytes = 4_096;
/** Blocks that one block of bits can tell of: what mkfs divides a file system into. */
const groupBlocks = 32_768;
/** Of a group's table of inodes, at least a block is filled, as mkfs does: 16 inodes of 256 bytes. */
const inodesPerBlock = 16;
/** Those numbered 1 to 10 are reserved, the root among them; lost+found is the 11th. */
const ownInodes = 11;
/** The root's block, and four of lost+found. Tables and journal are not counted as blocks that there are at all. */
const ownBytes = 5 * blockBytes;
/** What tables, a journal of its least size (4 MiB) and the layout take, and some to work in. */
const leastBytes = 8 * 1_024 * 1_024;
/** Of 16 TiB and more, blocks have numbers that older programs do not know. */
const mostBytes = 16 * 1_024 ** 4 - groupBlocks * blockBytes;

/**
 * What an image can be made to hold: no byte and no inode more than asked, beyond the 11 inodes that the file system has for itself.
 * Bytes are whole blocks of 4,096. Inodes are as many in each group of 128 MiB, a multiple of 16: up to 15 for each group are given
 * up. So 1 GiB has up to 120 inodes less than asked.
 *
 * @throws SandboxdError LIMIT_UNENFORCEABLE if there cannot be a file system within these limits.
 */
export function imageLimits({ bytes, inodes }: SpaceLimits): ImageLimits {
  const blocks = Math.floor(bytes / blockBytes);
  if (bytes < leastBytes || bytes > mostBytes) {
    throw unenforceable(
      `a file system in a file cannot have ${bytes} bytes`,
      `it can have ${leastBytes} to ${mostBytes} bytes`,
    );
  }
  const groups = Math.ceil(blocks / groupBlocks);
  const perGroup = Math.floor(((inodes ?? 0) + ownInodes) / groups / inodesPerBlock) * inodesPerBlock;
  const least = groups * inodesPerBlock - ownInodes + layoutInodes;
  // one block of bits tells of a group's inodes as well, and their tables must leave room for what they are of
  const most = Math.min(groupBlocks, Math.floor(blocks / groups / 2) * inodesPerBlock) * groups - ownInodes;
  if (inodes === undefined || inodes < least || inodes > most) {
    throw unenforceable(
      `a file system of ${bytes} bytes cannot be kept at ${inodes ?? "no number of"} inodes`,
      `it can have ${least} to ${most} inodes`,
    );
  }
  return { bytes: blocks * blockBytes, inodes: perGroup * groups };
}

/** The content's directory, and those in it. They are counted as the tenant's, like all that is in the content. */
const layoutInodes = 4;

/** What is held, by what a file system's figures are. */
export function heldOf({ blocks, bfree, bsize, files, ffree }: FileSystemFigures): Required<SpaceUsage> {
  return {
    bytes: Math.max(0, (blocks - bfree) * bsize - ownBytes),
    inodes: Math.max(0, files - ffree - ownInodes),
  };
}

/** As statfs(2) has them. */
interface FileSystemFigures {
  readonly blocks: number;
  readonly bfree: number;
  readonly bsize: number;
  readonly files: number;
  readonly ffree: number;
}

/** A large image is filled in minutes. */
const fillMs = 30 * 60_000;

/**
 * Makes an image at `path`, in place of what is there, with all its blocks reserved: it never fails for want of room later.
 * `from`: a directory with which its root is filled; times are then kept to the second. Rejects if it does not fit, or if the image
 * does not hold what it should; nothing is left then.
 */
export async function makeImage(
  path: string,
  limits: ImageLimits,
  { run, from, signal }: Waiting & { readonly run: RunTool; readonly from?: string },
): Promise<void> {
  const waiting = signal === undefined ? {} : { signal };
  await rm(path, { force: true });
  try {
    await writeFile(path, "", { mode: 0o600 });
    await truncate(path, limits.bytes);
    // reserving blocks changes none that were written, so that neither waits for the other
    const made = await Promise.allSettled([
      run("fallocate", ["-l", String(limits.bytes), path], waiting),
      run("mkfs.ext4", [...mkfsArguments(limits, from), path], {
        ...waiting,
        ...(from === undefined ? {} : { timeoutMs: fillMs }),
      }),
    ]);
    for (const outcome of made) if (outcome.status === "rejected") throw outcome.reason;
    await assertHolds(path, limits);
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}

function mkfsArguments({ inodes }: ImageLimits, from: string | undefined): readonly string[] {
  return [
    ...["-q", "-F", "-b", String(blockBytes), "-I", "256", "-N", String(inodes)],
    // nothing kept for root, which would let nobody but a daemon use the last of it
    ...["-m", "0"],
    // it is never grown in place; and after an error nothing is written that could make it worse
    ...["-O", "^resize_inode", "-e", "remount-ro"],
    // a reserved file is zeros already, and discarding blocks would give back what is reserved
    ...["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"],
    ...(from === undefined ? [] : ["-d", from]),
  ];
}

/** Reads it back from the file itself. */
async function assertHolds(path: string, wanted: ImageLimits): Promise<void> {
  const held = await readImageLimits(path);
  const { blocks } = await stat(path);
  if (held?.bytes !== wanted.bytes || held.inodes > wanted.inodes || blocks * 512 < wanted.bytes) {
    throw unenforceable(
      `the image holds ${held?.bytes} bytes and ${held?.inodes} inodes of ${wanted.bytes} and ${wanted.inodes} asked, with ${blocks * 512} bytes reserved`,
      "the host's file system for workspaces must reserve what fallocate(1) asks for",
    );
  }
}

/** Of an image that is there: what its file system says of itself. Undefined if it has none. */
export async function readImageLimits(path: string): Promise<ImageLimits | undefined> {
  const file = await open(path, "r");
  try {
    // the superblock is 1 KiB from the beginning: inodes, blocks, …, 24: the block's size, 56: ext's magic number, 336: blocks' upper half
    const { buffer, bytesRead } = await file.read(Buffer.alloc(1_024), 0, 1_024, 1_024);
    if (bytesRead < 1_024 || buffer.readUInt16LE(56) !== 0xef53) return undefined;
    const blocks = buffer.readUInt32LE(4) + buffer.readUInt32LE(336) * 2 ** 32;
    return { bytes: blocks * 1_024 * 2 ** buffer.readUInt32LE(24), inodes: buffer.readUInt32LE(0) };
  } finally {
    await file.close();
  }
}
