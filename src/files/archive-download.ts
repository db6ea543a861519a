// What is at a path in a sandbox, as a tar archive. The tree is walked inside; here it becomes an archive, no faster than it is taken.

import { pipeline, Readable } from "node:stream";
import { createGzip } from "node:zlib";
import type { Waiting } from "../engine/runtime.ts";
import { SandboxdError } from "../errors.ts";
import type { Link } from "../toolbox/connection.ts";
import { type Frame, frame, garbled, reader, request } from "../toolbox/protocol.ts";
import { createCompressor } from "../workspace/archive/compression.ts";
import { hardLinkTarget } from "../workspace/archive/judged.ts";
import { componentsOf, mostDepth, refused } from "../workspace/archive/names.ts";
import type { Header } from "../workspace/archive/tar-header.ts";
import { createTarWriter } from "../workspace/archive/tar-writer.ts";
import { fileError, type Subject, type Told } from "./errors.ts";
import { type Exchange, openExchange } from "./exchange.ts";

export type Compression = "none" | "gzip" | "zstd";

export interface Download extends Waiting {
  /** Of the archive before its compression. */
  readonly maxBytes: number;
  readonly maxEntries: number;
  readonly compression: Compression;
}

const kinds: Readonly<Record<number, string>> = { 1: "0", 2: "5", 3: "2", 4: "1" };

/** Who stops early ends it inside, too. */
export async function* downloadArchive(
  link: Link,
  id: string,
  path: string,
  { signal, maxBytes, maxEntries, compression }: Download,
): AsyncGenerator<Uint8Array, void, undefined> {
  const asked = request().str(path).u64(maxEntries).u32(mostDepth).frame(frame.treeRead);
  const subject = { path };
  const exchange = await openExchange(link, id, asked, {
    subject,
    explain: (told) => explain(told, subject, maxEntries),
    ...(signal === undefined ? {} : { signal }),
  });
  try {
    yield* compressed(tarOf(exchange, maxBytes), compression);
  } finally {
    exchange.close();
  }
}

async function* tarOf(exchange: Exchange, maxBytes: number): AsyncGenerator<Buffer> {
  const tar = createTarWriter(maxBytes);
  for (;;) {
    const next = await exchange.receive("work");
    if (next.type === frame.done) break;
    if (next.type !== frame.entry) throw garbled(`a frame of type ${next.type}`);
    const header = headerOf(next);
    yield* tar.header(header);
    if (header.type !== "0") continue;
    tar.begin(header.size);
    for (let left = header.size; left > 0; ) {
      const { payload } = await exchange.expect(frame.data);
      if (payload.length === 0 || payload.length > left) throw garbled("a file is not as long as it said");
      yield* tar.put(payload);
      left -= payload.length;
    }
    yield* tar.finish(header.size);
  }
  yield* tar.end();
}

/** A name that could mean something outside of where it is unpacked is nobody's but a stranger's. */
function headerOf({ payload }: Frame): Header {
  const told = reader(payload);
  const type = kinds[told.u8()];
  const path = told.bytes().toString("latin1");
  const linkPath = told.bytes().toString("latin1");
  const mode = told.u32() & 0o777;
  const size = told.u64();
  const mtime = Number(told.i64() / 1000n) / 1e6;
  if (type === undefined || (type !== "0" && size > 0)) throw garbled("an entry is impossible");
  componentsOf(path, type === "5");
  if (type === "1") hardLinkTarget(path, linkPath);
  return { type, path: type === "5" ? `${path}/` : path, linkPath, mode, size, mtime };
}

function explain(told: Told, subject: Subject, maxEntries: number): SandboxdError {
  if (told.errno !== "E2BIG") return fileError(told, subject);
  if (told.operation === "entries")
    return new SandboxdError("ARCHIVE_TOO_LARGE", `the archive would have more than ${maxEntries} entries`, {
      metadata: { limit: `${maxEntries}` },
    });
  const why =
    told.operation === "depth"
      ? `it is deeper than ${mostDepth} directories`
      : "its path is longer than 4096 bytes";
  return refused(told.path.toString("latin1"), why);
}

/** Larger than zlib's own: each piece is a message. Unit: bytes. */
const chunkSize = 64 * 1024;

async function* compressed(
  pieces: AsyncGenerator<Buffer>,
  compression: Compression,
): AsyncGenerator<Uint8Array> {
  if (compression === "none") return yield* pieces;
  const compressor = compression === "gzip" ? createGzip({ chunkSize }) : createCompressor();
  // what fails in what comes in fails in what goes out
  pipeline(Readable.from(pieces, { objectMode: false }), compressor, () => {});
  yield* compressor;
}
