// An archive of a directory's content as one of the directory: with its name before each name, as docker cp gives it.

import { encodePax } from "../../../workspace/archive/pax.ts";
import { blockBytes, encodeHeader, fits, type Header } from "../../../workspace/archive/tar-header.ts";
import { type Entry, readTar } from "../../../workspace/archive/tar-reader.ts";

const types = { file: "0", hardlink: "1", symlink: "2", directory: "5" } as const;

/** `name` is of one component. Hard links lead to a name of the archive, so theirs get it too. */
export async function* withPrefix(
  chunks: AsyncIterable<Uint8Array>,
  name: string,
): AsyncGenerator<Uint8Array> {
  const prefix = Buffer.from(`${name}/`).toString("latin1");
  yield* headerBlocks({ type: "5", path: prefix, linkPath: "", mode: 0o755, size: 0, mtime: 0 });
  for await (const entry of readTar(chunks)) {
    yield* headerBlocks(headerOf(entry, prefix));
    for (let piece = await entry.readSome(); piece.length > 0; piece = await entry.readSome()) yield piece;
    yield paddingOf(entry.size);
  }
  yield Buffer.alloc(2 * blockBytes);
}

function headerOf({ kind, path, linkPath, mode, size, mtime }: Entry, prefix: string): Header {
  return {
    type: types[kind],
    path: prefix + path,
    linkPath: kind === "hardlink" ? prefix + linkPath : linkPath,
    mode,
    size,
    mtime,
  };
}

function* headerBlocks(header: Header): Generator<Uint8Array> {
  if (!fits(header)) {
    const { path, linkPath, size, mtime } = header;
    const records = {
      path,
      ...(linkPath === "" ? {} : { linkpath: linkPath }),
      size: `${size}`,
      mtime: mtime.toFixed(6),
    };
    const pax = encodePax(new Map(Object.entries(records)));
    yield encodeHeader({ type: "x", path: "pax", linkPath: "", mode: 0o600, size: pax.length, mtime: 0 });
    yield pax;
    yield paddingOf(pax.length);
  }
  yield encodeHeader(header);
}

function paddingOf(size: number): Uint8Array {
  return Buffer.alloc((blockBytes - (size % blockBytes)) % blockBytes);
}
