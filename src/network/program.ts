// Runs the host's own programs for networks: for a bounded time, in one language, with a list of what they are to do as input.

import { type ChildProcessByStdio, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { messageOf } from "../errors.ts";
import { runProgram } from "../programs.ts";

/** Runs a program with its arguments. Resolves to what it printed if it exits with 0. Rejects with a ProgramError otherwise. */
export type Run = (command: readonly string[], input?: string) => Promise<string>;

/** A program that failed, with what it said. */
export class ProgramError extends Error {
  /** Whether it is not on this host. */
  readonly isAbsent: boolean;

  constructor(program: string, said: string, isAbsent = false) {
    super(`${program}: ${said}`);
    this.name = "ProgramError";
    this.isAbsent = isAbsent;
  }
}

const timeoutMs = 30_000;
const mostSaid = 1_024;

const directories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/** The least there can be: what they print is read. */
const env = { PATH: directories.join(":"), LC_ALL: "C" };

/** The one that runs programs where this process is. */
export const runHere: Run = runWithin([]);

/** Runs programs through another one, as one that enters a network namespace. */
export function runWithin(within: readonly string[]): Run {
  return (command, input = "") => run(command[0] ?? "", [...within, ...command], input);
}

/** Those of the programs that this host does not have. */
export function missingOf(programs: readonly string[]): readonly string[] {
  return programs.filter((name) => !isHere(name));
}

const isHere = (name: string) => directories.some((directory) => existsSync(join(directory, name)));

async function run(name: string, command: readonly string[], input: string): Promise<string> {
  const { code, output, said } = await runProgram(command, { input, timeoutMs }).catch((error: unknown) => {
    throw new ProgramError(name, messageOf(error));
  });
  // what starts programs elsewhere says so by this, too
  if (code === notFound) throw new ProgramError(name, "is not on this host", true);
  if (code !== 0) throw new ProgramError(name, wordsOf(said) || `exited with ${code}`);
  return output;
}

/** The exit code of shells and of `env` and `nsenter` for a program that is not there. */
const notFound = 127;

const wordsOf = (said: string) => said.slice(0, mostSaid).trim().replaceAll(/\s+/g, " ");

/** A program that runs until it is killed. It is killed too when this process ends in whatever way, where the host can do that. */
export function spawnLasting(command: readonly string[]): ChildProcessByStdio<null, Readable, null> {
  const [program = "", ...args] = [
    ...(isHere("setpriv") ? ["setpriv", "--pdeathsig", "KILL", "--"] : []),
    ...command,
  ];
  return spawn(program, args, { stdio: ["ignore", "pipe", "ignore"], env });
}
