// Runs the host's own `nft` and `ip`, for a bounded time.

import { type ChildProcessByStdio, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import type { Readable } from "node:stream";

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

/** The least there can be: what it prints is read. */
const env = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };

/** Runs programs through another one, as one that enters a network namespace. */
export function runWithin(within: readonly string[]): Run {
  return (command, input = "") => run(command[0] ?? "", [...within, ...command], input);
}

async function run(name: string, [program = "", ...args]: readonly string[], input: string): Promise<string> {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], env });
  const output: string[] = [];
  let said = "";
  let isLate = false;
  child.stdout.setEncoding("utf8").on("data", (text: string) => output.push(text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    if (said.length < mostSaid) said += text;
  });
  // one that fails at once reads nothing
  child.stdin.on("error", () => {}).end(input);
  const timer = setTimeout(() => {
    isLate = true;
    child.kill("SIGKILL");
  }, timeoutMs);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once("close", resolve);
      child.once("error", (error: NodeJS.ErrnoException) => {
        reject(error.code === "ENOENT" ? absent(name) : new ProgramError(name, error.message));
      });
    });
    if (isLate) throw new ProgramError(name, `did not end within ${timeoutMs} ms`);
    // what starts programs elsewhere says so by this
    if (code === notFound) throw absent(name);
    if (code !== 0) throw new ProgramError(name, wordsOf(said) || `exited with ${code}`);
    return output.join("");
  } finally {
    clearTimeout(timer);
  }
}

/** The exit code of shells and of `env` and `nsenter` for a program that is not there. */
const notFound = 127;

const absent = (name: string) => new ProgramError(name, "is not on this host", true);

const wordsOf = (said: string) => said.slice(0, mostSaid).trim().replaceAll(/\s+/g, " ");

/** A program that runs until it is killed. It is killed too when this process ends in whatever way, where the host can do that. */
export function spawnLasting(command: readonly string[]): ChildProcessByStdio<null, Readable, null> {
  const canBind = env.PATH.split(":").some((directory) => existsSync(`${directory}/setpriv`));
  const [program = "", ...args] = [...(canBind ? ["setpriv", "--pdeathsig", "KILL", "--"] : []), ...command];
  return spawn(program, args, { stdio: ["ignore", "pipe", "ignore"], env });
}
