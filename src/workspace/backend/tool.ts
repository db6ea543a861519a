// Runs the host's own programs for disks and quotas: for a bounded time, with nothing to type into, in one language.

import type { Waiting } from "../../engine/runtime.ts";
import { messageOf, SandboxdError } from "../../errors.ts";
import { runProgram } from "../../programs.ts";

export interface ToolOptions extends Waiting {
  /** Then it is killed. Default: 30 s. */
  readonly timeoutMs?: number;
}

/** Runs a program of the host. Resolves to its standard output if it exits with 0. Rejects with a ToolError otherwise. */
export type RunTool = (program: string, args: readonly string[], options?: ToolOptions) => Promise<string>;

/** A program that failed, with what it said. */
export class ToolError extends Error {
  readonly program: string;
  /** Undefined if it was killed by the daemon, or is not there. */
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
const defaultTimeoutMs = 30_000;

/** The one that runs programs for real. */
export const runTool: RunTool = async (program, args, { signal, timeoutMs = defaultTimeoutMs } = {}) => {
  signal?.throwIfAborted();
  const end = await runProgram([program, ...args], { signal, timeoutMs }).catch((error: unknown) => {
    throw new ToolError(program, undefined, messageOf(error));
  });
  const { code, output, said } = end;
  if (code === 127) throw new ToolError(program, undefined, "is not on this host");
  if (code !== 0) throw new ToolError(program, code, wordsOf(said, output));
  return output;
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
