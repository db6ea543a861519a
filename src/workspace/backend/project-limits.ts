// The limits of projects, as the kernel keeps them: set and read back with xfs_quota, which speaks to ext4 as well. Of what it says
// only the figures are believed: it ends with 0 after many a failure.

import { statfs } from "node:fs/promises";
import type { Waiting } from "../../engine/runtime.ts";
import { SandboxdError } from "../../errors.ts";
import type { Space, SpaceLimits } from "./backend.ts";
import type { RunTool } from "./tool.ts";

export interface Amounts {
  readonly bytes: number;
  readonly inodes: number;
}

/** Ids of spaces are below, those of their snapshots as much above. */
const snapshotIds = 2 ** 31;

/** The project that a space's content is in. 0 would be everybody's. */
export function idOf({ name, projectId }: Space): number {
  if (Number.isInteger(projectId) && projectId > 0 && projectId < snapshotIds - 1) return projectId;
  throw new Error(`${projectId} cannot be the project of workspace ${name}: it is 1 to ${snapshotIds - 2}`);
}

export const snapshotIdOf = (space: Space): number => idOf(space) + snapshotIds;

export function withInodes({ bytes, inodes }: SpaceLimits): Amounts {
  if (inodes === undefined) throw new Error("a project quota needs a limit of inodes");
  return { bytes, inodes };
}

/** Of one project. */
export interface Account {
  /** 0 is none. */
  readonly limits: Amounts;
  readonly used: Amounts;
}

export interface HoldOptions extends Waiting {
  /** What is in the project: checked to be. */
  readonly folder?: string;
  /** Puts the folder into the project first: everything made in it from then on is. What is in it already is not. */
  readonly isNew?: boolean;
}

export interface ProjectLimits {
  /** Undefined if there is no such project: none of its limits is set, and nothing is in it. */
  read(id: number, options?: Waiting): Promise<Account | undefined>;
  /**
   * Sets the limits and reads them back: one short program. They are held to a block of the file system, rounded down.
   *
   * @throws SandboxdError LIMIT_UNENFORCEABLE if the kernel does not hold them then, or does not hold the folder to them.
   */
  hold(id: number, limits: SpaceLimits, options?: HoldOptions): Promise<Account>;
  /** Takes the limits away. Without anything in it there is no such project then. */
  clear(id: number, options?: Waiting): Promise<void>;
  /**
   * Asks the kernel by statfs(2), which shows the project's figures for its folder: only while limits are held. Undefined if it
   * shows others than these limits, or none that can be told from those of the file system.
   */
  shown(folder: string, limits: SpaceLimits): Promise<Shown | undefined>;
}

export interface Shown {
  /** Undefined while less is free of the file system than of the limits: the kernel shows the smaller one. */
  readonly used: Amounts | undefined;
}

/** `directory` is where a file system with project quotas is mounted. */
export function createProjectLimits(directory: string, run: RunTool): ProjectLimits {
  /** Each command is split at its blanks by the program. Projects that the host's files name are of no concern. */
  async function ask(commands: readonly string[], { signal }: Waiting): Promise<string> {
    const options = signal === undefined ? {} : { signal };
    const args = ["-f", "-x", "-D", "/dev/null", "-P", "/dev/null"];
    return run("xfs_quota", [...args, ...commands.flatMap((one) => ["-c", one]), directory], options);
  }

  return {
    async read(id, options = {}) {
      const output = await ask(["state -p", report(id)], options);
      // without it, nothing was asked of the kernel
      if (!isEnforced(output)) throw notEnforced(directory, output);
      return accountIn(output, id);
    },

    async hold(id, limits, { folder, isNew = false, signal } = {}) {
      const wanted = granted(limits, await blockBytes(directory));
      const commands = [
        `limit -p bhard=${wanted.bytes / 1_024}k ihard=${wanted.inodes} ${id}`,
        "state -p",
        // it finds nothing after the commands on a folder
        report(id),
      ];
      if (folder !== undefined) {
        assertOneWord(folder);
        if (isNew) commands.push(`project -s -d 0 -p ${folder} ${id}`);
        commands.push(`project -c -d 0 -p ${folder} ${id}`);
      }
      const output = await ask(commands, signal === undefined ? {} : { signal });
      if (!isEnforced(output)) throw notEnforced(directory, output);
      const account = accountIn(output, id);
      if (account?.limits.bytes !== wanted.bytes || account.limits.inodes !== wanted.inodes) {
        throw notHeld(id, wanted, output);
      }
      if (folder !== undefined && !isMember(output, id, folder)) throw notMember(id, folder, output);
      return account;
    },

    async clear(id, options = {}) {
      const output = await ask([`limit -p bhard=0 ihard=0 ${id}`, "state -p", report(id)], options);
      const limits = accountIn(output, id)?.limits ?? none;
      if (!isEnforced(output)) throw notEnforced(directory, output);
      if (limits.bytes !== 0 || limits.inodes !== 0) throw notHeld(id, none, output);
    },

    async shown(folder, limits) {
      const whole = await statfs(directory);
      const own = await statfs(folder);
      const wanted = granted(limits, own.bsize);
      if (own.blocks * own.bsize !== wanted.bytes || own.files !== wanted.inodes) return undefined;
      if (own.blocks >= whole.blocks && own.files >= whole.files) return undefined;
      if (own.bfree >= whole.bfree || own.ffree >= whole.ffree) return { used: undefined };
      const used = { bytes: (own.blocks - own.bfree) * own.bsize, inodes: own.files - own.ffree };
      return { used };
    },
  };
}

