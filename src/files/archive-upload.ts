// Unpacks a tar archive into a directory of a sandbox. The archive is read and judged here, and made inside, as the sandbox's user: so
// what the archive says is not believed, and what it does is done where it can do nothing else.

import type { Waiting } from "../engine/runtime.ts";
import type { SandboxdError } from "../errors.ts";
import type { Link } from "../toolbox/connection.ts";
import { frame, garbled, mostDataBytes, reader, request, writer } from "../toolbox/protocol.ts";
import { decompressed } from "../workspace/archive/compression.ts";
import { assertTarget, entriesWithin, hardLinkTarget, tooLarge } from "../workspace/archive/judged.ts";
import { componentsOf, refused, shown } from "../workspace/archive/names.ts";
import type { Entry } from "../workspace/archive/tar-reader.ts";
import { fileError, type Subject, type Told } from "./errors.ts";
import { exchanging } from "./exchange.ts";
import { below } from "./path.ts";
import { type Parts, sendAll } from "./sending.ts";

export interface Upload extends Waiting {
  /** Of the files. */
  readonly maxBytes: number;
  readonly maxEntries: number;
  /** Most bytes that a byte of a compressed archive may become. */
  readonly maxRatio: number;
}

export interface Unpacked {
  readonly bytes: number;
  readonly entries: number;
}

/** So much may come of however little. Unit: bytes. */
const ratioFreeBytes = 16 * 1024 * 1024;

/** Frames of small files are sent together. Unit: bytes. */
const batchBytes = 64 * 1024;

const kinds = { file: 1, directory: 2, symlink: 3, hardlink: 4 } as const;

export async function uploadArchive(
  link: Link,
  id: string,
  path: string,
  chunks: AsyncIterable<Uint8Array>,
  { signal, ...bounds }: Upload,
): Promise<Unpacked> {
  const subject = { path };
  const options = {
    subject,
    explain: (told: Told) => explain(told, subject),
    ...(signal === undefined ? {} : { signal }),
  };
  const asked = request().str(path).frame(frame.treeWrite);
  return exchanging(link, id, asked, options, async (exchange) => {
    await exchange.expect(frame.ready);
    const answer = await sendAll(exchange, batched(framesOf(chunks, bounds)));
    if (answer.type !== frame.done) throw garbled(`a frame of type ${answer.type}`);
    const counts = reader(answer.payload);
    const entries = counts.u64();
    return { entries, bytes: counts.u64() };
  });
}

async function* framesOf(
  chunks: AsyncIterable<Uint8Array>,
  { maxRatio, ...bounds }: Omit<Upload, "signal">,
): AsyncGenerator<Buffer> {
  let compressedBytes = 0;
  const counted = async function* () {
    for await (const chunk of chunks) {
      compressedBytes += chunk.length;
      yield chunk;
    }
  };
  const onBytes = (position: number) => {
    const most = Math.max(ratioFreeBytes, compressedBytes * maxRatio);
    if (position > most)
      throw tooLarge(`the archive is compressed to less than 1/${maxRatio} of its bytes`, most, position);
  };
  for await (const entry of entriesWithin(decompressed(counted(), { takesGzip: true }), bounds, onBytes)) {
    yield entryFrame(entry);
    if (entry.kind !== "file") continue;
    for (let piece = await entry.readSome(); piece.length > 0; piece = await entry.readSome())
      yield writer().bytes(piece.subarray(0, mostDataBytes)).frame(frame.data);
  }
}

function entryFrame(entry: Entry): Buffer {
  const { kind, path, linkPath, mode, size, mtime } = entry;
  const components = componentsOf(path, kind === "directory");
  if (kind === "symlink") assertTarget(entry);
  const target = kind === "hardlink" ? hardLinkTarget(path, linkPath).join("/") : linkPath;
  if (kind === "hardlink" && target === components.join("/"))
    throw refused(path, "it is a hard link to itself");
  return writer()
    .u8(kinds[kind])
    .str(bytesOf(components.join("/")))
    .str(bytesOf(kind === "symlink" || kind === "hardlink" ? target : ""))
    .u32(mode)
    .u64(size)
    .i64(nanosecondsOf(mtime))
    .frame(frame.entry);
}

function bytesOf(name: string): Buffer {
  return Buffer.from(name, "latin1");
}

/** As far from 1970 as every file system can tell. Unit: seconds. */
const mostSeconds = 2 ** 31 - 1;

function nanosecondsOf(seconds: number): bigint {
  const within = Math.min(Math.max(seconds, -mostSeconds), mostSeconds);
  return BigInt(Math.round(within * 1e6)) * 1000n;
}

async function* batched(frames: AsyncIterable<Buffer>): AsyncGenerator<Parts> {
  let batch: Buffer[] = [];
  let bytes = 0;
  for await (const one of frames) {
    batch.push(one);
    bytes += one.length;
    if (bytes < batchBytes) continue;
    yield batch;
    batch = [];
    bytes = 0;
  }
  if (bytes > 0) yield batch;
}

/** Errnos for what an entry cannot be where it is unpacked, whoever unpacks it. */
const impossible: ReadonlySet<string> = new Set(["ENAMETOOLONG", "EILSEQ", "ELOOP", "EMLINK"]);

function explain(told: Told, subject: Subject): SandboxdError {
  const { errno, operation } = told;
  const entry = told.path.toString("latin1");
  const what = `${operation} ${errno}`;
  if (what === "entry ELOOP")
    return refused(entry, "its path leads through what is no directory, as a symbolic link");
  if (what === "entry EISDIR") return refused(entry, "there is a directory in its place");
  if (what === "target ENOENT")
    return refused(entry, "it is a hard link to what is no file in the archive before it");
  if (impossible.has(errno) && !entry.startsWith("/"))
    return refused(entry, `it cannot be made here (${errno})`);
  // entries are told by their path below the directory
  const path = entry === "" || entry.startsWith("/") ? subject.path : below(subject.path, shown(entry));
  return fileError({ ...told, path: Buffer.from(path) }, subject);
}
