// Writes a tar archive (pax) into blocks of one size, so that what compresses them is called seldom. Bytes are counted here.

import { SandboxdError } from "../../errors.ts";
import { encodePax } from "./pax.ts";
import { blockBytes, encodeHeader, fits, type Header } from "./tar-header.ts";

/** The bytes handed on at once, and all that is held. */
const pieceBytes = 64 * 1024;

/** Everything yields what is full; `end` the rest. */
export interface TarWriter {
  /** Bytes written so far, before any compression. */
  readonly bytes: number;
  header(header: Header): Generator<Buffer>;
  /** The content of the file whose header was last: `fill` puts bytes into what it is given, and returns how many; 0 at the end, after which it is zeros up to the size. */
  content(size: number, fill: (into: Buffer) => number): Generator<Buffer>;
  /** The same for content that comes in pieces: room is taken for all of them, each is put, and what follows them is filled up. */
  begin(size: number): void;
  put(piece: Buffer): Generator<Buffer>;
  finish(size: number): Generator<Buffer>;
  end(): Generator<Buffer>;
}

/** Everything throws SandboxdError ARCHIVE_TOO_LARGE before it would write more than `maxBytes`. */
export function createTarWriter(maxBytes: number = Number.POSITIVE_INFINITY): TarWriter {
  let piece = Buffer.allocUnsafe(pieceBytes);
  let used = 0;
  let bytes = 0;

  function reserve(count: number): void {
    if (bytes + count > maxBytes) throw tooLarge(maxBytes, bytes + count);
    bytes += count;
  }

  /** Each piece is a new one: whoever got it may still have it. */
  function* advance(count: number): Generator<Buffer> {
    used += count;
    if (used < pieceBytes) return;
    yield piece;
    piece = Buffer.allocUnsafe(pieceBytes);
    used = 0;
  }

  function* put(data: Buffer): Generator<Buffer> {
    for (let done = 0; done < data.length; ) {
      const copied = data.copy(piece, used, done);
      done += copied;
      yield* advance(copied);
    }
  }

  function* padded(data: Buffer): Generator<Buffer> {
    reserve(data.length + paddingOf(data.length));
    yield* put(data);
    yield* put(Buffer.alloc(paddingOf(data.length)));
  }

  const begin = (size: number) => reserve(size + paddingOf(size));
  const finish = (size: number) => put(Buffer.alloc(paddingOf(size)));

  return {
    get bytes() {
      return bytes;
    },
    *header(header) {
      if (!fits(header)) {
        const pax = encodePax(recordsOf(header));
        const extended = { type: "x", path: "pax", linkPath: "", mode: 0o600, size: pax.length, mtime: 0 };
        yield* padded(encodeHeader(extended));
        yield* padded(pax);
      }
      yield* padded(encodeHeader(header));
    },
    begin,
    put,
    finish,
    *content(size, fill) {
      begin(size);
      let isOver = false;
      for (let left = size; left > 0; ) {
        const room = piece.subarray(used, used + Math.min(left, pieceBytes - used));
        const count: number = isOver ? 0 : fill(room);
        isOver ||= count === 0;
        if (isOver) room.fill(0);
        const done = isOver ? room.length : count;
        left -= done;
        yield* advance(done);
      }
      yield* finish(size);
    },
    *end() {
      yield* padded(Buffer.alloc(2 * blockBytes));
      if (used > 0) yield piece.subarray(0, used);
    },
  };
}

function paddingOf(size: number): number {
  return (blockBytes - (size % blockBytes)) % blockBytes;
}

/** All of what a header may not be able to tell, in one order. */
function recordsOf({ path, linkPath, size, mtime }: Header): ReadonlyMap<string, string> {
  return new Map([
    ["path", path],
    ...(linkPath === "" ? [] : ([["linkpath", linkPath]] as const)),
    ["size", `${size}`],
    ["mtime", Number.isInteger(mtime) ? `${mtime}` : mtime.toFixed(6)],
  ]);
}

function tooLarge(limit: number, value: number): SandboxdError {
  return new SandboxdError(
    "ARCHIVE_TOO_LARGE",
    `the archive would have ${value} bytes or more, and may have ${limit}`,
    {
      metadata: { limit: `${limit}`, value: `${value}` },
    },
  );
}
