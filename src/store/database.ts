// Opens the SQLite file, and sets one that cannot be read aside: it is never a reason to lose a sandbox.

import { accessSync, constants, existsSync, mkdirSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { messageOf, SandboxdError } from "../errors.ts";
import { migrations } from "./schema.ts";

/** What the state needs of SQLite. */
export interface Database {
  readonly isTransaction: boolean;
  exec(sql: string): void;
  prepare(sql: string): Pick<StatementSync, "run" | "get" | "all">;
}

export interface OpenedDatabase {
  readonly db: Database;
  /** Its write-ahead log; there as long as the database is open. What is committed lasts once this file is synced. */
  readonly logFile: string;
  /** Where an unreadable file was moved to, if one was found. */
  readonly setAside: string | undefined;
  /** Gives up the state directory and closes. */
  close(): void;
}

/**
 * Locks the directory, opens `state.db` in it and brings it to the newest version.
 *
 * @throws Error if another daemon holds the directory, it cannot be read or written, or a newer release wrote the file.
 */
export function openDatabase(directory: string): OpenedDatabase {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const lock = lockDirectory(directory);
  try {
    const file = join(directory, "state.db");
    const existed = existsSync(file);
    const first = tryOpen(file, existed);
    if (first.db !== undefined) return opened(first.db, file, lock, undefined);
    if (!existed || !first.unreadable) throw first.error;
    const setAside = moveAside(file);
    const second = tryOpen(file, false);
    if (second.db === undefined) throw second.error;
    return opened(second.db, file, lock, setAside);
  } catch (error) {
    lock.close();
    throw error;
  }
}

function opened(
  db: DatabaseSync,
  file: string,
  lock: DatabaseSync,
  setAside: string | undefined,
): OpenedDatabase {
  return {
    db,
    logFile: `${file}-wal`,
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
  | { readonly db: undefined; readonly error: unknown; readonly unreadable: boolean };

/** The smallest page that SQLite knows, https://sqlite.org/fileformat.html. */
const leastPageBytes = 512;

function tryOpen(file: string, existed: boolean): Attempt {
  let db: DatabaseSync | undefined;
  try {
    // SQLite would take what was cut off within its header for a new file, and write over it
    if (existed && statSync(file).size < leastPageBytes) throw new Error(`${file} is cut off`);
    db = new DatabaseSync(file, { timeout: 5_000 });
    db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON");
    // 512 KiB of pages: what is read often is in memory already
    db.exec("PRAGMA cache_size = -512");
    const check = db.prepare("PRAGMA integrity_check(1)").get() as { readonly integrity_check: string };
    if (check.integrity_check !== "ok") throw new Error(`${file}: ${check.integrity_check}`);
    const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
    if (version > migrations.length) {
      db.close();
      const error = new Error(
        `${file} has version ${version}; this release knows up to ${migrations.length}\nHint: it was written by a newer sandboxd; start that one`,
      );
      return { db: undefined, error, unreadable: false };
    }
    migrate(db, version);
    checkContent(db, file);
    // a file that takes no writes shows here, not at the first change
    db.exec(`BEGIN IMMEDIATE; PRAGMA user_version = ${migrations.length}; ROLLBACK`);
    return { db };
  } catch (error) {
    if (db?.isOpen) db.close();
    return { db: undefined, error, unreadable: isUnreadable(error, file) };
  }
}

/** @throws Error for damage that SQLite takes for content: it has no checksums. */
function checkContent(db: DatabaseSync, file: string): void {
  const schemaOf = (one: DatabaseSync) =>
    (one.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").all() as { sql: string }[]).map(
      (row) => row.sql,
    );
  const model = new DatabaseSync(":memory:");
  try {
    migrate(model, 0);
    const present = new Set(schemaOf(db));
    const missing = schemaOf(model).find((sql) => !present.has(sql));
    if (missing !== undefined) throw new Error(`${file}: no such table: ${missing}`);
  } finally {
    model.close();
  }
  const broken = db.prepare("SELECT id FROM sandboxes WHERE NOT json_valid(document)").get() as
    | { readonly id: string }
    | undefined;
  if (broken !== undefined) throw new Error(`${file}: the document of sandbox ${broken.id} is not JSON`);
}

export function migrate(db: Database, from: number): void {
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

const sqliteError = 1;
const sqliteReadOnly = 8;
const sqliteIoError = 10;
const sqliteCorrupt = 11;
const sqliteFull = 13;
const sqliteNotADatabase = 26;
const sqliteIoErrorRead = 266;
const sqliteIoErrorShortRead = 522;

/** SQLite's extended code; undefined for an error that is not SQLite's. */
function codeOf(error: unknown): number | undefined {
  return error instanceof Error && "errcode" in error && typeof error.errcode === "number"
    ? error.errcode
    : undefined;
}

/** Whether the file itself is at fault. A full disk or a missing permission is no reason to begin anew. */
function isUnreadable(error: unknown, file: string): boolean {
  const code = codeOf(error);
  if (code === undefined || code === sqliteIoErrorRead || code === sqliteIoErrorShortRead) return true;
  const primary = code & 0xff;
  // a header of a later file format says so too
  if (primary === sqliteReadOnly) return isWritableFile(file);
  return primary === sqliteError || primary === sqliteCorrupt || primary === sqliteNotADatabase;
}

function isWritableFile(file: string): boolean {
  try {
    accessSync(file, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    // the question was whether, and this is the answer
    return false;
  }
}

/** SQLite's failures to write as the catalogue knows them; everything else as it is. */
export function writeError(error: unknown): unknown {
  const code = codeOf(error);
  if (code === undefined) return error;
  const primary = code & 0xff;
  if (primary === sqliteFull || primary === sqliteReadOnly || primary === sqliteIoError) {
    return new SandboxdError("STATE_DISK_FULL", `the state cannot be written: ${messageOf(error)}`, {
      hint: "free space on the file system of the state directory; the daemon goes on by itself",
      retryDelayMs: 5_000,
      cause: error,
    });
  }
  return error;
}
