import { spawnSync } from "node:child_process";
import { readdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, onTestFinished, test } from "vitest";
import { writeError } from "../../../src/store/database.ts";
import { contentOf, open, stateDirectory, using } from "./directory.ts";

/** What `action` throws. */
function thrown(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

test("a full database is told as a full state disk, with its cause and what to do", () => {
  const db = new DatabaseSync(":memory:");
  onTestFinished(() => db.close());
  db.exec("CREATE TABLE t (x); PRAGMA max_page_count = 3");
  const cause = thrown(() => db.exec("INSERT INTO t VALUES (zeroblob(100000))"));
  expect(writeError(cause)).toMatchObject({
    reason: "STATE_DISK_FULL",
    details: { cause, hint: expect.stringContaining("free space"), retryDelayMs: 5_000 },
  });
});

test("errors that are not about the disk stay as they are", () => {
  const db = new DatabaseSync(":memory:");
  onTestFinished(() => db.close());
  const syntax = thrown(() => db.exec("NOT SQL"));
  for (const error of [syntax, new Error("any"), "text", undefined]) expect(writeError(error)).toBe(error);
});

const isRoot = process.getuid?.() === 0;

/** A directory on a file system of 1 MiB. */
function smallDisk(): string {
  const directory = stateDirectory();
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", directory], {
    encoding: "utf8",
  });
  if (mounted.status !== 0) throw new Error(`mount: ${mounted.stderr}`);
  onTestFinished(() => void spawnSync("umount", ["-l", directory]));
  return directory;
}

/** Uses up what is free. Returns how to free it again. */
function fill(directory: string): () => void {
  const { bavail, bsize } = statfsSync(directory);
  const file = join(directory, "ballast");
  writeFileSync(file, Buffer.alloc(bavail * bsize));
  return () => rmSync(file);
}

// Only root can mount the small file system that these need.
test.skipIf(!isRoot)(
  "on a full disk a change is refused as a whole, and goes through once there is space",
  async () => {
    const directory = smallDisk();
    const store = open(directory);
    onTestFinished(() => store.close());
    store.transact((t) => t.putSandbox("kept", "{}"));
    const before = contentOf(store);
    const free = fill(directory);
    const words = JSON.stringify("x".repeat(64 * 1_024));
    const change = () =>
      store.transact((t) => {
        t.putSandbox("new", words);
        t.appendEvent(1, words);
      });
    for (let attempt = 0; attempt < 3; attempt++) {
      expect(thrown(change)).toMatchObject({ reason: "STATE_DISK_FULL", status: "resource_exhausted" });
    }
    await store.durable();
    expect(contentOf(store)).toEqual(before);
    free();
    change();
    expect(store.isWritable()).toBe(true);
    await store.durable();
    expect(contentOf(store).sandboxes).toEqual(["{}", words]);
    expect(store.events.newest()).toBe(1);
  },
);

test.skipIf(!isRoot)("whether the state is writable is found out by writing", () => {
  const directory = smallDisk();
  using(directory, (store) => {
    const free = fill(directory);
    let answers = 0;
    // what SQLite set aside on disk already takes some writes
    while (store.isWritable() && answers < 1_000) answers++;
    expect(store.isWritable()).toBe(false);
    free();
    expect(store.isWritable()).toBe(true);
  });
});

test.skipIf(!isRoot)("a state that cannot be opened for a full disk is not set aside", () => {
  const directory = smallDisk();
  using(directory, (store) => store.transact((t) => t.putSandbox("kept", "{}")));
  const free = fill(directory);
  thrown(() => open(directory).close());
  expect(readdirSync(directory).filter((name) => name.includes("unreadable"))).toEqual([]);
  free();
  using(directory, (store) => {
    expect(store.setAside).toBeUndefined();
    expect(store.sandboxDocuments()).toEqual(["{}"]);
  });
});
