// The tree that is unpacked into: where the next entry goes, as a stack of open directories. Archives come in order of the tree,
// so few are opened twice, and nothing has to be remembered of those that were left.

import { closeSync, fchmodSync, fstatSync, futimesSync, lutimesSync, mkdirSync, unlinkSync } from "node:fs";
import { at, errorCode, openDirectory, openOwnDirectory, statAt } from "./directory.ts";
import { refused } from "./names.ts";

/** What a directory gets when it is left: until then its owner must be able to write into it. */
interface Attributes {
  readonly mode: number;
  /** Unit: seconds. */
  readonly mtime: number;
}

interface Level {
  readonly name: string;
  readonly fd: number;
  after: Attributes;
}

export interface UnpackTree {
  /** The directory that these names lead to, made where it is absent; open until the next call. `path` is the entry's, for errors. */
  enter(components: readonly string[], path: string): number;
  /** As enter, and what is in the place of the last of them goes, unless it is a directory. It gets these attributes. */
  makeDirectory(components: readonly string[], path: string, attributes: Attributes): void;
  /** Makes room for something that is no directory. @throws SandboxdError ARCHIVE_REFUSED if a directory is there. */
  makeRoom(directory: number, name: string, path: string): void;
  /** Whether a regular file is there, reached through directories alone. Then its directory is open during `use`. */
  withFile(components: readonly string[], use: (directory: number, name: string) => void): boolean;
  /** Leaves all directories, with their attributes. */
  close(): void;
}

/** `root` is open; it stays so, and as it is. */
export function createUnpackTree(root: number): UnpackTree {
  const levels: Level[] = [];
  const innermost = () => levels.at(-1)?.fd ?? root;

  function leaveUntil(depth: number): void {
    while (levels.length > depth) {
      const level = levels.pop();
      if (level !== undefined) leave(level);
    }
  }

  function step(name: string, path: string): void {
    const parent = innermost();
    if (statAt(parent, name) === undefined) {
      mkdirSync(at(parent, name), { mode: 0o700 });
      const { fd } = openOwnDirectory(parent, name);
      levels.push({ name, fd, after: { mode: 0o755, mtime: Date.now() / 1000 } });
      return;
    }
    try {
      const { fd, mode } = openOwnDirectory(parent, name);
      levels.push({ name, fd, after: { mode, mtime: fstatSync(fd).mtimeMs / 1000 } });
    } catch (error) {
      if (!["ENOTDIR", "ELOOP"].includes(errorCode(error))) throw error;
      throw refused(path, "its path leads through what is no directory, as a symbolic link");
    }
  }

  function enter(components: readonly string[], path: string): number {
    const same = levels.findIndex((level, index) => level.name !== components[index]);
    leaveUntil(same === -1 ? Math.min(levels.length, components.length) : same);
    for (const name of components.slice(levels.length)) step(name, path);
    return innermost();
  }

  return {
    enter,
    makeDirectory(components, path, attributes) {
      const [parents, name] = [components.slice(0, -1), components.at(-1)];
      if (name === undefined) return;
      const isOpen = components.every((one, index) => one === levels[index]?.name);
      if (!isOpen) {
        const parent = enter(parents, path);
        const there = statAt(parent, name);
        if (there !== undefined && !there.isDirectory()) unlinkSync(at(parent, name));
      }
      enter(components, path);
      const level = levels.at(-1);
      if (level !== undefined) level.after = attributes;
    },
    makeRoom(directory, name, path) {
      const there = statAt(directory, name);
      if (there === undefined) return;
      if (there.isDirectory()) throw refused(path, "there is a directory in its place");
      unlinkSync(at(directory, name));
    },
    withFile(components, use) {
      const opened: number[] = [];
      try {
        for (const name of components.slice(0, -1)) opened.push(openDirectory(opened.at(-1) ?? root, name));
        const [directory, name] = [opened.at(-1) ?? root, components.at(-1)];
        if (name === undefined || !statAt(directory, name)?.isFile()) return false;
        use(directory, name);
        return true;
      } catch (error) {
        if (["ENOENT", "ENOTDIR", "ELOOP", "EACCES"].includes(errorCode(error))) return false;
        throw error;
      } finally {
        for (const fd of opened) closeSync(fd);
      }
    },
    close: () => leaveUntil(0),
  };
}

function leave({ fd, after }: Level): void {
  try {
    fchmodSync(fd, after.mode);
    futimesSync(fd, Date.now() / 1000, after.mtime);
  } catch (error) {
    // somebody else's, and writable for all: it stays as it is
    if (errorCode(error) !== "EPERM") throw error;
  } finally {
    closeSync(fd);
  }
}

/** The time of a link itself, or of what is no link. */
export function setTime(directory: number, name: string, mtime: number): void {
  lutimesSync(at(directory, name), Date.now() / 1000, mtime);
}
