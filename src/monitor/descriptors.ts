// Kernel files that stay open. Opening costs far more than reading, so each is opened once and read again from
// position 0, all into one buffer: the readers are synchronous and never need two contents at a time.
import { closeSync, openSync, readSync } from "node:fs";

/** Holds the file read last, until the next read. Large enough for every kernel file that is read here. */
export const page: Buffer = Buffer.alloc(256 * 1024);

/** A cgroup file that must have content was empty: the kernel is taking the cgroup away. */
class CgroupEmptyError extends Error {
  override readonly name = "CgroupEmptyError";
}

/** An owner of open files. */
export interface Descriptors {
  /** Opens for reading. On any error everything opened so far is closed, and the system's error thrown. */
  open(path: string): number;
  /** As open, but undefined for a file that does not exist or that its driver doesn't serve. */
  openIfPresent(path: string): number | undefined;
  /** Closes all. May be called again. */
  close(): void;
}

export function keepDescriptors(): Descriptors {
  let open: number[] = [];
  function close(): void {
    const closing = open;
    open = [];
    for (const descriptor of closing) {
      closeSync(descriptor);
    }
  }
  function openOne(path: string): number {
    const descriptor = openSync(path, "r");
    open.push(descriptor);
    return descriptor;
  }
  return {
    open(path) {
      try {
        return openOne(path);
      } catch (error) {
        close();
        throw error;
      }
    },
    openIfPresent(path) {
      try {
        return openOne(path);
      } catch (error) {
        if (isGone(error) || codeOf(error) === "EOPNOTSUPP") {
          return undefined;
        }
        close();
        throw error;
      }
    },
    close,
  };
}

/** Reads a file that the kernel hands out in one piece (all cgroup files) into `page`. Returns its length in bytes. */
export function readOnce(descriptor: number): number {
  return readSync(descriptor, page, 0, page.length, 0);
}

/** As readOnce, for a file that is never empty while its cgroup lives. */
export function readContent(descriptor: number): number {
  const length = readSync(descriptor, page, 0, page.length, 0);
  if (length === 0) {
    throw new CgroupEmptyError(`cgroup file on descriptor ${descriptor} is empty`);
  }
  return length;
}

/** Reads a file of many records, which the kernel hands out about a page at a time, into `page`. */
export function readWhole(descriptor: number): number {
  let length = 0;
  while (length < page.length) {
    const read = readSync(descriptor, page, length, page.length - length, length);
    if (read === 0) {
      break;
    }
    length += read;
  }
  return length;
}

/** Whether an error says that the thing read no longer exists (ENODEV: a kept descriptor of a removed cgroup). */
export function isGone(error: unknown): boolean {
  const code = codeOf(error);
  return code === "ENODEV" || code === "ENOENT" || code === "ESRCH" || error instanceof CgroupEmptyError;
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
