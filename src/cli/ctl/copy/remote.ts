// Places in sandboxes: what is there, and how bytes come from and go to them.

import { posix } from "node:path";
import type { Client } from "@connectrpc/connect";
import {
  type FileInfo,
  type FilesystemService,
  FileType,
} from "../../../../gen/sandboxd/v1/filesystem_service_pb.ts";
import { CommandFailed } from "../context.ts";
import { reasonOf } from "../failure.ts";
import { printable } from "../text.ts";
import type { Destination, Source } from "./place.ts";

type Files = Client<typeof FilesystemService>;

/** A place in one sandbox. */
export interface Remote {
  readonly files: Files;
  readonly sandboxId: string;
  readonly path: string;
}

/** Undefined if nothing is there. */
export async function remoteStat(
  { files, sandboxId, path }: Remote,
  { follow }: { readonly follow: boolean },
): Promise<FileInfo | undefined> {
  try {
    const { file } = await files.stat({ sandboxId, path, follow });
    return file;
  } catch (error) {
    if (reasonOf(error) === "FILE_NOT_FOUND") return undefined;
    throw error;
  }
}

/** @throws CommandFailed for what cannot be copied. */
export async function remoteSource(
  remote: Remote,
  options: { readonly follow: boolean },
): Promise<{ readonly source: Source; readonly info: FileInfo }> {
  const { path } = remote;
  const info = await remoteStat(remote, { follow: options.follow || /\/\.?$/.test(path) });
  if (info === undefined) throw new CommandFailed(`${printable(path)}: there is nothing in the sandbox`);
  return { source: { kind: kindOf(info), path }, info };
}

function kindOf({ type, path }: FileInfo): Source["kind"] {
  switch (type) {
    case FileType.FILE:
      return "file";
    case FileType.DIRECTORY:
      return "directory";
    case FileType.SYMLINK:
      return "link";
    case FileType.OTHER:
    case FileType.UNSPECIFIED:
      throw new CommandFailed(`${printable(path)}: it is neither a file, a directory nor a symbolic link`);
    default:
      return type satisfies never;
  }
}

export async function remoteDestination(remote: Remote): Promise<Destination> {
  const { path } = remote;
  const info = await remoteStat(remote, { follow: true });
  if (info !== undefined)
    return { path, kind: info.type === FileType.DIRECTORY ? "directory" : "file", hasParent: true };
  const parent = await remoteStat(
    { ...remote, path: posix.dirname(posix.join(path, ".")) },
    { follow: true },
  );
  return { path, kind: "absent", hasParent: parent?.type === FileType.DIRECTORY };
}

/** The tar archive of a directory, named relative to it, or of a file. */
export async function* archiveOf({ files, sandboxId, path }: Remote): AsyncGenerator<Uint8Array> {
  for await (const { data } of files.downloadArchive({ sandboxId, path })) yield data;
}

/** Unpacks a tar archive into a directory, which is made if it is not there. */
export async function unpackAt(
  { files, sandboxId, path }: Remote,
  archive: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<{ readonly bytes: bigint; readonly entries: bigint }> {
  return await files.uploadArchive(
    (async function* () {
      yield { part: { case: "target" as const, value: { sandboxId, path } } };
      for await (const data of archive) yield { part: { case: "data" as const, value: data } };
    })(),
  );
}

/** Replaces a file, or makes it, whole. */
export async function writeRemote(
  { files, sandboxId, path }: Remote,
  { mode, sizeBytes }: { readonly mode: number; readonly sizeBytes: number },
  content: AsyncIterable<Uint8Array>,
): Promise<void> {
  const value = { sandboxId, path, mode, sizeBytes: BigInt(sizeBytes) };
  await files.writeFile(
    (async function* () {
      yield { part: { case: "target" as const, value } };
      for await (const data of content) yield { part: { case: "data" as const, value: data } };
    })(),
  );
}

/** The bytes of a file. */
export async function* contentOf({ files, sandboxId, path }: Remote): AsyncGenerator<Uint8Array> {
  for await (const { part } of files.readFile({ sandboxId, path }))
    if (part.case === "data") yield part.value;
}
