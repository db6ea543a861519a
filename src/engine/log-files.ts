// Follows the files in which the engine keeps a container's log, over every rotation: the engine's own stream loses lines, and
// tells some twice, when it rotates while it is read (measured with 20.10: most of what a fast writer wrote).

import { type FSWatcher, watch } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Lines as they stand in the files, in order; or word that the engine dropped files which were not yet read. */
export type FilePart =
  | { readonly kind: "lines"; readonly lines: readonly Buffer[] }
  | { readonly kind: "gap" }
  /** All that was there has been told; with `follow`, more may come. */
  | { readonly kind: "end" };

export interface FileOptions {
  /** Whether to wait for more until the engine removes the log. */
  readonly follow: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Told once, before the first part: whether files came before the oldest that is still there, as far as can be seen. */
  readonly onOpen?: (facts: { readonly isRotated: boolean }) => void;
}

interface LogFile {
  readonly handle: FileHandle;
  readonly inode: bigint;
}

const readBytes = 64 * 1024;
/** The engine cuts lines at 16 KiB, of which JSON makes at most six times as much. What is longer is none of its lines. */
const longestLineBytes = 256 * 1024;
/** While the engine renames its files, none has the newest one's name. */
const renamingMs = 2;
/** Notices of changes can be lost. */
const mostQuietMs = 15_000;
const pollMs = 250;

/** Reads the log of that path and those that were rotated from it (PATH.1 and on). Ends at once where there is none. */
export async function* readLogFiles(path: string, options: FileOptions): AsyncGenerator<FilePart> {
  const { follow, signal } = options;
  const changes = follow ? watchChanges(dirname(path)) : undefined;
  let files: readonly LogFile[] = [];
  // a reader that is let go of need not be asked to end, and files left open end the process when they are collected
  const letGo = () => {
    changes?.close();
    void closeAll(files);
  };
  signal?.addEventListener("abort", letGo, { once: true });
  try {
    files = await openAll(path, signal);
    options.onOpen?.({ isRotated: files.length > 1 });
    // who does not follow is told what was there when it asked, however fast more is written
    const bounds = follow ? undefined : await Promise.all(files.map(({ handle }) => handle.stat()));
    let isFirst = true;
    for (let index = 0; files[index] !== undefined; index += 1) {
      const file = files[index] as LogFile;
      const splitter = createSplitter();
      let position = 0;
      const rest = async function* (): AsyncGenerator<FilePart> {
        const most = bounds?.[index]?.size ?? Number.POSITIVE_INFINITY;
        while (position < most) {
          const length = Math.min(readBytes, most - position);
          const { bytesRead, buffer } = await file.handle.read(
            Buffer.allocUnsafe(length),
            0,
            length,
            position,
          );
          if (bytesRead === 0) return;
          position += bytesRead;
          const lines = splitter(buffer.subarray(0, bytesRead));
          if (lines.length > 0) yield { kind: "lines", lines };
        }
      };
      yield* rest();
      if (index < files.length - 1) continue;
      if (isFirst) yield { kind: "end" };
      isFirst = false;
      if (changes === undefined) return;
      for (;;) {
        signal?.throwIfAborted();
        changes.arm();
        const before = position;
        // once it has lost its name, nothing is written to it any more: what is read after that look is all
        const isNewest = (await inodeOf(path)) === file.inode;
        yield* rest();
        if (!isNewest) break;
        if (position === before) await changes.next(signal);
      }
      const later = await openAll(path, signal);
      const at = later.findIndex(({ inode }) => inode === file.inode);
      const done = [...files, ...later.slice(0, at + 1)];
      files = later.slice(at + 1);
      await closeAll(done);
      if (at < 0 && files.length > 0) yield { kind: "gap" };
      index = -1;
    }
  } catch (error) {
    // of files that were closed under the reading nothing need be said
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener("abort", letGo);
    changes?.close();
    await closeAll(files);
  }
}

