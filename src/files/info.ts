// What is at a path, as the toolbox tells it.

import { garbled, type Reader, reader } from "../toolbox/protocol.ts";

export interface FileInfo {
  readonly path: string;
  readonly type: "file" | "directory" | "symlink" | "other";
  /** 07777. */
  readonly mode: number;
  readonly sizeBytes: bigint;
  /** Since 1970. Unit: nanoseconds. */
  readonly mtimeNs: bigint;
  readonly uid: number;
  readonly gid: number;
  /** Of a link; else empty. */
  readonly target: string;
  readonly etag: string;
}

const types = [undefined, "file", "directory", "symlink", "other"] as const;

const mostTargetBytes = 4096;
const mostEtagBytes = 128;

/**
 * The next INFO of a payload. What it calls itself is told apart from what it is, since names are bytes: `pathOf` says what path one has, and may
 * refuse it.
 */
export function nextInfo(told: Reader, pathOf: (name: Buffer) => string): FileInfo {
  const path = pathOf(told.bytes());
  const type = types[told.u8()];
  const mode = told.u32();
  const sizeBytes = told.i64();
  const mtimeNs = told.i64();
  const [uid, gid] = [told.u32(), told.u32()];
  const target = told.bytes();
  const etag = told.str();
  if (type === undefined || mode > 0o7777 || sizeBytes < 0n)
    throw garbled("what it tells of a file is impossible");
  if (target.length > mostTargetBytes || !/^[\x21-\x7e]*$/.test(etag) || etag.length > mostEtagBytes)
    throw garbled("what it tells of a file is impossible");
  return { path, type, mode, sizeBytes, mtimeNs, uid, gid, target: target.toString("utf8"), etag };
}

/** INFO of what was asked for by this path. */
export function fileOf(payload: Buffer, path: string): FileInfo {
  return nextInfo(reader(payload), () => path);
}
