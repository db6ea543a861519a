// The words of the protocol that is spoken with the toolbox inside of a sandbox: docker/toolbox/PROTOCOL.md. Whatever is read from
// there is a stranger's: every length and every number is checked.

import { SandboxdError } from "../errors.ts";

const protocolVersion = 1;

/** Of a frame's type and payload. */
export const mostFrameBytes = 262_208;
/** Of data in one frame of a process. */
export const mostOutputBytes = 65_536;
/** Of data in one frame of a file. */
export const mostDataBytes = 262_144;

/** Types of frames. */
export const frame = {
  error: 0x00,
  done: 0x01,
  ping: 0x10,
  start: 0x11,
  attach: 0x12,
  list: 0x13,
  clear: 0x14,
  forward: 0x15,
  connect: 0x16,
  pong: 0x20,
  held: 0x21,
  status: 0x22,
  output: 0x23,
  exit: 0x24,
  taken: 0x25,
  failed: 0x26,
  input: 0x30,
  closeInput: 0x31,
  resize: 0x32,
  signal: 0x33,
  ack: 0x34,
  end: 0x35,
  forget: 0x36,
  info: 0x40,
  data: 0x41,
  eof: 0x42,
  more: 0x43,
  ready: 0x44,
  change: 0x45,
  overflow: 0x46,
  entry: 0x47,
  infos: 0x48,
  stat: 0x50,
  listDirectory: 0x51,
  makeDirectory: 0x52,
  move: 0x53,
  remove: 0x54,
  read: 0x55,
  write: 0x56,
  watch: 0x57,
  treeRead: 0x58,
  treeWrite: 0x59,
} as const;

export interface Frame {
  readonly type: number;
  readonly payload: Buffer;
}

/** What was said is not of the protocol: by a program of the sandbox's that took the toolbox's place. */
export function garbled(what: string): SandboxdError {
  return new SandboxdError(
    "TOOLBOX_UNAVAILABLE",
    `what answers inside of the sandbox is not the toolbox: ${what}`,
    {
      hint: "a program in the sandbox took its place; restart the sandbox",
    },
  );
}

export interface Writer {
  u8(value: number): Writer;
  u16(value: number): Writer;
  u32(value: number): Writer;
  u64(value: number | bigint): Writer;
  i64(value: number | bigint): Writer;
  /** Text as UTF-8, or bytes as they are. */
  str(value: string | Uint8Array): Writer;
  list(values: readonly (string | Uint8Array)[]): Writer;
  /** Bytes without a length: the rest of the frame. */
  bytes(value: Uint8Array): Writer;
  /** The whole frame, as it is sent. */
  frame(type: number): Buffer;
}

export function writer(): Writer {
  const parts: Uint8Array[] = [];
  const fixed = (size: number, fill: (buffer: Buffer) => void) => {
    const buffer = Buffer.allocUnsafe(size);
    fill(buffer);
    parts.push(buffer);
    return self;
  };
  const self: Writer = {
    u8: (value) => fixed(1, (buffer) => buffer.writeUInt8(value)),
    u16: (value) => fixed(2, (buffer) => buffer.writeUInt16LE(value)),
    u32: (value) => fixed(4, (buffer) => buffer.writeUInt32LE(value)),
    u64: (value) => fixed(8, (buffer) => buffer.writeBigUInt64LE(BigInt(value))),
    i64: (value) => fixed(8, (buffer) => buffer.writeBigInt64LE(BigInt(value))),
    str(value) {
      const bytes = typeof value === "string" ? Buffer.from(value, "utf8") : value;
      self.u32(bytes.length);
      parts.push(bytes);
      return self;
    },
    list(values) {
      self.u32(values.length);
      for (const value of values) self.str(value);
      return self;
    },
    bytes(value) {
      parts.push(value);
      return self;
    },
    frame(type) {
      const length = parts.reduce((sum, part) => sum + part.length, 1);
      if (length > mostFrameBytes) throw new RangeError(`a frame of ${length} bytes`);
      const header = Buffer.allocUnsafe(5);
      header.writeUInt32LE(length);
      header.writeUInt8(type, 4);
      return Buffer.concat([header, ...parts], length + 4);
    },
  };
  return self;
}

/** A request, with the version that every one begins with. */
export const request = (): Writer => writer().u8(protocolVersion);

export interface Reader {
  u8(): number;
  u16(): number;
  u32(): number;
  /** @throws SandboxdError TOOLBOX_UNAVAILABLE beyond 2^53 - 1. */
  u64(): number;
  i64(): bigint;
  /** Bytes of a `str`. A view. */
  bytes(): Buffer;
  /** A `str` as UTF-8. */
  str(): string;
  /** What is left. A view. */
  rest(): Buffer;
  /** Whether nothing is left. */
  isAtEnd(): boolean;
}

/** Reads a payload; whatever is missing or impossible is a TOOLBOX_UNAVAILABLE. */
export function reader(payload: Buffer): Reader {
  return new PayloadReader(payload);
}

/** A class, since of what is read in thousands each would be ten closures. */
class PayloadReader implements Reader {
  readonly #payload: Buffer;
  #at = 0;

  constructor(payload: Buffer) {
    this.#payload = payload;
  }

  #take(size: number): number {
    const from = this.#at;
    if (from + size > this.#payload.length) throw garbled("a frame is too short");
    this.#at = from + size;
    return from;
  }

  u8(): number {
    return this.#payload.readUInt8(this.#take(1));
  }

  u16(): number {
    return this.#payload.readUInt16LE(this.#take(2));
  }

  u32(): number {
    return this.#payload.readUInt32LE(this.#take(4));
  }

  u64(): number {
    const from = this.#take(8);
    const value = this.#payload.readUInt32LE(from + 4) * 2 ** 32 + this.#payload.readUInt32LE(from);
    if (!Number.isSafeInteger(value)) throw garbled(`a number of ${value}`);
    return value;
  }

  i64(): bigint {
    return this.#payload.readBigInt64LE(this.#take(8));
  }

  bytes(): Buffer {
    const length = this.u32();
    const from = this.#take(length);
    return this.#payload.subarray(from, from + length);
  }

  str(): string {
    const length = this.u32();
    const from = this.#take(length);
    return this.#payload.toString("utf8", from, from + length);
  }

  rest(): Buffer {
    return this.#payload.subarray(this.#take(this.#payload.length - this.#at));
  }

  isAtEnd(): boolean {
    return this.#at === this.#payload.length;
  }
}
