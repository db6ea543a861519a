// sandboxctl cp

import { posix } from "node:path";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type FileInfo, FilesystemService } from "../../../../gen/sandboxd/v1/filesystem_service_pb.ts";
import { type Arguments, UsageError } from "../arguments.ts";
import { type Command, CommandFailed, type Context } from "../context.ts";
import {
  archiveOfLink,
  archiveOfLocal,
  localDestination,
  localSource,
  openLocalFile,
  unpackAtLocal,
  writeLocalFile,
  writeLocalLink,
} from "../copy/local.ts";
import { meansContent, nameOf, parsePlace, targetPath } from "../copy/place.ts";
import { withPrefix } from "../copy/prefix.ts";
import {
  archiveOf,
  contentOf,
  type Remote,
  remoteDestination,
  remoteSource,
  unpackAt,
  writeRemote,
} from "../copy/remote.ts";
import { printable } from "../text.ts";
import { bytesText } from "../units.ts";

export const cp: Command = async (context, args) => {
  const [from, to] = args.words.map(parsePlace);
  const files = context.client(FilesystemService);
  if (from?.kind === "sandbox" && to?.kind === "local")
    await copyOut(context, args, { files, ...from }, to.path);
  else if (from?.kind === "sandbox" && to?.kind === "stream")
    await streamOut(context, args, { files, ...from });
  else if (from?.kind === "local" && to?.kind === "sandbox")
    await copyIn(context, args, from.path, { files, ...to });
  else if (from?.kind === "stream" && to?.kind === "sandbox") await streamIn(context, args, { files, ...to });
  else throw new UsageError("cp: one of the two must be SANDBOX:PATH, the other a path here or -");
  return 0;
};

const follows = (args: Arguments) => ({ follow: args.flags.has("follow-link") });

async function copyOut(context: Context, args: Arguments, remote: Remote, path: string): Promise<void> {
  const { source, info } = await remoteSource(remote, follows(args));
  const destination = localDestination(path);
  const target = targetPath(source, destination);
  let bytes = 0;
  switch (source.kind) {
    case "directory": {
      const isNamed = target === destination.path;
      ({ bytes } = await unpackAtLocal(target, archiveOf(remote), { isNamed }));
      break;
    }
    case "file":
      bytes = await writeLocalFile(target, attributesOf(info), contentOf(remote));
      break;
    case "link":
      writeLocalLink(target, info.linkTarget);
      break;
    default:
      source.kind satisfies never;
  }
  tell(context, args, bytes, target);
}

function attributesOf({ mode, modifiedAt }: FileInfo): {
  readonly mode: number;
  readonly modifiedMs: number;
} {
  return { mode, modifiedMs: modifiedAt === undefined ? Date.now() : timestampMs(modifiedAt) };
}

async function streamOut(context: Context, args: Arguments, remote: Remote): Promise<void> {
  if (process.stdout.isTTY) throw new CommandFailed("an archive is not written to a terminal: redirect it");
  const { source } = await remoteSource(remote, follows(args));
  const name = nameOf(remote.path);
  const isNamed = source.kind === "directory" && !meansContent(remote.path) && name !== "";
  const archive = isNamed ? withPrefix(archiveOf(remote), name) : archiveOf(remote);
  for await (const piece of archive) await context.stdout.write(piece);
}

async function copyIn(context: Context, args: Arguments, path: string, remote: Remote): Promise<void> {
  const source = localSource(path, follows(args));
  const target = targetPath(source, await remoteDestination(remote));
  const there = { ...remote, path: target };
  let bytes = 0;
  switch (source.kind) {
    case "directory": {
      const archive = archiveOfLocal(path, ({ unreadable, special }) => {
        if (unreadable > 0) context.warn(`sandboxctl: ${unreadable} left out, which may not be read`);
        if (special > 0) context.warn(`sandboxctl: ${special} left out: sockets, FIFOs or devices`);
      });
      bytes = Number((await unpackAt(there, archive)).bytes);
      break;
    }
    case "file": {
      const { stat, content } = openLocalFile(path);
      await writeRemote(there, { mode: stat.mode & 0o777, sizeBytes: stat.size }, content());
      bytes = stat.size;
      break;
    }
    case "link":
      await unpackAt({ ...there, path: posix.dirname(target) }, archiveOfLink(path, posix.basename(target)));
      break;
    default:
      source.kind satisfies never;
  }
  tell(context, args, bytes, `${remote.sandboxId}:${target}`);
}

async function streamIn(context: Context, args: Arguments, remote: Remote): Promise<void> {
  const destination = await remoteDestination(remote);
  if (destination.kind !== "directory")
    throw new CommandFailed(
      `${printable(remote.path)}: an archive is unpacked into a directory that is there`,
    );
  const { bytes } = await unpackAt(remote, process.stdin);
  tell(context, args, Number(bytes), `${remote.sandboxId}:${remote.path}`);
}

/** As docker cp: on standard error. */
function tell(context: Context, { flags }: Arguments, bytes: number, target: string): void {
  if (!flags.has("quiet")) context.warn(`copied ${bytesText(bytes)} to ${printable(target)}`);
}
