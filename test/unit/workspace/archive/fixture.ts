// Archives made byte by byte, for what no packer makes, and directories to unpack them into.
import { closeSync, constants, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { packTree } from "../../../../src/workspace/archive/pack.ts";
import { unpackTree } from "../../../../src/workspace/archive/unpack.ts";

export interface Fields {
  readonly type?: string;
  readonly linkname?: string | Buffer;
  readonly mode?: string;
  /** As it stands in the header. Default: the length of the content, in octal. */
  readonly size?: string | Buffer;
  readonly mtime?: string;
  readonly magic?: string;
  readonly prefix?: string;
  readonly content?: string | Buffer;
  readonly checksum?: string;
}

/** One entry: header, content, filler. */
export function entry(name: string | Buffer, fields: Fields = {}): Buffer {
  const content = Buffer.from(fields.content ?? "");
  const block = Buffer.alloc(512);
  const put = (at: number, value: string | Buffer) => Buffer.from(value).copy(block, at);
  put(0, name);
  put(100, fields.mode ?? "0000644\0");
  put(108, "0000000\0");
  put(116, "0000000\0");
  put(124, fields.size ?? `${content.length.toString(8).padStart(11, "0")}\0`);
  put(136, fields.mtime ?? "00000000000\0");
  put(156, fields.type ?? "0");
  put(157, fields.linkname ?? "");
  put(257, fields.magic ?? "ustar\x0000");
  put(345, fields.prefix ?? "");
  block.fill(" ", 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(148, fields.checksum ?? `${sum.toString(8).padStart(6, "0")}\0 `);
  return Buffer.concat([block, content, Buffer.alloc((512 - (content.length % 512)) % 512)]);
}

export function pax(records: Readonly<Record<string, string | Buffer>>, type = "x"): Buffer {
  const lines = Object.entries(records).map(([key, value]) => {
    const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from("\n")]);
    let length = rest.length;
    while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length;
    return Buffer.concat([Buffer.from(`${length}`), rest]);
  });
  return entry("pax", { type, content: Buffer.concat(lines) });
}

export const end = Buffer.alloc(1024);

/** An archive that ends as it should. */
export function archive(...entries: readonly Buffer[]): Buffer {
  return Buffer.concat([...entries, end]);
}

/** In pieces of odd sizes, so that nothing may rely on where one ends. */
export async function* pieces(bytes: Uint8Array, size = 1000): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) yield bytes.subarray(start, start + size);
}

/** `inside` is for the archive; `canary` beside it must stay as it is. Gone after the test. */
export function place() {
  const directory = mkdtempSync(join(tmpdir(), "sandboxd-archive-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const [inside, canary] = [join(directory, "inside"), join(directory, "canary")];
  mkdirSync(inside, 0o700);
  mkdirSync(canary);
  writeFileSync(join(canary, "file"), "alive");
  return { directory, inside, canary };
}

export async function unpack(inside: string, bytes: Uint8Array, limits: Partial<Limits> = {}) {
  const root = openSync(inside, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return await unpackTree({ root, chunks: pieces(bytes), maxBytes: 1e6, maxEntries: 1000, ...limits });
  } finally {
    closeSync(root);
  }
}

interface Limits {
  readonly maxBytes: number;
  readonly maxEntries: number;
  readonly chunks: AsyncIterable<Uint8Array>;
}

export function pack(inside: string, maxBytes?: number) {
  const root = openSync(inside, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const packed = packTree({ root, maxBytes });
    const chunks: Buffer[] = [];
    for (let next = packed.next(); ; next = packed.next()) {
      if (next.done) return { bytes: Buffer.concat(chunks), report: next.value };
      chunks.push(next.value);
    }
  } finally {
    closeSync(root);
  }
}
