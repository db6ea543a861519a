import { copyFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, test } from "vitest";
import { contentOf, open, stateDirectory, using } from "./directory.ts";

const ids = Array.from({ length: 20 }, (_, index) => `sandbox-${index + 10}`);

/** A state file with twenty sandboxes and their events, checkpointed. */
function wholeState(): { readonly content: Buffer; readonly epoch: string } {
  const directory = stateDirectory();
  const epoch = using(directory, (store) => {
    for (const id of ids) {
      store.transact((t) => {
        t.putSandbox(id, JSON.stringify({ id, words: "x".repeat(300) }));
        t.appendEvent(1, JSON.stringify({ id }));
      });
    }
    return store.epoch;
  });
  return { content: readFileSync(join(directory, "state.db")), epoch };
}

/** Opens a directory whose state has this content. Refused: undefined. */
function openWith(directory: string, name: string, content: Buffer) {
  const own = join(directory, name);
  mkdirSync(own);
  writeFileSync(join(own, "state.db"), content);
  let store: ReturnType<typeof open>;
  try {
    store = open(own);
  } catch (error) {
    expect(String(error)).toContain("newer sandboxd");
    expect(readFileSync(join(own, "state.db")).equals(content)).toBe(true);
    return undefined;
  }
  try {
    if (store.setAside === undefined)
      return { store: contentOf(store), epoch: store.epoch, setAside: undefined };
    return { store: contentOf(store), epoch: store.epoch, setAside: readFileSync(store.setAside) };
  } finally {
    store.close();
  }
}

/** The damaged file was kept, and what opened in its place is empty, or all of it is still there. */
function expectNothingLost(
  found: ReturnType<typeof openWith>,
  given: Buffer,
  epoch: string,
): "refused" | "set aside" | "opened" {
  if (found === undefined) return "refused";
  if (found.setAside !== undefined) {
    expect(found.setAside.equals(given)).toBe(true);
    expect(found.store).toEqual({ sandboxes: [], events: [] });
    expect(found.epoch).not.toBe(epoch);
    return "set aside";
  }
  expect(found.store.sandboxes).toHaveLength(ids.length);
  for (const document of found.store.sandboxes) expect(() => JSON.parse(document)).not.toThrow();
  return "opened";
}

// hundreds of openings, each with its syncs
describe("a state file", { timeout: 60_000 }, () => {
  test("cut off anywhere is set aside as it was found", () => {
    const { content, epoch } = wholeState();
    const directory = stateDirectory();
    for (let length = 0; length < content.length; length += 997) {
      const given = content.subarray(0, length);
      const outcome = expectNothingLost(openWith(directory, `cut-${length}`, given), given, epoch);
      expect([length, outcome]).toEqual([length, "set aside"]);
    }
  });

  test("with any bit of its header flipped is refused, set aside or still whole", () => {
    const { content, epoch } = wholeState();
    const directory = stateDirectory();
    for (let at = 0; at < 100; at++) {
      const given = Buffer.from(content);
      given[at] = (given[at] ?? 0) ^ (1 << (at % 8));
      expectNothingLost(openWith(directory, `flip-${at}`, given), given, epoch);
    }
  });

  test("with a bit flipped anywhere is set aside or still whole", () => {
    const { content, epoch } = wholeState();
    const directory = stateDirectory();
    const outcomes = new Set<string>();
    for (let at = 100; at < content.length; at += 211) {
      const given = Buffer.from(content);
      given[at] = (given[at] ?? 0) ^ (1 << (at % 8));
      outcomes.add(expectNothingLost(openWith(directory, `flip-${at}`, given), given, epoch));
    }
    expect(outcomes).toContain("set aside");
  });

  test("with a page of zeros in it is set aside or still whole", () => {
    const { content, epoch } = wholeState();
    const directory = stateDirectory();
    for (let page = 0; page < content.length; page += 4_096) {
      const given = Buffer.from(content);
      given.fill(0, page, page + 4_096);
      expectNothingLost(openWith(directory, `zeros-${page}`, given), given, epoch);
    }
  });

  test.each([
    ["is no database", Buffer.from("not a database, ".repeat(100))],
    ["is all zeros", Buffer.alloc(8_192)],
  ])("that %s is set aside", (_, given) => {
    const found = openWith(stateDirectory(), "other", given);
    expect(expectNothingLost(found, given, "")).toBe("set aside");
  });

  test("that lacks a table is set aside", () => {
    const directory = stateDirectory();
    using(directory, () => undefined);
    const db = new DatabaseSync(join(directory, "state.db"));
    db.exec("DROP TABLE tombstones");
    db.close();
    using(directory, (store) => expect(store.setAside).toBeDefined());
  });

  test("with a document that is not JSON is set aside", () => {
    const directory = stateDirectory();
    using(directory, (store) => store.transact((t) => t.putSandbox("a", '{"id":')));
    using(directory, (store) => {
      expect(store.setAside).toBeDefined();
      expect(store.sandboxDocuments()).toEqual([]);
    });
  });

  test("to which an operator added an index opens", () => {
    const directory = stateDirectory();
    using(directory, (store) => store.transact((t) => t.putSandbox("a", "{}")));
    const db = new DatabaseSync(join(directory, "state.db"));
    db.exec("CREATE INDEX extra ON events (time_ms)");
    db.close();
    using(directory, (store) => {
      expect(store.setAside).toBeUndefined();
      expect(store.sandboxDocuments()).toEqual(["{}"]);
    });
  });
});

