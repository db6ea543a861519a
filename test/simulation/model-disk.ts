// The disk under the daemon's state. The database is SQLite's own, in memory; what stands for the disk is which commits a loss
// of power leaves. A crash of the daemon leaves them all.

import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { type Database, migrate } from "../../src/store/database.ts";
import type { Medium } from "../../src/store/store.ts";
import type { Random } from "./random.ts";
import type { VirtualTime } from "./virtual-time.ts";

/** What one transaction changed. */
export interface Commit {
  readonly puts: readonly { readonly id: string; readonly document: string }[];
  readonly removals: readonly string[];
  readonly tombstones: readonly string[];
  readonly events: readonly { readonly sequence: number; readonly document: string }[];
}

/** Thrown into code of a daemon that was just killed; nothing that it does then has an effect. */
export class DaemonDied extends Error {}

/** One life of the daemon's process. */
export interface Life {
  readonly isAlive: () => boolean;
  /** A point at which the schedule may kill it. */
  reached(point: "before-commit" | "after-commit" | "before-sync"): void;
}

export interface ModelDisk {
  /** Of the next life. */
  medium(life: Life): Medium;
  isFull: boolean;
  /** How long a sync takes at most. Milliseconds. */
  slownessMs: number;
  /** Loses all that was not synced. Returns what is left. */
  losePower(): readonly Commit[];
  /** Loses everything. */
  wipe(): void;
  /** Commits of which it was said that they last. */
  durableCount(): number;
  commits(): readonly Commit[];
  close(): void;
}

interface Write {
  readonly sql: string;
  readonly values: readonly SQLInputValue[];
}

interface Entry extends Commit {
  readonly writes: readonly Write[];
}

const db = new DatabaseSync(":memory:");
migrate(db, 0);
const statements = new Map<string, StatementSync>();

function prepared(sql: string): StatementSync {
  const statement = statements.get(sql) ?? db.prepare(sql);
  statements.set(sql, statement);
  return statement;
}

/** One at a time: each begins with an empty state. */
export function createModelDisk(
  time: VirtualTime,
  random: Random,
  onCommit: (commit: Commit) => void,
): ModelDisk {
  db.exec("BEGIN");
  let journal: Entry[] = [];
  let durable = 0;

  function entryOf(writes: readonly (Write & { readonly row: number })[]): Entry {
    const of = (beginning: string) => writes.filter(({ sql }) => sql.startsWith(beginning));
    return {
      writes,
      puts: of("INSERT INTO sandboxes").map(({ values: [id, document] }) => ({
        id: String(id),
        document: String(document),
      })),
      removals: of("DELETE FROM sandboxes").map(({ values: [id] }) => String(id)),
      tombstones: of("INSERT OR REPLACE INTO tombstones").map(({ values: [instance] }) => String(instance)),
      events: of("INSERT INTO events").map(({ values: [, document], row }) => ({
        sequence: row,
        document: String(document),
      })),
    };
  }

  function databaseOf(life: Life): Database {
    let open: (Write & { readonly row: number })[] | undefined;
    const isDead = () => !life.isAlive();
    const undo = () => {
      open = undefined;
      db.exec("ROLLBACK TO change; RELEASE change");
    };
    return {
      get isTransaction() {
        return open !== undefined;
      },
      exec(sql) {
        if (isDead()) throw new DaemonDied();
        if (sql.startsWith("BEGIN")) {
          db.exec("SAVEPOINT change");
          open = [];
        } else if (sql === "ROLLBACK") {
          undo();
        } else if (sql === "COMMIT" && open !== undefined) {
          life.reached("before-commit");
          if (isDead()) undo();
          if (isDead()) throw new DaemonDied();
          if (disk.isFull) throw Object.assign(new Error("database or disk is full"), { errcode: 13 });
          const entry = entryOf(open);
          open = undefined;
          db.exec("RELEASE change");
          journal.push(entry);
          onCommit(entry);
          life.reached("after-commit");
          if (isDead()) throw new DaemonDied();
        } else {
          throw new Error(`the model knows no ${sql}`);
        }
      },
      prepare(sql) {
        const statement = prepared(sql);
        return {
          get: (...values: SQLInputValue[]) => statement.get(...values),
          all: (...values: SQLInputValue[]) => statement.all(...values),
          run(...values: SQLInputValue[]) {
            if (isDead()) throw new DaemonDied();
            const result = statement.run(...values);
            const write = { sql, values, row: Number(result.lastInsertRowid) };
            if (open !== undefined) {
              open.push(write);
              return result;
            }
            const entry = entryOf([write]);
            journal.push(entry);
            onCommit(entry);
            return result;
          },
        } as ReturnType<Database["prepare"]>;
      },
    };
  }

  const disk: ModelDisk = {
    isFull: false,
    slownessMs: 5,
    medium: (life) => ({
      db: databaseOf(life),
      setAside: undefined,
      close: () => undefined,
      disk: {
        sync: () =>
          new Promise((resolve) => {
            life.reached("before-sync");
            const position = journal.length;
            const entry = journal[position - 1];
            time.after(random.between(1, disk.slownessMs), () => {
              // what a loss of power took away meanwhile is not there to be synced
              if (journal[position - 1] !== entry) return;
              durable = Math.max(durable, position);
              if (life.isAlive()) resolve();
            });
          }),
        syncNow() {
          if (life.isAlive()) durable = journal.length;
        },
        close: () => undefined,
      },
    }),
    losePower() {
      journal = journal.slice(0, durable);
      db.exec("ROLLBACK; BEGIN");
      for (const { sql, values } of journal.flatMap(({ writes }) => writes)) prepared(sql).run(...values);
      return journal;
    },
    wipe() {
      durable = 0;
      disk.losePower();
    },
    durableCount: () => durable,
    commits: () => journal,
    close: () => db.exec("ROLLBACK"),
  };
  return disk;
}
