// What lasts: documents of sandboxes, of their processes, of tenants and of workspaces, tenants' uids, tombstones, the event log, and small facts, changed in
// transactions only. Knows nothing of what the documents mean.

import { randomUUID } from "node:crypto";
import { type Database, openDatabase, writeError } from "./database.ts";
import { createDurability, type Disk, openDisk } from "./durability.ts";
import { createEventLog, type EventLog } from "./event-log.ts";

export interface StoreOptions extends KeepingOptions {
  readonly directory: string;
}

export interface KeepingOptions {
  /** Told how long each write to disk took, which may be of several commits. Unit: seconds. */
  readonly onSync?: (seconds: number) => void;
  /** Most events kept, and the longest they are kept. */
  readonly eventRetention: { readonly count: number; readonly ageMs: number };
}

export interface Transaction {
  putSandbox(id: string, document: string): void;
  /** Forgets the row with those of its processes, and remembers that this instance was deleted. */
  removeSandbox(id: string, instance: string): void;
  appendEvent(timeMs: number, document: string): number;
  putTenant(name: string, document: string): void;
  /** Forgets the tenant; its uid is the last to be given to another. */
  removeTenant(name: string): void;
  /**
   * The tenant's uid, also if it was removed meanwhile; else the lowest of the range that was never given, or the one that was
   * released longest ago. Undefined when the range is used up.
   */
  uidOf(tenant: string, range: { readonly first: number; readonly last: number }): number | undefined;
  /** Notes a uid that a tenant is known to have. */
  claimUid(tenant: string, uid: number): void;
  putProcess(sandbox: string, id: string, document: string): void;
  removeProcess(sandbox: string, id: string): void;
  putWorkspace(id: string, document: string): void;
  removeWorkspace(id: string): void;
  setMeta(key: string, value: string): void;
  putMeter(key: string, document: string): void;
  removeMeter(key: string): void;
}

export interface Store {
  /** Made with the file: another epoch means that sequence numbers begin anew. */
  readonly epoch: string;
  /** Where an unreadable file was moved to at this opening. */
  readonly setAside: string | undefined;
  readonly events: EventLog;
  sandboxDocuments(): readonly string[];
  processDocuments(): readonly string[];
  tenantDocuments(): readonly string[];
  workspaceDocuments(): readonly string[];
  meters(): readonly { readonly key: string; readonly document: string }[];
  isTombstone(instance: string): boolean;
  meta(key: string): string | undefined;
  /**
   * Runs `change` as one transaction; all of it or nothing. Readers see it at once, it survives the end of the process at
   * once, and a loss of power once `durable()` resolves; only then are its events told.
   *
   * @throws SandboxdError STATE_DISK_FULL when it cannot be written, and whatever `change` throws.
   */
  transact<T>(change: (transaction: Transaction) => T): T;
  /** Resolves once every transaction so far survives a loss of power. */
  durable(): Promise<void>;
  /** Whether a write would go through, found out by writing. */
  isWritable(): boolean;
  close(): void;
}

/** Tombstones outlive any request that an engine could still carry out. */
const tombstoneAgeMs = 30 * 24 * 3_600_000;

/** Opens the state, see `openDatabase` for what it throws. */
export function openStore({ directory, ...options }: StoreOptions): Store {
  const { logFile, ...opened } = openDatabase(directory);
  return storeOver({ ...opened, disk: openDisk(logFile) }, options);
}

/** What the state is kept in. */
export interface Medium {
  /** Of the newest version. */
  readonly db: Database;
  readonly disk: Disk;
  readonly setAside: string | undefined;
  close(): void;
}

