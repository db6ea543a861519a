// Between the contract's messages about files and the domain's values.

import { createHash } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  ArchiveCompression,
  FileChangeType,
  type FileInfo as FileInfoMessage,
  FileType,
  type WatchDirectoryResponseSchema,
  type WriteFileTarget,
} from "../../gen/sandboxd/v1/filesystem_service_pb.ts";
import { invalidField } from "../errors.ts";
import type { Compression } from "../files/archive-download.ts";
import type { FileInfo } from "../files/info.ts";
import type { Change, Update } from "../files/watch.ts";
import type { WriteTarget } from "../files/write.ts";

const fileTypes = {
  file: FileType.FILE,
  directory: FileType.DIRECTORY,
  symlink: FileType.SYMLINK,
  other: FileType.OTHER,
} as const satisfies Record<FileInfo["type"], FileType>;

/** As the messages themselves: those of a listing would each be made once more from what they are to be, which takes longer than all else. */
export function fileInfoOf(file: FileInfo): FileInfoMessage {
  const { path, type, mode, sizeBytes, mtimeNs, uid, gid, target: linkTarget, etag } = file;
  // downwards, also before 1970
  const nanos = ((mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  const seconds = (mtimeNs - nanos) / 1_000_000_000n;
  return {
    $typeName: "sandboxd.v1.FileInfo",
    path,
    type: fileTypes[type],
    mode,
    sizeBytes,
    modifiedAt: { $typeName: "google.protobuf.Timestamp", seconds, nanos: Number(nanos) },
    uid,
    gid,
    linkTarget,
    etag,
  };
}

export function writeTargetOf(target: WriteFileTarget): WriteTarget {
  const { path, mode, offset, createOnly, etag, parents, sizeBytes } = target;
  return { path, mode, offset, createsOnly: createOnly, etag, parents, sizeBytes };
}

const compressions = {
  [ArchiveCompression.UNSPECIFIED]: "none",
  [ArchiveCompression.GZIP]: "gzip",
  [ArchiveCompression.ZSTD]: "zstd",
} as const satisfies Record<ArchiveCompression, Compression>;

export function compressionOf(compression: ArchiveCompression): Compression {
  return compressions[compression];
}

const changeTypes = {
  created: FileChangeType.CREATED,
  written: FileChangeType.WRITTEN,
  attributes: FileChangeType.ATTRIBUTES,
  removed: FileChangeType.REMOVED,
} as const satisfies Record<Change, FileChangeType>;

export function watchUpdateOf(
  update: Update,
): MessageInitShape<typeof WatchDirectoryResponseSchema>["update"] {
  switch (update.kind) {
    case "ready":
      return { case: "ready", value: {} };
    case "change": {
      const { type, path, isDirectory } = update;
      return { case: "change", value: { type: changeTypes[type], path, isDirectory } };
    }
    case "overflow":
      return { case: "overflow", value: {} };
    case "quiet":
      return { case: "keepalive", value: {} };
    default:
      return update satisfies never;
  }
}

const markBytes = 6;

/** A page token holds the last name told, as bytes, and a mark of the directory that it belongs to. */
export function pageTokenOf(sandboxId: string, path: string, name: Uint8Array): string {
  return Buffer.concat([markOf(sandboxId, path), name]).toString("base64url");
}

/** @throws SandboxdError INVALID_FIELD */
export function nameOfToken(token: string, sandboxId: string, path: string): Uint8Array {
  if (token === "") return Buffer.alloc(0);
  const bytes = Buffer.from(token, "base64url");
  const name = bytes.subarray(markBytes);
  if (bytes.subarray(0, markBytes).equals(markOf(sandboxId, path)) && name.length > 0 && !name.includes(0))
    return name;
  throw invalidField("page_token", "is not a token of this directory", "start again without a page token");
}

function markOf(sandboxId: string, path: string): Buffer {
  return createHash("sha256").update(`${sandboxId}\0${path}`).digest().subarray(0, markBytes);
}
