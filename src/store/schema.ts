// The tables, one migration per release that changed them. A migration is never edited once released.

/** `migrations[n]` takes a database of version n to version n + 1. */
export const migrations: readonly string[] = [
  `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
  CREATE TABLE sandboxes (id TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
  CREATE TABLE tenants (name TEXT PRIMARY KEY, uid INTEGER NOT NULL UNIQUE) STRICT;
  -- instances whose deletion was confirmed: a container that turns up later with one of these ids is an orphan
  CREATE TABLE tombstones (instance TEXT PRIMARY KEY, time_ms INTEGER NOT NULL) STRICT;
  CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    document TEXT NOT NULL
  ) STRICT;
  `,
  // Tenants are more than their uids. A uid stays its tenant's when that is deleted, as long as there are others.
  `
  ALTER TABLE tenants RENAME TO uids;
  ALTER TABLE uids ADD COLUMN released_ms INTEGER;
  CREATE TABLE tenants (name TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
  INSERT INTO tenants
    SELECT name, json_object(
      'name', name, 'uid', uid, 'generation', 1,
      'createdAtMs', unixepoch() * 1000, 'updatedAtMs', unixepoch() * 1000
    ) FROM uids;
  `,
  `
  -- what sandboxes and tenants used
  CREATE TABLE meters (key TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
  `,
  `
  CREATE TABLE workspaces (id TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
  `,
  `
  -- what runs, or ran a while ago, in sandboxes; they go with their sandbox
  CREATE TABLE processes (
    sandbox TEXT NOT NULL,
    id TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (sandbox, id)
  ) STRICT;
  `,
];
