// The real sandboxctl as a child process, against a daemon of a test.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

/** Its launcher. */
export const program = fileURLToPath(new URL("../../bin/sandboxctl", import.meta.url));

/** What a program that should end by itself may take. */
const patienceMs = 30_000;

export interface CtlResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly bytes: Buffer;
}

export interface CtlOptions {
  readonly input?: string | Buffer;
  readonly env?: Readonly<Record<string, string>>;
}

/** A sandboxctl that runs. */
export interface Ctl {
  readonly pid: number;
  readonly stdin: NodeJS.WritableStream;
  /** What it wrote so far. */
  stdout(): string;
  stderr(): string;
  kill(signal: NodeJS.Signals): void;
  /** Stops reading what it writes, until resume. */
  pause(): void;
  resume(): void;
  /** Takes the other end of its standard output away. */
  closeOutput(): void;
  readonly ended: Promise<CtlResult>;
}

/** Starts it; its standard input stays open. */
export function startCtl(args: readonly string[], env: Readonly<Record<string, string>> = {}): Ctl {
  const child = spawn(program, args, { stdio: "pipe", env: { ...process.env, ...env } });
  const [out, err]: [Buffer[], Buffer[]] = [[], []];
  child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => err.push(chunk));
  // it may end before it has read all
  child.stdin.on("error", () => {});
  const text = (chunks: readonly Buffer[]) => Buffer.concat(chunks).toString();
  const ended = new Promise<CtlResult>((resolve) => {
    const timer = setTimeout(() => child.kill("SIGKILL"), patienceMs);
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout: text(out), stderr: text(err), bytes: Buffer.concat(out) });
    });
  });
  return {
    pid: child.pid ?? 0,
    stdin: child.stdin,
    stdout: () => text(out),
    stderr: () => text(err),
    kill: (signal) => void child.kill(signal),
    pause: () => void child.stdout.pause(),
    resume: () => void child.stdout.resume(),
    closeOutput: () => void child.stdout.destroy(),
    ended,
  };
}

/** Runs it to its end. */
export async function ctl(
  args: readonly string[],
  { input = "", env = {} }: CtlOptions = {},
): Promise<CtlResult> {
  const started = startCtl(args, env);
  started.stdin.end(input);
  return await started.ended;
}
