// The compression around a tar archive: zstd both ways. What comes in may also have none, or gzip where that is taken; others are refused by their names.

import {
  constants,
  createGunzip,
  createZstdCompress,
  createZstdDecompress,
  type Gunzip,
  type ZstdDecompress,
} from "node:zlib";
import { SandboxdError } from "../../errors.ts";
import { createByteSource } from "./byte-source.ts";
import { cut } from "./tar-reader.ts";

/** What RFC 8878 asks every decoder to take; `zstd -19` needs no more. log2 of bytes. */
const windowLog = 23;

const gzipMagic = "1f8b";

const magics: readonly (readonly [name: string, hex: string])[] = [
  ["gzip", gzipMagic],
  ["xz", "fd377a585a00"],
  ["bzip2", "425a68"],
  ["lz4", "04224d18"],
  ["zip", "504b0304"],
];

/** zstd's own default, and its checksum of the whole, by which damage is found. */
export function createCompressor() {
  const { ZSTD_c_compressionLevel, ZSTD_c_checksumFlag } = constants;
  return createZstdCompress({ params: { [ZSTD_c_compressionLevel]: 3, [ZSTD_c_checksumFlag]: 1 } });
}

/** The archive within. @throws SandboxdError ARCHIVE_REFUSED */
export async function* decompressed(
  chunks: AsyncIterable<Uint8Array>,
  { takesGzip = false }: { readonly takesGzip?: boolean } = {},
): AsyncGenerator<Uint8Array> {
  const source = createByteSource(chunks);
  const start = await source.read(6);
  const rest = async function* () {
    for (let piece = start; piece.length > 0; piece = await source.readSome(64 * 1024)) yield piece;
  };
  const hex = start.toString("hex");
  if (takesGzip && hex.startsWith(gzipMagic)) return yield* through(createGunzip(), "gzip", rest());
  const other = magics.find(([, magic]) => hex.startsWith(magic));
  if (other !== undefined)
    throw new SandboxdError("ARCHIVE_REFUSED", `the archive is compressed with ${other[0]}`, {
      metadata: { compression: other[0] },
      hint: `send a tar archive, as it is or compressed with ${takesGzip ? "gzip or " : ""}zstd`,
    });
  if (!hex.startsWith("28b52ffd")) return yield* rest();
  yield* through(
    createZstdDecompress({ params: { [constants.ZSTD_d_windowLogMax]: windowLog } }),
    "zstd",
    rest(),
  );
}

type Decompressor = Gunzip | ZstdDecompress;

async function* through(
  stream: Decompressor,
  name: string,
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  // what fails in what comes in fails in what goes out
  const fed = feed(chunks, stream).catch((error: Error) => void stream.destroy(error));
  try {
    yield* stream;
    // it ends at the first bytes that are no zstd, and does not wait for others
    const given = await Promise.race([fed, Number.POSITIVE_INFINITY]);
    if (given !== stream.bytesWritten) throw damaged(name, "there is something else behind it");
  } catch (error) {
    throw translated(error, name);
  } finally {
    stream.destroy();
  }
}

/** Resolves to how many bytes were handed on. */
async function feed(chunks: AsyncIterable<Uint8Array>, stream: Decompressor): Promise<number> {
  let bytes = 0;
  for await (const chunk of chunks) {
    if (stream.destroyed) break;
    bytes += chunk.length;
    if (stream.write(chunk)) continue;
    await new Promise<void>((resolve) => {
      for (const event of ["drain", "end", "close"]) stream.once(event, resolve);
    });
  }
  stream.end();
  return bytes;
}

function translated(error: unknown, name: string): unknown {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (code === "Z_BUF_ERROR") return cut();
  if (code === "ZSTD_error_frameParameter_windowTooLarge")
    return new SandboxdError(
      "ARCHIVE_REFUSED",
      `the archive needs a zstd window of more than ${2 ** windowLog} bytes`,
      {
        metadata: { limit: `${2 ** windowLog}` },
        hint: "compress it with zstd -19 or less, and without --long",
      },
    );
  if (code.startsWith("ZSTD_error_")) return damaged(name, code.slice("ZSTD_error_".length));
  if (code === "Z_DATA_ERROR") return damaged(name, error instanceof Error ? error.message : code);
  return error;
}

function damaged(name: string, why: string): SandboxdError {
  return new SandboxdError("ARCHIVE_REFUSED", `the archive's ${name} data is damaged: ${why}`);
}
