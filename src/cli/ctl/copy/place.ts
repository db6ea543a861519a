// The two ends of a copy, as docker cp writes them, and what becomes of the one at the other.

import { basename, posix } from "node:path";
import { UsageError } from "../arguments.ts";
import { CommandFailed } from "../context.ts";
import { printable } from "../text.ts";

/** A word of the command line. */
export type Place =
  | { readonly kind: "sandbox"; readonly sandboxId: string; readonly path: string }
  | { readonly kind: "local"; readonly path: string }
  /** Standard input or output: a tar archive. */
  | { readonly kind: "stream" };

/** "-", "ID:PATH", or a local path: one with a colon needs "./" or "/" before it. Paths in a sandbox begin at its root. */
export function parsePlace(word: string): Place {
  if (word === "-") return { kind: "stream" };
  const [, sandboxId, path] = /^([a-z0-9][a-z0-9-]{0,62}):(.*)$/s.exec(word) ?? [];
  if (sandboxId === undefined || path === undefined) return { kind: "local", path: word };
  return { kind: "sandbox", sandboxId, path: path.startsWith("/") ? path : `/${path}` };
}

/** For commands that are about one place in a sandbox. @throws UsageError */
export function parseSandboxPlace(word: string): Extract<Place, { kind: "sandbox" }> {
  const place = parsePlace(word);
  if (place.kind !== "sandbox") throw new UsageError(`${JSON.stringify(word)}: expected SANDBOX:PATH`);
  return place;
}

/** What is copied. */
export interface Source {
  readonly kind: "file" | "directory" | "link";
  /** As it was given. */
  readonly path: string;
}

/** Where to. */
export interface Destination {
  readonly kind: "absent" | "file" | "directory";
  readonly path: string;
  /** Whether the directory that it is in exists. */
  readonly hasParent: boolean;
}

/** Its name where it is copied into a directory; empty for the root itself. */
export function nameOf(path: string): string {
  return basename(posix.normalize(path));
}

/** Whether what is in the directory is meant, and not it. */
export function meansContent(path: string): boolean {
  return path === "." || path.endsWith("/.");
}

/** The path that the source gets, by the rules of docker cp. @throws CommandFailed */
export function targetPath(source: Source, destination: Destination): string {
  const wrong = (why: string) => new CommandFailed(`${printable(destination.path)}: ${why}`);
  const isDirectoryMeant = destination.path.endsWith("/");
  if (source.kind !== "directory") {
    if (source.path.endsWith("/") || meansContent(source.path))
      throw new CommandFailed(`${printable(source.path)}: it is not a directory`);
    if (destination.kind === "directory") return posix.join(destination.path, nameOf(source.path));
    if (isDirectoryMeant)
      throw wrong(destination.kind === "absent" ? "no such directory" : "it is not a directory");
  } else if (destination.kind === "file") {
    throw wrong("a directory cannot be copied onto a file");
  }
  if (destination.kind === "absent" && !destination.hasParent)
    throw wrong("the directory above it does not exist");
  if (destination.kind !== "directory" || meansContent(source.path)) return destination.path;
  return posix.join(destination.path, nameOf(source.path));
}
