// Puts the toolbox onto the host: one directory for each version below the state directory, which sandboxes are shown. What is
// there is mounted into running containers, so a directory is never exchanged for another, and goes only when no sandbox is of it.

import { createHash } from "node:crypto";
import {
  chmodSync,
  closeSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { ToolboxMount } from "../engine/container-plan.ts";
import { messageOf, SandboxdError } from "../errors.ts";

export interface Toolbox {
  /** The version that new sandboxes get: the beginning of its hash. Undefined if it could not be installed. */
  version(): string | undefined;
  /** Why there is none, or why it is gone. */
  problem(): string | undefined;
  /** @throws SandboxdError HARDENING_MISMATCH if that version is gone, or no longer what it was. */
  at(version: string): ToolboxMount;
  /** Removes the versions that nobody has. */
  tidy(isInUse: (version: string) => boolean): void;
}

export interface ToolboxOptions {
  /** The program, as it was built. */
  readonly program: string;
  /** Where versions are kept. */
  readonly directory: string;
  /** Name of the engine's volume that shows a version. */
  readonly volumeOf: (version: string) => string;
}

const versionShape = /^[0-9a-f]{16}$/;

/** Installs it if it is not there. Does not fail: `problem` tells. */
export function installToolbox({ program, directory, volumeOf }: ToolboxOptions): Toolbox {
  let installed: { readonly version: string } | { readonly problem: string };
  try {
    installed = { version: install(program, directory) };
  } catch (error) {
    installed = { problem: messageOf(error) };
  }
  const version = "version" in installed ? installed.version : undefined;
  function at(wanted: string): ToolboxMount {
    const source = join(directory, wanted);
    try {
      const found = lstatSync(source);
      if (versionShape.test(wanted) && found.isDirectory())
        return { volume: volumeOf(wanted), source, identity: { device: found.dev, inode: found.ino } };
    } catch (error) {
      throw gone(wanted, messageOf(error));
    }
    throw gone(wanted, `${source} is no directory`);
  }

  function problem(): string | undefined {
    if ("problem" in installed) return installed.problem;
    try {
      lstatSync(join(at(installed.version).source, "toolbox"));
      return undefined;
    } catch (error) {
      return messageOf(error);
    }
  }

  return {
    version: () => version,
    problem,
    at,
    tidy(isInUse) {
      for (const name of listOf(directory)) {
        if (versionShape.test(name) && name !== version && !isInUse(name))
          rmSync(join(directory, name), { recursive: true, force: true });
      }
    },
  };
}

/** Each step may have been done before, wholly or in part. */
function install(program: string, directory: string): string {
  const bytes = readFileSync(program);
  const hash = hashOf(bytes);
  const version = hash.slice(0, 16);
  const place = join(directory, version);
  makeDirectory(directory, 0o755);
  makeDirectory(place, 0o755);
  // older runtimes give what is mounted there its mode
  makeDirectory(join(place, "run"), 0o700);
  const file = join(place, "toolbox");
  // beside the versions, where no sandbox sees it; one that a crash left is written over
  if (!isProgram(file, hash)) writeProgram(file, bytes, join(directory, ".new"));
  return version;
}

function makeDirectory(path: string, mode: number): void {
  mkdirSync(path, { recursive: true });
  // whatever the umask is
  chmodSync(path, mode);
}

function isProgram(file: string, hash: string): boolean {
  try {
    const found = lstatSync(file);
    return found.isFile() && (found.mode & 0o7777) === 0o755 && hashOf(readFileSync(file)) === hash;
  } catch {
    return false;
  }
}

/** Whole or not at all, also after a loss of power. */
function writeProgram(file: string, bytes: Buffer, temporary: string): void {
  try {
    writeFileSync(temporary, bytes);
    chmodSync(temporary, 0o755);
    sync(temporary);
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

function sync(file: string): void {
  const descriptor = openSync(file, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

const hashOf = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

function listOf(directory: string): readonly string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function gone(version: string, why: string): SandboxdError {
  return new SandboxdError("HARDENING_MISMATCH", `version ${version} of the toolbox is gone: ${why}`, {
    hint: "delete the sandbox and create it again: it gets the version that the daemon has now",
  });
}
