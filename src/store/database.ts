// Opens the SQLite file so that what was committed survives power loss, and so that a file that cannot be read is
// set aside and never a reason to lose a sandbox.

import { existsSync, mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { messageOf, SandboxdError } from "../errors.ts";
import { migrations } from "./schema.ts";

export interface OpenedDatabase {
  readonly db: DatabaseSync;
  /** Where an unreadable file was moved to, if one was found. */
  readonly setAside: string | undefined;
  /** Gives up the state directory and closes. */
  close(): void;
}

/**
 * Locks the directory, opens `state.db` in it and brings it to the newest version.
 *
 * @throws Error if another daemon holds the directory, it cannot be written, or a newer release wrote the file.
 */
export function openDatabase(directory: string): OpenedDatabase {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const lock = lockDirectory(directory);
  try {
    const file = join(directory, "state.db");
    const existed = existsSync(file);
    const first = tryOpen(file);
    if (first.db !== undefined) return opened(first.db, lock, undefined);
    if (!existed || first.newer) throw first.error;
    const setAside = moveAside(file);
    const second = tryOpen(file);
    if (second.db === undefined) throw second.error;
    return opened(second.db, lock, setAside);
  } catch (error) {
    lock.close();
    throw error;
  }
}

function opened(db: DatabaseSync, lock: DatabaseSync, setAside: string | undefined): OpenedDatabase {
  return {
    db,
    setAside,
    close: () => {
      db.close();
      lock.close();
    },
  };
}

/**
 * The kernel drops a dead process's file locks, so nothing stale can be left behind. A file of its own leaves the
 * state readable for an operator's sqlite3 meanwhile.
 */
function lockDirectory(directory: string): DatabaseSync {
  const lock = new DatabaseSync(join(directory, "lock.db"), { timeout: 0 });
  try {
    lock.exec("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE");
    return lock;
  } catch (error) {
    lock.close();
    if (messageOf(error).includes("locked")) {
      throw new Error(
        `state directory ${directory} is in use by another sandboxd\nHint: stop it, or give this one its own [state] directory`,
        { cause: error },
      );
    }
    throw error;
  }
}

type Attempt =
  | { readonly db: DatabaseSync }
  | { readonly db: undefined; readonly error: unknown; readonly newer: boolean };

function tryOpen(file: string): Attempt {
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(file, { timeout: 5_000 });
    db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON");
    const check = db.prepare("PRAGMA quick_check(1)").get() as { readonly quick_check: string };
    if (check.quick_check !== "ok") throw new Error(`${file}: ${check.quick_check}`);
    const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
    if (version > migrations.length) {
      db.close();
      const error = new Error(
        `${file} has version ${version}; this release knows up to ${migrations.length}\nHint: it was written by a newer sandboxd; start that one`,
      );
      return { db: undefined, error, newer: true };
    }
    migrate(db, version);
    return { db };
  } catch (error) {
    if (db?.isOpen) db.close();
    return { db: undefined, error, newer: false };
  }
}

function migrate(db: DatabaseSync, from: number): void {
  for (const [offset, migration] of migrations.slice(from).entries()) {
    db.exec(`BEGIN IMMEDIATE; ${migration}; PRAGMA user_version = ${from + offset + 1}; COMMIT`);
  }
}

function moveAside(file: string): string {
  const target = `${file}.unreadable-${new Date().toISOString().replaceAll(":", "")}`;
  for (const suffix of ["", "-wal", "-shm"]) {
    if (existsSync(file + suffix)) renameSync(file + suffix, target + suffix);
  }
  return target;
}

const sqliteFull = 13;
const sqliteReadOnly = 8;
const sqliteIoError = 10;

/** SQLite's failures to write as the catalogue knows them; everything else as it is. */
export function writeError(error: unknown): unknown {
  if (!(error instanceof Error) || !("errcode" in error) || typeof error.errcode !== "number") return error;
  const primary = error.errcode & 0xff;
  if (primary === sqliteFull || primary === sqliteReadOnly || primary === sqliteIoError) {
    return new SandboxdError("STATE_DISK_FULL", `the state cannot be written: ${error.message}`, {
      hint: "free space on the file system of the state directory; the daemon goes on by itself",
      retryDelayMs: 5_000,
      cause: error,
    });
  }
  return error;
}
