// Programs of the host, begun by shells that wait for it. To begin one itself, the daemon is copied first, and its tables of
// pages alone take some 5 ms in which it does nothing else; a shell takes a tenth of that (docs/performance.md, "Programs").

import { type ChildProcessByStdio, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { on, once } from "node:events";
import type { Socket } from "node:net";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { spawned } from "./spawned.ts";

export interface ProgramOptions {
  /** What it reads; a last line is ended. Default: nothing. */
  readonly input?: string;
  /** Then it is killed, with all that it has started. */
  readonly timeoutMs: number;
  /** Kills it as well. */
  readonly signal?: AbortSignal | undefined;
  /** Characters that it may print on either stream before it is killed. Default: 16 Mi. */
  readonly mostOutput?: number;
}

export interface ProgramEnd {
  /** 127: there is no such program. Of one that a signal has ended, 128 and its number. */
  readonly code: number;
  readonly output: string;
  /** Its standard error. */
  readonly said: string;
}

/** It did not end in its time, and was killed. */
export class ProgramLate extends Error {
  constructor(timeoutMs: number) {
    super(`did not end within ${timeoutMs} ms`);
    this.name = "ProgramLate";
  }
}

type Shell = ChildProcessByStdio<Writable, Readable, Readable>;

/** Of every program: the least there can be, as what they print is read. */
const env = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };

const usualOutput = 16 * 1_024 * 1_024;
/** How long one that was killed may take to go before it is given up: what the kernel holds does not die. */
const killedMs = 2_000;
/** Shells that are kept for what comes; each takes less than 1 MB. */
const mostIdle = 2;
const idle = new Set<Shell>();

/**
 * Runs a program with its arguments until it has ended, however it ended. Rejects if it was killed for its time, its output or
 * the signal, if it could not be begun, and if its end is not known: whether it has done anything is not known then either.
 */
export async function runProgram(command: readonly string[], options: ProgramOptions): Promise<ProgramEnd> {
  options.signal?.throwIfAborted();
  // a shell would leave it out
  if ([...command, options.input ?? ""].some((text) => text.includes("\0"))) {
    throw new Error("a word or the input has a NUL");
  }
  const shell = [...idle].at(-1) ?? (await openShell());
  idle.delete(shell);
  holdProcess(shell, true);
  try {
    const end = await runIn(shell, command, options);
    if (idle.size < mostIdle && isAlive(shell)) idle.add(shell);
    else shell.stdin.end();
    return end;
  } catch (error) {
    await killAll(shell);
    throw error;
  } finally {
    holdProcess(shell, false);
  }
}

async function openShell(): Promise<Shell> {
  // a group of its own, which can be killed as a whole
  const shell = await spawned(
    spawn("sh", [], { cwd: "/", env, stdio: ["pipe", "pipe", "pipe"], detached: true }),
  );
  // that it takes nothing any more is told by its end
  shell.stdin.on("error", () => {});
  for (const stream of [shell.stdout, shell.stderr]) stream.setEncoding("utf8");
  shell.once("exit", () => idle.delete(shell));
  return shell;
}

const isAlive = ({ exitCode, signalCode }: Shell) => exitCode === null && signalCode === null;

/** Whether this process waits for the shell before it ends. */
function holdProcess(shell: Shell, isHeld: boolean): void {
  // pipes of programs are sockets to Node
  const pipes = [shell.stdin, shell.stdout, shell.stderr] as readonly unknown[] as readonly Socket[];
  for (const one of [shell, ...pipes]) {
    if (isHeld) one.ref();
    else one.unref();
  }
}

async function runIn(
  shell: Shell,
  command: readonly string[],
  { input = "", timeoutMs, signal, mostOutput = usualOutput }: ProgramOptions,
): Promise<ProgramEnd> {
  const token = randomBytes(8).toString("hex");
  const over = new AbortController();
  const stopped = Promise.race([
    shellEnd(shell, over.signal),
    sleep(timeoutMs, new ProgramLate(timeoutMs), { signal: over.signal }),
    ...(signal === undefined ? [] : [aborted(signal, over.signal)]),
  ]).then((why) => {
    throw why;
  });
  try {
    const read = (stream: Readable) => untilMark(stream, token, mostOutput, over.signal);
    const told = Promise.all([read(shell.stdout), read(shell.stderr)]);
    shell.stdin.write(scriptOf(command, input, token));
    const [output, said] = await Promise.race([told, stopped]);
    return { code: Number(output.status), output: output.text, said: said.text };
  } finally {
    stopped.catch(() => {});
    over.abort();
  }
}

/** The program, and then a mark of its end on both streams. */
function scriptOf(command: readonly string[], input: string, token: string): string {
  const words = command.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  const source = input === "" ? "</dev/null" : `<<'${token}'\n${input.replace(/\n$/, "")}\n${token}`;
  return `${words} ${source}
set -- $?
printf '\\n%s %d\\n' ${token} $1
printf '\\n%s %d\\n' ${token} $1 >&2
`;
}

/** What comes before the mark, and the exit code in it. */
async function untilMark(stream: Readable, token: string, most: number, signal: AbortSignal) {
  const mark = new RegExp(`\\n${token} (\\d+)\\n$`);
  let text = "";
  for await (const [piece] of on(stream, "data", { signal })) {
    text += piece;
    const [whole = "", status] = mark.exec(text.slice(-(token.length + 8))) ?? [];
    if (status !== undefined) return { text: text.slice(0, -whole.length), status };
    if (text.length > most) throw new Error(`printed more than ${most} characters`);
  }
  throw new Error("its shell has closed a stream");
}

async function shellEnd(shell: Shell, signal: AbortSignal): Promise<Error> {
  const [code, name] = await once(shell, "close", { signal });
  return new Error(`its shell ended with ${code ?? name}`);
}

async function aborted(signal: AbortSignal, over: AbortSignal): Promise<Error> {
  if (!signal.aborted) await once(signal, "abort", { signal: over });
  return new Error("was called off");
}

/** Resolves once the shell and all that it runs have gone, or are given up. */
async function killAll(shell: Shell): Promise<void> {
  // once it was waited for, its number can be another's
  if (isAlive(shell) && shell.pid !== undefined) {
    const closed = once(shell, "close");
    process.kill(-shell.pid, "SIGKILL");
    await Promise.race([closed, sleep(killedMs, undefined, { ref: false })]);
  }
  for (const pipe of [shell.stdin, shell.stdout, shell.stderr]) pipe.destroy();
}
