// Names in archives and on disk. They are bytes, not text: a string here holds one byte in each of its characters ("latin1"), so
// that a name in whatever encoding comes back as it was.

import { SandboxdError } from "../../errors.ts";

/** Most directories around an entry, itself included if it is one. */
export const mostDepth = 64;

/** As the kernel's PATH_MAX. Unit: bytes. */
export const mostPathBytes = 4096;

/** As the kernel's NAME_MAX. Unit: bytes. */
const mostNameBytes = 255;

const mostShown = 200;

/**
 * Text that may go to a log or a terminal, on one line and of bounded length: what is not printable, or turns the direction of
 * writing, is shown as an escape.
 */
export function printable(text: string, most: number = mostShown): string {
  const shown = text.slice(0, most).replace(/[\p{C}\p{Zl}\p{Zp}"\\]/gu, escapeOf);
  return text.length > most ? `${shown}…` : shown;
}

function escapeOf(character: string): string {
  if (character === '"' || character === "\\") return `\\${character}`;
  return `\\u{${character.codePointAt(0)?.toString(16)}}`;
}

/** A name for people to read. */
export function shown(name: string): string {
  return printable(Buffer.from(name.slice(0, mostPathBytes), "latin1").toString("utf8"));
}

/** ARCHIVE_REFUSED for an entry. */
export function refused(
  name: string,
  why: string,
  facts: Readonly<Record<string, string>> = {},
): SandboxdError {
  return new SandboxdError("ARCHIVE_REFUSED", `entry "${shown(name)}": ${why}`, {
    metadata: { entry: shown(name), ...facts },
  });
}

/** Components of an entry's path; none if it is the directory that all is in. @throws SandboxdError ARCHIVE_REFUSED */
export function componentsOf(path: string, isDirectory: boolean): readonly string[] {
  if (path === "") throw refused(path, "it has no name");
  if (path.includes("\0")) throw refused(path, "its name has a NUL");
  if (path.startsWith("/")) throw refused(path, "its path is absolute");
  if (path.length > mostPathBytes) throw refused(path, ...tooLong("path", mostPathBytes, path.length));
  // "a//b" and "./a" are other spellings
  const components = path.split("/").filter((name) => name !== "" && name !== ".");
  if (components.includes("..")) throw refused(path, 'its path has ".."');
  const longest = components.find((name) => name.length > mostNameBytes);
  if (longest !== undefined) throw refused(path, ...tooLong("name", mostNameBytes, longest.length));
  if (components.length === 0 && !isDirectory) throw refused(path, "it has no name");
  if (components.length - (isDirectory ? 0 : 1) > mostDepth)
    throw refused(path, `it is deeper than ${mostDepth} directories`, { limit: `${mostDepth}` });
  return components;
}

function tooLong(what: string, limit: number, value: number): [string, Record<string, string>] {
  return [`its ${what} is longer than ${limit} bytes`, { limit: `${limit}`, value: `${value}` }];
}
