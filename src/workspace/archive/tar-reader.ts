// Reads the entries of a tar archive, strictly: what is odd is refused, not mended. What an entry asks for is not judged here.

import { SandboxdError } from "../../errors.ts";
import { type ByteSource, createByteSource } from "./byte-source.ts";
import { mostPathBytes, refused, shown } from "./names.ts";
import { decodePax } from "./pax.ts";
import { blockBytes, decodeHeader, type Header } from "./tar-header.ts";

/** What an entry is; all others are refused. */
export type EntryKind = "file" | "directory" | "symlink" | "hardlink";

export interface Entry {
  readonly kind: EntryKind;
  /** As the archive says it: to be judged before it is used. Bytes, as in names.ts. */
  readonly path: string;
  /** Of links. */
  readonly linkPath: string;
  /** Permission bits alone. */
  readonly mode: number;
  /** Of a file; 0 for all others. */
  readonly size: number;
  /** Since 1970. Unit: seconds. */
  readonly mtime: number;
  /** The next bytes of a file, none at its end. What is left when the next entry is asked for is passed over. */
  readonly readSome: () => Promise<Buffer>;
}

/** All extended headers of one entry, and each that is for all. Unit: bytes. */
const mostExtension = 1024 * 1024;

const mostPiece = 64 * 1024;

/** GNU tar's letters are in its manual under "Extensions to the tar Archive Format". */
const refusedTypes: Readonly<Record<string, string>> = {
  "3": "it is a device",
  "4": "it is a device",
  "6": "it is a FIFO",
  "7": "it is a contiguous file",
  S: "it is a sparse file",
  M: "it goes on from another volume",
  V: "it is a volume's label",
  D: "it is a dump of a directory",
};

const kinds: Readonly<Record<string, EntryKind>> = {
  "0": "file",
  "1": "hardlink",
  "2": "symlink",
  "5": "directory",
};

/** What extended headers say of the next entry. */
type Extension = Map<"path" | "linkPath" | "size" | "mtime", string>;

/**
 * Yields the entries; then the rest of the stream has been read, too. `onBytes` is told how many bytes of the archive were
 * taken, and may throw.
 *
 * @throws SandboxdError ARCHIVE_REFUSED if it is no tar archive, is cut, or has an entry of a refused type.
 */
export async function* readTar(
  chunks: AsyncIterable<Uint8Array>,
  onBytes?: (position: number) => void,
): AsyncGenerator<Entry> {
  const source = createByteSource(chunks, onBytes);
  const extension: Extension = new Map();
  let extensionBytes = 0;
  while (true) {
    const header = await readHeader(source);
    if (header === undefined) break;
    if (!"xgLK".includes(header.type)) {
      yield* entryOf(source, header, extension);
      extension.clear();
      extensionBytes = 0;
      continue;
    }
    if (header.size < 0) throw refused(header.path, "its size is impossible");
    extensionBytes += header.size;
    if (extensionBytes > mostExtension)
      throw refused(header.path, `its extended header is larger than ${mostExtension} bytes`, {
        limit: `${mostExtension}`,
        value: `${extensionBytes}`,
      });
    await readExtension(source, header, extension);
  }
  // fillers up to the size of a tape's record, as tar writes them
  while ((await source.readSome(mostPiece)).length > 0);
}

/** Undefined at the end of the archive: two blocks of zeros. */
async function readHeader(source: ByteSource): Promise<Header | undefined> {
  const isFirst = source.position === 0;
  const block = await source.read(blockBytes);
  if (block.length < blockBytes) throw isFirst ? noArchive("it is too short") : cut();
  if (isZero(block)) {
    const second = await source.read(blockBytes);
    if (second.length < blockBytes) throw cut();
    if (!isZero(second)) throw damaged("a single block of zeros");
    return undefined;
  }
  const decoded = decodeHeader(block);
  if ("header" in decoded) return decoded.header;
  throw isFirst ? noArchive(`the header: ${decoded.problem}`) : damaged(`a header: ${decoded.problem}`);
}

