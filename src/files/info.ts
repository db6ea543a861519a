// What is at a path, as the toolbox tells it.

import { garbled, reader } from "../toolbox/protocol.ts";

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

/** Decodes INFO. What it calls itself is told apart from what it is: names are bytes. */
export function infoOf(payload: Buffer): { readonly name: Buffer; readonly info: Omit<FileInfo, "path"> } {
  const told = reader(payload);
  const name = told.bytes();
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
  return { name, info: { type, mode, sizeBytes, mtimeNs, uid, gid, target: target.toString("utf8"), etag } };
}

/** INFO of what was asked for by this path. */
export function fileOf(payload: Buffer, path: string): FileInfo {
  return { ...infoOf(payload).info, path };
}
