// The event log: appended inside transactions, told only once it is on disk, trimmed by count and age.

import { SandboxdError } from "../errors.ts";
import { type Database, writeError } from "./database.ts";

export interface StoredEvent {
  readonly sequence: number;
  readonly timeMs: number;
  readonly document: string;
}

export interface EventLog {
  /** Events with a greater sequence number that may be told, oldest first, at most `limit`. */
  readAfter(sequence: number, limit: number): readonly StoredEvent[];
  /** The oldest retained; `newest() + 1` when none is. */
  oldest(): number;
  /** The newest that may be told, since it is on disk; 0 before the first. */
  newest(): number;
  /** Calls back whenever `newest` has risen. Returns how to stop. */
  subscribe(listener: () => void): () => void;
}

interface WritableEventLog extends EventLog {
  append(timeMs: number, document: string): number;
  committed(): void;
  rolledBack(): void;
  /** The newest that was committed. */
  newestCommitted(): number;
  /** Everything up to this sequence number is on disk. */
  durable(sequence: number): void;
  close(): void;
}

const trimEvery = 256;

/** The log over an open database. `append` is for the store's transactions alone. */
export function createEventLog(
  db: Database,
  retention: { readonly count: number; readonly ageMs: number },
): WritableEventLog {
  const insert = db.prepare("INSERT INTO events (time_ms, document) VALUES (?, ?)");
  const after = db.prepare(
    "SELECT sequence, time_ms AS timeMs, document FROM events WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?",
  );
  const trim = db.prepare("DELETE FROM events WHERE sequence <= ? OR time_ms < ?");
  const listeners = new Set<() => void>();

  // AUTOINCREMENT remembers the newest even when all rows were trimmed
  const row = db.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'events'").get() as
    | { seq: number }
    | undefined;
  let newest = row?.seq ?? 0;
  trimAtOpening();
  let oldest = oldestRetained();
  let committed = newest;
  let pending = newest;
  let untrimmed = 0;
  let trimmed = false;

  /** What became too old while nobody wrote, or is too much by another configuration. */
  function trimAtOpening(): void {
    try {
      trim.run(newest - retention.count, Date.now() - retention.ageMs);
    } catch (error) {
      const failure = writeError(error);
      // a full disk keeps nobody from reading; it is trimmed by the next that writes
      if (!(failure instanceof SandboxdError)) throw failure;
    }
  }

  function oldestRetained(): number {
    const { first } = db.prepare("SELECT min(sequence) AS first FROM events").get() as {
      first: number | null;
    };
    return first ?? newest + 1;
  }

  return {
    append(timeMs, document) {
      if (++untrimmed >= trimEvery) {
        untrimmed = 0;
        trimmed = true;
        trim.run(pending - retention.count, timeMs - retention.ageMs);
      }
      pending = Number(insert.run(timeMs, document).lastInsertRowid);
      return pending;
    },
    committed() {
      committed = pending;
      if (trimmed) oldest = oldestRetained();
      trimmed = false;
    },
    rolledBack() {
      pending = committed;
    },
    newestCommitted: () => committed,
    durable(sequence) {
      if (sequence === newest) return;
      newest = sequence;
      for (const listener of listeners) listener();
    },
    readAfter: (sequence, limit) => after.all(sequence, newest, limit) as unknown as readonly StoredEvent[],
    oldest: () => oldest,
    newest: () => newest,
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close: () => listeners.clear(),
  };
}
