// Workspaces as archives: tar.zst out of a directory, and tar or tar.zst into one. The work is done by a program of its own (archive-program.ts)
// as the tenant's user, so that neither a hostile archive nor a hostile tree meets anything of the daemon's. Here it is started,
// fed, bounded and ended.

import { type ChildProcess, spawn } from "node:child_process";
import { extname, join } from "node:path";
import { Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { SandboxdError } from "../../errors.ts";
import { printable } from "./names.ts";
import { decodeOutcome, mostOutcomeBytes, type Outcome, outcomeDescriptor, type Work } from "./outcome.ts";
import type { PackReport } from "./pack.ts";
import type { UnpackReport } from "./unpack.ts";

export type { PackReport, UnpackReport };

export interface ExportOptions {
  /** The tenant's; directories above it must be root's alone. */
  readonly directory: string;
  /** Who owns it, and as whom it is read. */
  readonly uid: number;
  /** Most bytes before the compression. Default: any number. */
  readonly maxBytes?: number | undefined;
  /** Aborting kills the program at once. */
  readonly signal?: AbortSignal | undefined;
  /** Told after the last bytes, and not if it fails. */
  readonly onReport?: (report: PackReport) => void;
}

export interface ImportOptions {
  readonly directory: string;
  /** Who is to own all that is unpacked, and as whom it is written. */
  readonly uid: number;
  /** Most bytes of files. */
  readonly maxBytes: number;
  readonly maxEntries: number;
  /** The archive. It is not read faster than it is unpacked, and no further once it is refused. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Aborting kills the program at once; what it has unpacked stays. */
  readonly signal?: AbortSignal | undefined;
}

/** Bundled or not, it lies beside this file and is of the same kind. */
const ownProgram = join(import.meta.dirname, `archive-program${extname(import.meta.filename)}`);

/** Unit: MiB. What else it takes is what zstd and Node themselves need. */
const heapMiB = 64;

const mostComplaintBytes = 4096;

/**
 * The archive in pieces of at most 64 KiB, made as fast as they are taken. Who stops early ends the program.
 *
 * @throws SandboxdError ARCHIVE_TOO_LARGE; ARCHIVE_REFUSED for what could not be unpacked again; INTERNAL. What came before is no
 * whole archive then.
 */
export async function* exportArchive(options: ExportOptions): AsyncGenerator<Uint8Array, void, undefined> {
  const { signal, onReport, directory, uid, maxBytes } = options;
  const program = start({ task: "pack", directory, uid, maxBytes }, signal);
  try {
    yield* program.output;
    const { bytes = 0, entries = 0, unreadable = 0, special = 0 } = await program.counts;
    onReport?.({ bytes, entries, unreadable, special });
  } finally {
    await program.kill();
  }
}

/**
 * Resolves when all is unpacked.
 *
 * @throws SandboxdError ARCHIVE_REFUSED, ARCHIVE_TOO_LARGE, INTERNAL; what `chunks` throws. What was unpacked before stays.
 */
export async function importArchive({ chunks, signal, ...rest }: ImportOptions): Promise<UnpackReport> {
  const { directory, uid, maxBytes, maxEntries } = rest;
  const program = start({ task: "unpack", directory, uid, maxBytes, maxEntries }, signal);
  program.output.resume();
  try {
    // one that was refused ends before its input does: waiting for both would be waiting for the sender
    const { bytes = 0, entries = 0 } = await Promise.race([program.counts, failureOf(chunks, program.input)]);
    return { bytes, entries };
  } finally {
    await program.kill();
  }
}

/** Hands on all chunks. Settles only when they fail themselves: whatever else goes wrong, the program tells. */
function failureOf(chunks: AsyncIterable<Uint8Array>, input: Writable): Promise<never> {
  return new Promise((_resolve, reject) => {
    pipeline(Readable.from(watched(chunks, reject)), input).catch(() => {});
  });
}

/** The same chunks; only what they throw is told, not what becomes of them. */
async function* watched(chunks: AsyncIterable<Uint8Array>, onFailure: (error: unknown) => void) {
  const iterator = chunks[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await iterator.next().catch((error) => {
        onFailure(error);
        throw error;
      });
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    await iterator.return?.();
  }
}

interface Program {
  readonly input: Writable;
  readonly output: Readable;
  /** Rejects with why it failed. */
  readonly counts: Promise<Readonly<Record<string, number>>>;
  /** Resolves when it is gone. */
  kill(): Promise<void>;
}

/** How a process ended. */
interface End {
  readonly code: number | null;
  readonly killedBy: string | null;
  /** Why it could not be started. */
  readonly problem?: Error;
}

/** It gets nothing of our environment, which may hold secrets. */
function start(work: Work, signal: AbortSignal | undefined): Program {
  signal?.throwIfAborted();
  const child = spawn(
    process.execPath,
    [`--max-old-space-size=${heapMiB}`, ownProgram, JSON.stringify(work)],
    {
      cwd: "/",
      env: { LANG: "C", UV_THREADPOOL_SIZE: "2" },
      stdio: ["pipe", "pipe", "pipe", "pipe"],
    },
  );
  const ended = endOf(child);
  // one that could not be started may have none
  const input = child.stdin ?? new Writable();
  const output = child.stdout ?? Readable.from([]);
  const complaint = startOf(child.stderr, mostComplaintBytes);
  const line = startOf(child.stdio?.[outcomeDescriptor], mostOutcomeBytes);
  // a program that has ended reads no more; how it ended is told below
  input.on("error", () => {});
  const onAbort = () => child.kill("SIGKILL");
  signal?.addEventListener("abort", onAbort, { once: true });
  const counts = ended.then((end) => {
    signal?.removeEventListener("abort", onAbort);
    signal?.throwIfAborted();
    return countsOf(decodeOutcome(line()), end, complaint());
  });
  // for who has stopped asking
  counts.catch(() => {});
  return {
    input,
    output,
    counts,
    async kill() {
      child.kill("SIGKILL");
      input.destroy();
      output.destroy();
      await ended;
    },
  };
}

/** Settled when its output is closed, too. */
function endOf(child: ChildProcess): Promise<End> {
  return new Promise((resolve) => {
    child.on("error", (problem) => resolve({ code: null, killedBy: null, problem }));
    child.on("close", (code, killedBy) => resolve({ code, killedBy }));
  });
}

/** What a stream began with, so far; the rest is read and dropped. */
function startOf(stream: unknown, most: number): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  if (stream instanceof Readable)
    stream.on("data", (chunk: Buffer) => {
      if (bytes < most) chunks.push(chunk.subarray(0, most - bytes));
      bytes += chunk.length;
    });
  return () => Buffer.concat(chunks).toString();
}

/** @throws SandboxdError what the program says, or INTERNAL where it could not say anything. */
function countsOf(outcome: Outcome | undefined, { code, killedBy, problem }: End, complaint: string) {
  if (problem !== undefined)
    throw new SandboxdError("INTERNAL", "the archive program could not be started", { cause: problem });
  if (outcome !== undefined && "error" in outcome) throw outcome.error;
  if (outcome !== undefined && code === 0) return outcome.counts;
  const how = killedBy === null ? `ended with ${code}` : `was ended by ${killedBy}`;
  throw new SandboxdError("INTERNAL", `the archive program ${how} before its work was done`, {
    metadata: killedBy === null ? { exitCode: `${code}` } : { signal: killedBy },
    cause: new Error(printable(complaint, mostComplaintBytes)),
  });
}