const none: Amounts = { bytes: 0, inodes: 0 };

/** What the kernel can hold of it: whole blocks, and at least one, as 0 would be no limit. */
function granted({ bytes, inodes }: SpaceLimits, block: number): Amounts {
  const unit = Math.max(block, 1_024);
  const whole = Math.floor(bytes / unit) * unit;
  if (whole > 0 && inodes !== undefined && inodes > 0) return { bytes: whole, inodes };
  throw new SandboxdError(
    "LIMIT_UNENFORCEABLE",
    `${bytes} bytes and ${inodes ?? "any number of"} inodes cannot be held by a project quota`,
    { hint: `it needs ${unit} bytes and 1 inode at least` },
  );
}

async function blockBytes(directory: string): Promise<number> {
  return (await statfs(directory)).bsize;
}

function assertOneWord(path: string): void {
  if (/\s/.test(path))
    throw new Error(`${JSON.stringify(path)} has a blank in it, which xfs_quota cannot take`);
}

/** Of this project alone: numbers, in units of 1 KiB, without a heading. */
const report = (id: number): string => `report -p -n -N -b -i -L ${id} -U ${id}`;

/** `#7  USED SOFT HARD 00 [GRACE]  USED SOFT HARD 00 [GRACE]`: blocks, then inodes. */
function accountIn(output: string, id: number): Account | undefined {
  const kind = String.raw`\s+(\d+)\s+\d+\s+(\d+)\s+\d+\s+\[[^\]]*\]`;
  const figures = new RegExp(`^#${id}${kind}${kind}\\s*$`, "m").exec(output)?.slice(1).map(Number);
  if (figures === undefined) return undefined;
  const [usedKib = 0, hardKib = 0, usedInodes = 0, hardInodes = 0] = figures;
  return {
    limits: { bytes: hardKib * 1_024, inodes: hardInodes },
    used: { bytes: usedKib * 1_024, inodes: usedInodes },
  };
}

/** It must count, and refuse what exceeds. */
export function isEnforced(output: string): boolean {
  return /^\s*Accounting: ON$/m.test(output) && /^\s*Enforcement: ON$/m.test(output);
}

/** The check names what it looked at, and then only what is wrong with it. */
function isMember(output: string, id: number, folder: string): boolean {
  const lines = output.split("\n");
  const isChecked = lines.includes(`Checking project ${id} (path ${folder})...`);
  return isChecked && !lines.some((line) => line.startsWith(`${folder} - `));
}

function notEnforced(directory: string, output: string): SandboxdError {
  return new SandboxdError(
    "LIMIT_UNENFORCEABLE",
    `the file system of ${directory} does not enforce project quotas${saying(output)}`,
    { hint: "it must be mounted with the option prjquota" },
  );
}

function notHeld(id: number, { bytes, inodes }: Amounts, output: string): SandboxdError {
  const limits = accountIn(output, id)?.limits ?? none;
  const held = `${limits.bytes} bytes and ${limits.inodes} inodes`;
  return new SandboxdError(
    "LIMIT_UNENFORCEABLE",
    `project ${id} cannot have ${bytes} bytes and ${inodes} inodes, the kernel holds ${held}${saying(output)}`,
    { hint: "xfs_quota must be run by root, with the capability SYS_ADMIN" },
  );
}

function notMember(id: number, folder: string, output: string): SandboxdError {
  return new SandboxdError(
    "LIMIT_UNENFORCEABLE",
    `${folder} is not in project ${id}, so that what is in it is not held to its limits${saying(output)}`,
    {
      hint: `if it was brought back by a copy, put all of it there: xfs_quota -x -c 'project -s -p ${folder} ${id}'`,
    },
  );
}

/** What the program said, where it is not what it should have. */
function saying(output: string): string {
  const words = output.trim().replaceAll(/\s+/g, " ").slice(0, 512);
  return words === "" ? ": xfs_quota said nothing" : `: xfs_quota said ${words}`;
}
