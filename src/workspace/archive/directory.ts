// Steps in a directory tree that somebody else may change at the same time: each is one name relative to a directory that is
// open, and never through a symbolic link. Node has no openat(2); /proc/self/fd/N/NAME is the same thing.

import { chmodSync, closeSync, constants, fstatSync, lstatSync, openSync } from "node:fs";

const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;

/** Opens a place without its content, so it needs no permission on it; open(2). Node does not name it. */
const O_PATH = 0o10000000;

/** A name in an open directory, for any call that takes a path. Only the last step is left to that call. */
export function at(directory: number, name: string): Buffer {
  return Buffer.from(`/proc/self/fd/${directory}/${name}`, "latin1");
}

/** The open directory itself. */
export function itself(directory: number): string {
  return `/proc/self/fd/${directory}`;
}

/** @throws Error ENOTDIR or ELOOP where it is something else, a link to a directory included. */
export function openDirectory(parent: number, name: string): number {
  return openSync(at(parent, name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

/** Also one that its owner shut for itself: it is opened up for that. */
export function openOwnDirectory(
  parent: number,
  name: string,
): { readonly fd: number; readonly mode: number } {
  const place = openSync(at(parent, name), O_PATH | O_DIRECTORY | O_NOFOLLOW);
  try {
    const mode = fstatSync(place).mode & 0o777;
    if ((mode & 0o700) !== 0o700) chmodSync(itself(place), mode | 0o700);
    return { fd: openSync(itself(place), O_RDONLY | O_DIRECTORY), mode };
  } finally {
    closeSync(place);
  }
}

/** What is there under the name, not what it may point to. Undefined if there is nothing. */
export function statAt(directory: number, name: string) {
  return lstatSync(at(directory, name), { bigint: true, throwIfNoEntry: false });
}

export function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