test("a state set aside can be put back", () => {
  const directory = stateDirectory();
  using(directory, (store) => store.transact((t) => t.putSandbox("a", "{}")));
  const file = join(directory, "state.db");
  const whole = readFileSync(file);
  writeFileSync(file, whole.subarray(0, 5_000));
  const setAside = using(directory, (store) => store.setAside);
  expect(setAside?.startsWith(`${file}.unreadable-`)).toBe(true);
  writeFileSync(setAside ?? "", whole);
  renameSync(setAside ?? "", file);
  using(directory, (store) => expect(store.sandboxDocuments()).toEqual(["{}"]));
});

test("a write-ahead log cut off anywhere loses only its last commits, never the order", {
  timeout: 60_000,
}, () => {
  const source = stateDirectory();
  const store = open(source);
  for (const id of ids) {
    store.transact((t) => {
      t.putSandbox(id, JSON.stringify({ id }));
      t.appendEvent(1, JSON.stringify({ id }));
    });
  }
  const log = readFileSync(join(source, "state.db-wal"));
  const base = readFileSync(join(source, "state.db"));
  store.close();
  const directory = stateDirectory();
  const lengths = new Set<number>();
  // the first commits make the tables; SQLite writes none of them to the file before a checkpoint
  for (let length = log.length; length > log.length / 2; length -= 1_531) {
    const own = join(directory, `wal-${length}`);
    mkdirSync(own);
    writeFileSync(join(own, "state.db"), base);
    writeFileSync(join(own, "state.db-wal"), log.subarray(0, length));
    using(own, (found) => {
      const { sandboxes, events } = contentOf(found);
      lengths.add(sandboxes.length);
      const expected = ids.slice(0, sandboxes.length).map((id) => JSON.stringify({ id }));
      expect(found.setAside).toBeUndefined();
      expect(sandboxes).toEqual(expected);
      expect(events.map((event) => event.document)).toEqual(expected);
    });
  }
  expect(lengths.has(ids.length)).toBe(true);
  expect(lengths.size).toBeGreaterThan(2);
});

test("a damaged file is whole again if its write-ahead log holds everything", () => {
  const source = stateDirectory();
  const store = open(source);
  store.transact((t) => t.putSandbox("a", "{}"));
  const directory = stateDirectory();
  copyFileSync(join(source, "state.db-wal"), join(directory, "state.db-wal"));
  store.close();
  writeFileSync(join(directory, "state.db"), "not a database, ".repeat(100));
  using(directory, (found) => {
    expect(found.sandboxDocuments()).toEqual(["{}"]);
    expect(found.setAside).toBeUndefined();
  });
});