/** All files of the log, the oldest first, as they were at one moment; none if there is no such log (any more). */
async function openAll(path: string, signal: AbortSignal | undefined): Promise<readonly LogFile[]> {
  for (;;) {
    signal?.throwIfAborted();
    const files: LogFile[] = [];
    try {
      for (let age = 0; ; age += 1) {
        const handle = await openIfThere(nameOf(path, age));
        if (handle === undefined) break;
        const file = { handle, inode: 0n };
        files.push(file);
        file.inode = (await handle.stat({ bigint: true })).ino;
      }
      const now = await Promise.all(files.map((_, age) => inodeOf(nameOf(path, age))));
      signal?.throwIfAborted();
      if (files.length > 0 && files.every(({ inode }, age) => inode === now[age])) return files.reverse();
    } catch (error) {
      await closeAll(files);
      throw error;
    }
    await closeAll(files);
    if (files.length === 0 && (await inodeOf(dirname(path))) === undefined) return [];
    await sleep(renamingMs);
  }
}

const nameOf = (path: string, age: number) => (age === 0 ? path : `${path}.${age}`);

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  return await open(path, "r").catch(undefinedIfAbsent);
}

async function inodeOf(path: string): Promise<bigint | undefined> {
  return (await stat(path, { bigint: true }).catch(undefinedIfAbsent))?.ino;
}

function undefinedIfAbsent(error: unknown): undefined {
  if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
  throw error;
}

/** Waits for reads that go on. What is closed already is left alone. */
async function closeAll(files: readonly LogFile[]): Promise<void> {
  await Promise.all(files.map(({ handle }) => handle.close()));
}

/** Makes lines, without their ends, of pieces of a file; a line longer than any of the engine's is left out. */
function createSplitter(): (chunk: Buffer) => readonly Buffer[] {
  let rest: readonly Buffer[] = [];
  let restBytes = 0;
  let isTooLong = false;
  return (chunk) => {
    const lines: Buffer[] = [];
    let begin = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, begin)) {
      const line = chunk.subarray(begin, end);
      isTooLong ||= restBytes + line.length > longestLineBytes;
      if (!isTooLong) lines.push(restBytes === 0 ? line : Buffer.concat([...rest, line]));
      [rest, restBytes, isTooLong] = [[], 0, false];
      begin = end + 1;
    }
    const tail = chunk.subarray(begin);
    if (tail.length > 0 && !isTooLong) [rest, restBytes] = [[...rest, tail], restBytes + tail.length];
    if (restBytes > longestLineBytes) [rest, restBytes, isTooLong] = [[], 0, true];
    return lines;
  };
}

interface Changes {
  /** Looks for changes from now on, until there is one: a log that is written to all the time costs one notice for each look. */
  arm(): void;
  /** Resolves at the first change since it was armed, or after a while without one, or at the abort. */
  next(signal: AbortSignal | undefined): Promise<void>;
  close(): void;
}

/** Changes in a directory; where the kernel has no watch left, time is taken for one. */
function watchChanges(directory: string): Changes {
  let isChanged = false;
  let wake: (() => void) | undefined;
  let watcher: FSWatcher | undefined;
  const close = () => {
    watcher?.close();
    watcher = undefined;
  };
  const note = () => {
    isChanged = true;
    close();
    wake?.();
  };
  return {
    arm() {
      isChanged = false;
      if (watcher !== undefined) return;
      try {
        watcher = watch(directory, note);
        watcher.on("error", close);
      } catch {
        // polled
      }
    },
    next: (signal) =>
      new Promise((resolve) => {
        const end = () => {
          clearTimeout(timer);
          signal?.removeEventListener("abort", end);
          wake = undefined;
          resolve();
        };
        const timer = setTimeout(end, watcher === undefined ? pollMs : mostQuietMs);
        signal?.addEventListener("abort", end, { once: true });
        wake = end;
        if (isChanged || signal?.aborted) end();
      }),
    close,
  };
}
