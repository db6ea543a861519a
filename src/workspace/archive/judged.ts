// What an archive may hold, wherever it is unpacked: so many entries, so many bytes, and links that say where they lead.

import { SandboxdError } from "../../errors.ts";
import { componentsOf, mostPathBytes, refused, shown } from "./names.ts";
import { type Entry, readTar } from "./tar-reader.ts";

export interface Bounds {
  /** Of the files. */
  readonly maxBytes: number;
  readonly maxEntries: number;
}

/** For each entry beside its content: what headers and fillers may take. Archives with long names have 3 KiB. Unit: bytes. */
const headerBytes = 4096;

/** For what is around the entries: extended headers for all, and fillers at the end. Unit: bytes. */
const frameBytes = 16 * 1024 * 1024;

/**
 * The entries of a tar archive. `onBytes` is told how many bytes of it were taken, and may throw.
 *
 * @throws SandboxdError ARCHIVE_TOO_LARGE at the first entry that is too much, ARCHIVE_REFUSED as readTar.
 */
export async function* entriesWithin(
  chunks: AsyncIterable<Uint8Array>,
  { maxBytes, maxEntries }: Bounds,
  onBytes: (position: number) => void = () => {},
): AsyncGenerator<Entry> {
  const mostRead = maxBytes + maxEntries * headerBytes + frameBytes;
  let bytes = 0;
  let entries = 0;
  const count = (position: number) => {
    if (position > mostRead)
      throw tooLarge(`the archive has more than ${mostRead} bytes, headers included`, mostRead, position);
    onBytes(position);
  };
  for await (const entry of readTar(chunks, count)) {
    if (entries === maxEntries)
      throw tooLarge(`the archive has more than ${maxEntries} entries`, maxEntries, entries + 1, entry);
    if (bytes + entry.size > maxBytes)
      throw tooLarge(`the files have more than ${maxBytes} bytes`, maxBytes, bytes + entry.size, entry);
    yield entry;
    bytes += entry.size;
    entries += 1;
  }
}

/** Of a symbolic link: anywhere, but somewhere. @throws SandboxdError ARCHIVE_REFUSED */
export function assertTarget({ path, linkPath }: Entry): void {
  if (linkPath === "") throw refused(path, "it is a link to nothing");
  if (linkPath.includes("\0")) throw refused(path, "its target has a NUL");
  if (linkPath.length >= mostPathBytes)
    throw refused(path, `its target is longer than ${mostPathBytes - 1} bytes`, {
      limit: `${mostPathBytes - 1}`,
    });
}

/** Of a hard link: a path in the archive. @throws SandboxdError ARCHIVE_REFUSED */
export function hardLinkTarget(path: string, linkPath: string): readonly string[] {
  try {
    return componentsOf(linkPath, false);
  } catch {
    throw refused(path, "it is a hard link to a path that is refused", { target: shown(linkPath) });
  }
}

export function tooLarge(message: string, limit: number, value: number, entry?: Entry): SandboxdError {
  const place: Record<string, string> = entry === undefined ? {} : { entry: shown(entry.path) };
  return new SandboxdError("ARCHIVE_TOO_LARGE", message, {
    metadata: { limit: `${limit}`, value: `${value}`, ...place },
    hint: "what was unpacked before stays",
  });
}