async function* entryOf(source: ByteSource, header: Header, extension: Extension): AsyncGenerator<Entry> {
  const path = extension.get("path") ?? header.path;
  const kind = kindOf(header, path);
  const size = extension.has("size") ? Number(extension.get("size")) : header.size;
  if (size < 0 || !Number.isSafeInteger(size)) throw refused(path, "its size is impossible");
  if (kind !== "file" && size > 0) throw refused(path, "it has content, and is no file");
  const padding = (blockBytes - (size % blockBytes)) % blockBytes;
  let left = size;
  const readSome = async () => {
    if (left === 0) return Buffer.alloc(0);
    const piece = await source.readSome(Math.min(left, mostPiece));
    if (piece.length === 0) throw cut(path);
    left -= piece.length;
    return piece;
  };
  yield {
    kind,
    path,
    linkPath: extension.get("linkPath") ?? header.linkPath,
    mode: header.mode & 0o777,
    size,
    mtime: extension.has("mtime") ? Number(extension.get("mtime")) : header.mtime,
    readSome,
  };
  while (left > 0) await readSome();
  if ((await source.read(padding)).length < padding) throw cut(path);
}

function kindOf({ type }: Header, path: string): EntryKind {
  const kind = kinds[type];
  if (kind === undefined)
    throw refused(path, refusedTypes[type] ?? "its type is unknown", { type: typeText(type) });
  // before POSIX there was no other way to say that it is a directory
  return kind === "file" && path.endsWith("/") ? "directory" : kind;
}

function typeText(type: string): string {
  return /^[0-9A-Za-z]$/.test(type) ? type : `0x${type.charCodeAt(0).toString(16)}`;
}

async function readExtension(source: ByteSource, header: Header, extension: Extension): Promise<void> {
  const { size, type } = header;
  const bytes = await source.read(size);
  const padding = (blockBytes - (size % blockBytes)) % blockBytes;
  if (bytes.length < size || (await source.read(padding)).length < padding) throw cut();
  if (type === "L") extension.set("path", gnuName(bytes));
  if (type === "K") extension.set("linkPath", gnuName(bytes));
  // what is said of all entries ("g") is a comment in practice, as git's, and passed over
  if (type !== "x") return;
  const records = decodePax(bytes);
  if (records === undefined) throw refused(header.path, "its extended header is malformed");
  const path = records.get("path") ?? extension.get("path") ?? header.path;
  for (const [key, value] of records) {
    if (key.startsWith("GNU.sparse.")) throw refused(path, "it is a sparse file");
    if (key === "path") extension.set("path", value);
    if (key === "linkpath") extension.set("linkPath", value);
    if (key === "size") extension.set("size", checked(path, key, value, /^\d{1,19}$/));
    if (key === "mtime") extension.set("mtime", checked(path, key, value, /^-?\d{1,12}(\.\d{0,20})?$/));
  }
}

function checked(path: string, key: string, value: string, pattern: RegExp): string {
  if (pattern.test(value)) return value;
  throw refused(path, `the ${key} in its extended header is malformed`);
}

/** Only as long as to be found too long. */
function gnuName(bytes: Buffer): string {
  return bytes.toString("latin1", 0, mostPathBytes + 2).replace(/\0+$/, "");
}

function isZero(block: Buffer): boolean {
  return block.every((byte) => byte === 0);
}

function noArchive(why: string): SandboxdError {
  return new SandboxdError("ARCHIVE_REFUSED", `this is no tar archive: ${why}`, {
    hint: "send a tar archive, as it is or compressed with zstd",
  });
}

function damaged(why: string): SandboxdError {
  return new SandboxdError("ARCHIVE_REFUSED", `the archive is damaged: ${why}`);
}

/** The archive, or what it was compressed to, ended too early. */
export function cut(path?: string): SandboxdError {
  const where = path === undefined ? {} : { metadata: { entry: shown(path) } };
  return new SandboxdError("ARCHIVE_REFUSED", "the archive is cut: it ends before its end", {
    hint: "what was unpacked stays; send it again, whole",
    ...where,
  });
}
