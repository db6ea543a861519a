// Runs the host's own programs for disks and quotas: for a bounded time, with nothing to type into, in one language.

import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Waiting } from "../../engine/runtime.ts";
import { SandboxdError } from "../../errors.ts";
import { spawned } from "../../spawned.ts";

export interface ToolOptions extends Waiting {
  /** Then it is killed. Default: 30 s. */
  readonly timeoutMs?: number;
}

/** Runs a program of the host. Resolves to its standard output if it exits with 0. Rejects with a ToolError otherwise. */
export type RunTool = (program: string, args: readonly string[], options?: ToolOptions) => Promise<string>;

/** A program that failed, with what it said. */
export class ToolError extends Error {
  readonly program: string;
  /** Undefined if it was killed, or is not there. */
  readonly exitCode: number | undefined;
  /** Its standard error, and whatever it else said; at most 2 KiB. */
  readonly said: string;

  constructor(program: string, exitCode: number | undefined, said: string) {
    super(`${program}: ${said}`);
    this.name = "ToolError";
    this.program = program;
    this.exitCode = exitCode;
    this.said = said;
  }
}

const mostSaid = 2_048;
const mostOutput = 16 * 1_024 * 1_024;
const defaultTimeoutMs = 30_000;
/** How long a program that was killed may take to go before it is given up: one that the kernel holds does not die. */
const killedMs = 2_000;

/** Its environment is the least there can be: what it prints is read. */
const environment = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };

/** The one that runs programs for real. */
export const runTool: RunTool = async (program, args, { signal, timeoutMs = defaultTimeoutMs } = {}) => {
  signal?.throwIfAborted();
  const child = await spawned(
    spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: environment }),
  ).catch((error: NodeJS.ErrnoException) => {
    const why = error.code === "ENOENT" ? "is not on this host" : error.message;
    throw new ToolError(program, undefined, why);
  });
  let output = "";
  let said = "";
  let killed: string | undefined;
  const kill = (why: string) => {
    killed ??= why;
    child.kill("SIGKILL");
  };
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    if (output.length > mostOutput) kill(`it printed more than ${mostOutput} bytes`);
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    if (said.length < mostSaid) said += text;
  });
  const onAbort = () => kill("it was called off");
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted === true) onAbort();
  const timer = setTimeout(() => kill(`it did not end within ${timeoutMs} ms`), timeoutMs);
  const ended = new Promise<number | undefined>((resolve) => {
    child.once("close", (code) => resolve(code ?? undefined));
  });
  try {
    const code = await Promise.race([ended, givenUp(timeoutMs + killedMs)]);
    if (killed !== undefined) throw new ToolError(program, undefined, killed);
    if (code !== 0) throw new ToolError(program, code, wordsOf(said, output));
    return output;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }

  async function givenUp(ms: number): Promise<never> {
    await sleep(ms, undefined, { ref: false });
    child.stdout.destroy();
    child.stderr.destroy();
    child.unref();
    throw new ToolError(program, undefined, killed ?? `it did not end within ${timeoutMs} ms`);
  }
};

function wordsOf(said: string, output: string): string {
  const words = (said.trim() || output.trim()).slice(0, mostSaid).replaceAll(/\s+/g, " ");
  return words === "" ? "it failed and said nothing" : words;
}

/** What went wrong at the host's disks, as an error of the catalogue. */
export function spaceFailed(what: string, cause: unknown): SandboxdError {
  if (cause instanceof SandboxdError) return cause;
  const why = cause instanceof Error ? cause.message : String(cause);
  return new SandboxdError("INTERNAL", `${what}: ${why}`, {
    hint: "CheckHost says what the host's file system for workspaces lacks",
    cause,
  });
}
