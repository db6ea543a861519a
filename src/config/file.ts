// The configuration file: read it, parse it, and find the lines of its keys again.

import { readFileSync, statSync } from "node:fs";
import { parse, TomlError, type TomlTable } from "smol-toml";
import { messageOf } from "../errors.ts";
import type { ConfigError } from "./error.ts";
import { isTable } from "./field.ts";

/** The file that is read when none is named. */
const defaultFile = "/etc/sandboxd/sandboxd.toml";

/** A file of this many bytes is not a configuration. */
const maxFileBytes = 1024 * 1024;

/** Beyond so many characters times lines, finding a key's line would take seconds. */
const maxLocateWork = 200_000_000;

/** The file to read: the one named, else the default one where it exists, else none. */
export function findConfigFile(named: string | undefined): string | undefined {
  return named ?? (statSync(defaultFile, { throwIfNoEntry: false })?.isFile() ? defaultFile : undefined);
}

/** Reads a file that may be anything. Never throws. */
export function readConfigFile(
  file: string,
): { readonly text: string } | { readonly errors: readonly ConfigError[] } {
  const fail = (problem: string, hint?: string) => ({
    errors: [
      { source: { kind: "file", file }, key: "", problem, ...(hint === undefined ? {} : { hint }) } as const,
    ],
  });
  try {
    const { mode, size } = statSync(file);
    if (size > maxFileBytes) return fail(`has ${size} bytes; at most ${maxFileBytes} are read`);
    if ((mode & 0o002) !== 0) {
      return fail("can be written by everyone, who could so run anything", `chmod o-w ${file}`);
    }
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(file)) };
  } catch (error) {
    return fail(`cannot be read: ${messageOf(error)}`, "name the file with --config; it is UTF-8 text");
  }
}

/** Parses TOML, with integers as bigint. Syntax errors carry line and column; the parser stops at the first. */
export function parseConfig(
  text: string,
  file: string,
): { readonly document: TomlTable } | { readonly errors: readonly ConfigError[] } {
  try {
    return { document: parseToml(text) };
  } catch (error) {
    const place = error instanceof TomlError ? { line: error.line, column: error.column } : {};
    const [summary = ""] = messageOf(error).split("\n");
    const problem = summary.replace(/^Invalid TOML document: /, "is not valid TOML: ");
    return { errors: [{ source: { kind: "file", file, ...place }, key: "", problem }] };
  }
}

/**
 * The line, from 1, of the statement that first gives each path. The parser itself is asked, with ever more
 * lines, so that strings over several lines and dotted keys are understood as it does. For error messages: the time
 * grows with the square of the file. A path that isn't found has no entry.
 */
export function locate(text: string, paths: readonly (readonly string[])[]): ReadonlyMap<string, number> {
  const found = new Map<string, number>();
  const lines = text.split("\n");
  if (text.length * lines.length > maxLocateWork) return found;
  let statement = 1;
  let missing = paths;
  for (let count = 1; count <= lines.length && missing.length > 0; count++) {
    const document = parsePrefix(lines.slice(0, count));
    if (document === undefined) continue;
    for (const path of missing) if (has(document, path)) found.set(path.join("."), statement);
    missing = missing.filter((path) => !found.has(path.join(".")));
    statement = count + 1;
  }
  return found;
}

function parseToml(text: string): TomlTable {
  return parse(text, { integersAsBigInt: true, unsafeKeyBehaviour: "throw", maxDepth: 32 });
}

function parsePrefix(lines: readonly string[]): TomlTable | undefined {
  try {
    return parseToml(lines.join("\n"));
  } catch {
    // an unfinished statement, which the next lines finish
    return undefined;
  }
}

function has(document: TomlTable, path: readonly string[]): boolean {
  let value: unknown = document;
  for (const key of path) {
    if (!isTable(value) || !Object.hasOwn(value, key)) return false;
    value = value[key];
  }
  return true;
}