/** The state in a database that is open. */
export function storeOver(
  { db, disk, setAside, close }: Medium,
  { eventRetention, onSync }: KeepingOptions,
): Store {
  const getMeta = db.prepare("SELECT value FROM meta WHERE key = ?");
  const setMeta = db.prepare(
    "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
  );
  const putSandbox = db.prepare(
    "INSERT INTO sandboxes VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET document = excluded.document",
  );
  const removeSandbox = db.prepare("DELETE FROM sandboxes WHERE id = ?");
  const putTombstone = db.prepare("INSERT OR REPLACE INTO tombstones VALUES (?, ?)");
  const getTombstone = db.prepare("SELECT 1 FROM tombstones WHERE instance = ?");
  const putTenant = db.prepare(
    "INSERT INTO tenants VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET document = excluded.document",
  );
  const removeTenant = db.prepare("DELETE FROM tenants WHERE name = ?");
  const getUid = db.prepare("UPDATE uids SET released_ms = NULL WHERE name = ? RETURNING uid");
  const putUid = db.prepare("INSERT INTO uids (name, uid) VALUES (?, ?)");
  const claimUid = db.prepare("INSERT INTO uids (name, uid) VALUES (?, ?) ON CONFLICT DO NOTHING");
  const releaseUid = db.prepare("UPDATE uids SET released_ms = ? WHERE name = ?");
  // the range's first if free, else the lowest whose predecessor is taken and that is itself free
  const nextUid = db.prepare(`
    SELECT ?1 AS uid WHERE NOT EXISTS (SELECT 1 FROM uids WHERE uid = ?1)
    UNION ALL
    SELECT min(t.uid + 1) FROM uids t
    WHERE t.uid >= ?1 AND t.uid < ?2 AND NOT EXISTS (SELECT 1 FROM uids u WHERE u.uid = t.uid + 1)
    LIMIT 1`);
  const takeReleased = db.prepare(`
    DELETE FROM uids WHERE name = (
      SELECT name FROM uids WHERE released_ms IS NOT NULL AND uid BETWEEN ?1 AND ?2
      ORDER BY released_ms, uid LIMIT 1
    ) RETURNING uid`);
  const putProcess = db.prepare(
    "INSERT INTO processes VALUES (?, ?, ?) ON CONFLICT (sandbox, id) DO UPDATE SET document = excluded.document",
  );
  const removeProcess = db.prepare("DELETE FROM processes WHERE sandbox = ? AND id = ?");
  const removeProcesses = db.prepare("DELETE FROM processes WHERE sandbox = ?");
  const putWorkspace = db.prepare(
    "INSERT INTO workspaces VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET document = excluded.document",
  );
  const removeWorkspace = db.prepare("DELETE FROM workspaces WHERE id = ?");
  const putMeter = db.prepare(
    "INSERT INTO meters VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET document = excluded.document",
  );
  const removeMeter = db.prepare("DELETE FROM meters WHERE key = ?");
  const events = createEventLog(db, eventRetention);

  const documents = (query: string) =>
    (db.prepare(query).all() as { document: string }[]).map(({ document }) => document);
  const meta = (key: string) => (getMeta.get(key) as { value: string } | undefined)?.value;
  let epoch = meta("epoch");
  if (epoch === undefined) {
    epoch = randomUUID();
    setMeta.run("epoch", epoch);
  }
  db.prepare("DELETE FROM tombstones WHERE time_ms < ?").run(Date.now() - tombstoneAgeMs);
  const durability = createDurability({
    disk,
    mark: events.newestCommitted,
    onDurable(sequence, seconds) {
      onSync?.(seconds);
      events.durable(sequence);
    },
  });

  const transaction: Transaction = {
    putSandbox: (id, document) => void putSandbox.run(id, document),
    removeSandbox(id, instance) {
      removeSandbox.run(id);
      removeProcesses.run(id);
      putTombstone.run(instance, Date.now());
    },
    appendEvent: (timeMs, document) => events.append(timeMs, document),
    putTenant: (name, document) => void putTenant.run(name, document),
    removeTenant(name) {
      removeTenant.run(name);
      releaseUid.run(Date.now(), name);
    },
    uidOf(tenant, { first, last }) {
      const known = getUid.get(tenant) as { uid: number } | undefined;
      if (known !== undefined) return known.uid;
      const unused = (nextUid.get(first, last) as { uid: number | null } | undefined)?.uid;
      const free = unused ?? (takeReleased.get(first, last) as { uid: number } | undefined)?.uid;
      if (free !== undefined) putUid.run(tenant, free);
      return free;
    },
    claimUid: (tenant, uid) => void claimUid.run(tenant, uid),
    putProcess: (sandbox, id, document) => void putProcess.run(sandbox, id, document),
    removeProcess: (sandbox, id) => void removeProcess.run(sandbox, id),
    putWorkspace: (id, document) => void putWorkspace.run(id, document),
    removeWorkspace: (id) => void removeWorkspace.run(id),
    setMeta: (key, value) => void setMeta.run(key, value),
    putMeter: (key, document) => void putMeter.run(key, document),
    removeMeter: (key) => void removeMeter.run(key),
  };

  function transact<T>(change: (transaction: Transaction) => T): T {
    let result: T;
    try {
      db.exec("BEGIN IMMEDIATE");
      result = change(transaction);
      db.exec("COMMIT");
    } catch (error) {
      if (db.isTransaction) db.exec("ROLLBACK");
      events.rolledBack();
      throw writeError(error);
    }
    events.committed();
    durability.committed();
    return result;
  }

  return {
    epoch,
    setAside,
    events,
    sandboxDocuments: () => documents("SELECT document FROM sandboxes ORDER BY id"),
    processDocuments: () => documents("SELECT document FROM processes ORDER BY sandbox, id"),
    tenantDocuments: () => documents("SELECT document FROM tenants ORDER BY name"),
    workspaceDocuments: () => documents("SELECT document FROM workspaces ORDER BY id"),
    meters: () => db.prepare("SELECT key, document FROM meters").all() as { key: string; document: string }[],
    isTombstone: (instance) => getTombstone.get(instance) !== undefined,
    meta,
    transact,
    durable: durability.durable,
    isWritable() {
      try {
        transact((t) => t.setMeta("written", String(Date.now())));
        return true;
      } catch {
        // the caller asks whether, not why; the next real write carries the reason
        return false;
      }
    },
    close() {
      events.close();
      durability.close();
      close();
    },
  };
}
