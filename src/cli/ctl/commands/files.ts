// sandboxctl ls and cat

import {
  type FileInfo,
  FileInfoSchema,
  FilesystemService,
  FileType,
} from "../../../../gen/sandboxd/v1/filesystem_service_pb.ts";
import type { Command } from "../context.ts";
import { parseSandboxPlace } from "../copy/place.ts";
import { contentOf, remoteStat } from "../copy/remote.ts";
import { allPages, printList } from "../output.ts";
import { timeText } from "../units.ts";

const pageSize = 1_000;

export const ls: Command = async (context, args) => {
  const { sandboxId, path } = parseSandboxPlace(args.words[0] ?? "");
  const files = context.client(FilesystemService);
  const info = await remoteStat({ files, sandboxId, path }, { follow: true });
  const isDirectory = info === undefined || info.type === FileType.DIRECTORY;
  const items = isDirectory
    ? await allPages(async (pageToken) => {
        const page = await files.listDirectory({ sandboxId, path, pageSize, pageToken });
        return { items: page.files, nextPageToken: page.nextPageToken };
      })
    : [info];
  printList(context, args, {
    schema: FileInfoSchema,
    items,
    id: nameOf,
    titles: ["MODE", "OWNER", "SIZE", "MODIFIED", "NAME"],
    row: (file) => [
      modeText(file),
      `${file.uid}:${file.gid}`,
      String(file.sizeBytes),
      timeText(file.modifiedAt),
      file.type === FileType.SYMLINK ? `${nameOf(file)} -> ${file.linkTarget}` : nameOf(file),
    ],
  });
  return 0;
};

const nameOf = ({ path }: FileInfo): string => path.slice(path.lastIndexOf("/") + 1) || path;

const typeLetters: Readonly<Record<FileType, string>> = {
  [FileType.UNSPECIFIED]: "?",
  [FileType.FILE]: "-",
  [FileType.DIRECTORY]: "d",
  [FileType.SYMLINK]: "l",
  [FileType.OTHER]: "?",
};

/** "drwxr-xr-t". */
function modeText({ type, mode }: FileInfo): string {
  const letters = [..."rwxrwxrwx"].map((letter, at) => ((mode >> (8 - at)) & 1 ? letter : "-"));
  const special = (at: number, bit: number, letter: string) => {
    if (mode & bit) letters[at] = letters[at] === "x" ? letter : letter.toUpperCase();
  };
  special(2, 0o4000, "s");
  special(5, 0o2000, "s");
  special(8, 0o1000, "t");
  return (typeLetters[type] ?? "?") + letters.join("");
}

export const cat: Command = async (context, args) => {
  const { sandboxId, path } = parseSandboxPlace(args.words[0] ?? "");
  const files = context.client(FilesystemService);
  for await (const piece of contentOf({ files, sandboxId, path })) await context.stdout.write(piece);
  return 0;
};
