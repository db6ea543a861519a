// What is said to the keeper of a process and what it says, in values. Whatever it says is a stranger's: numbers are bounded
// here, and their order where they are used.

import {
  type Frame,
  frame,
  garbled,
  mostOutputBytes,
  type Reader,
  reader,
  request,
  writer,
} from "../toolbox/protocol.ts";
import type { OutputStream } from "./output-ring.ts";
import type { ExitCause, TerminalSize } from "./record.ts";

export interface KeeperStatus {
  /** Inside the sandbox; 0 once it has ended. */
  readonly pid: number;
  /** By the wall clock. */
  readonly startedAtMs: number;
  readonly oldestSequence: number;
  readonly lastSequence: number;
  readonly outputBytes: number;
  readonly inputOffset: number;
  readonly isInputOpen: boolean;
}

export interface KeeperExit {
  readonly sequence: number;
  readonly exitCode: number;
  readonly signal: number;
  readonly cause: ExitCause;
  readonly durationUs: number;
  readonly userUs: number;
  readonly systemUs: number;
  readonly maxResidentBytes: number;
  readonly exitedAtMs: number;
}

export type KeeperWord =
  | { readonly kind: "status"; readonly status: KeeperStatus }
  | {
      readonly kind: "output";
      readonly sequence: number;
      readonly offset: number;
      readonly stream: OutputStream;
      readonly data: Buffer;
    }
  | { readonly kind: "exit"; readonly exit: KeeperExit }
  | { readonly kind: "taken"; readonly offset: number; readonly isOpen: boolean }
  | { readonly kind: "failed"; readonly errno: number; readonly operation: string }
  | { readonly kind: "error"; readonly errno: number; readonly operation: string; readonly path: string };

/** @throws SandboxdError TOOLBOX_UNAVAILABLE for what a keeper does not say. */
export function wordOf({ type, payload }: Frame): KeeperWord {
  const read = reader(payload);
  switch (type) {
    case frame.status:
      return { kind: "status", status: statusOf(read) };
    case frame.output:
      return outputOf(read);
    case frame.exit:
      return { kind: "exit", exit: exitOf(read) };
    case frame.taken:
      return { kind: "taken", offset: read.u64(), isOpen: read.u8() === 1 };
    case frame.failed:
      return { kind: "failed", errno: read.u32(), operation: read.str() };
    case frame.error:
      return { kind: "error", errno: read.u32(), operation: read.str(), path: read.str() };
    default:
      throw garbled(`a frame of type ${type} from a keeper`);
  }
}

function statusOf(read: Reader): KeeperStatus {
  return {
    pid: Math.min(read.u32(), mostPid),
    startedAtMs: millisecondsOf(read.i64()),
    oldestSequence: read.u64(),
    lastSequence: read.u64(),
    outputBytes: read.u64(),
    inputOffset: read.u64(),
    isInputOpen: read.u8() === 1,
  };
}

const streams: Readonly<Record<number, OutputStream>> = { 1: "stdout", 2: "stderr", 3: "terminal" };

function outputOf(read: Reader): KeeperWord {
  const [sequence, offset, number] = [read.u64(), read.u64(), read.u8()];
  const stream = streams[number];
  const data = read.rest();
  if (stream === undefined) throw garbled(`output of stream ${number}`);
  if (data.length === 0 || data.length > mostOutputBytes) throw garbled(`${data.length} bytes of output`);
  return { kind: "output", sequence, offset, stream, data };
}

const causes: Readonly<Record<number, ExitCause>> = {
  0: "SELF",
  1: "TIMEOUT",
  2: "DISCONNECTED",
  3: "SIGNALED",
};

function exitOf(read: Reader): KeeperExit {
  const sequence = read.u64();
  const isSignaled = read.u8() === 1;
  const status = read.u32();
  if (status > (isSignaled ? mostSignal : mostExitCode)) throw garbled(`an exit status of ${status}`);
  return {
    sequence,
    exitCode: isSignaled ? 128 + status : status,
    signal: isSignaled ? status : 0,
    cause: causes[read.u8()] ?? "UNKNOWN",
    durationUs: read.u64(),
    userUs: read.u64(),
    systemUs: read.u64(),
    maxResidentBytes: read.u64(),
    exitedAtMs: millisecondsOf(read.i64()),
  };
}

const mostSignal = 64;
const mostExitCode = 255;
/** The kernel's own bound. */
const mostPid = 4_194_304;
/** The last moment that the contract's times can hold. */
const lastMs = 253_402_300_799_000;

function millisecondsOf(nanoseconds: bigint): number {
  const ms = Number(nanoseconds) / 1e6;
  return ms >= 0 && ms <= lastMs ? ms : Date.now();
}

export interface KeeperStart {
  readonly id: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir: string;
  readonly hasInput: boolean;
  readonly terminal?: TerminalSize;
  /** 0: none. */
  readonly timeoutMs: number;
  readonly graceMs: number;
  /** 0: never. */
  readonly orphanMs: number;
  readonly retainBytes: number;
  readonly waitMs: number;
}

/** Frames for a keeper, or for the toolbox. */
export const ask = {
  start: (start: KeeperStart): Buffer =>
    request()
      .str(start.id)
      .list(start.command)
      .list(Object.entries(start.env).map(([name, value]) => `${name}=${value}`))
      .str(start.workingDir)
      .u8((start.hasInput ? 1 : 0) + (start.terminal === undefined ? 0 : 2))
      .u16(start.terminal?.rows ?? 0)
      .u16(start.terminal?.columns ?? 0)
      .u64(start.timeoutMs)
      .u32(start.graceMs)
      .u64(start.orphanMs)
      .u32(start.retainBytes)
      .u32(start.waitMs)
      .frame(frame.start),
  attach: (sequence: number): Buffer => request().u64(sequence).frame(frame.attach),
  list: (): Buffer => request().frame(frame.list),
  clear: (id: string): Buffer => request().str(id).frame(frame.clear),
  input: (offset: number, data: Uint8Array): Buffer => writer().u64(offset).bytes(data).frame(frame.input),
  closeInput: (offset: number): Buffer => writer().u64(offset).frame(frame.closeInput),
  resize: ({ rows, columns }: TerminalSize, repaints: boolean): Buffer =>
    writer()
      .u16(rows)
      .u16(columns)
      .u8(repaints ? 1 : 0)
      .frame(frame.resize),
  signal: (signal: number, scope: SignalScope): Buffer =>
    writer().u8(signal).u8(scopes[scope]).frame(frame.signal),
  ack: (sequence: number): Buffer => writer().u64(sequence).frame(frame.ack),
  end: (graceMs: number): Buffer => writer().u32(graceMs).frame(frame.end),
  forget: (): Buffer => writer().frame(frame.forget),
};

export type SignalScope = "PROCESS" | "GROUP" | "TREE";

const scopes = { PROCESS: 0, GROUP: 1, TREE: 2 } as const satisfies Record<SignalScope, number>;
