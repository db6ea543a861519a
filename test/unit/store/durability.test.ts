import { spawnSync } from "node:child_process";
import { fstatSync, readdirSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { createDurability, openDisk } from "../../../src/store/durability.ts";
import type { Store } from "../../../src/store/store.ts";
import { contentOf, open, stateDirectory, temporaryStore, using } from "./directory.ts";

/** Commits one event. */
const commit = (store: Store): number => store.transact((t) => t.appendEvent(1, "{}"));

const sequencesOf = (store: Store) => contentOf(store).events.map((event) => event.sequence);

test("an event is told once it is on disk, not before, in order, once", async () => {
  const store = temporaryStore();
  const told: number[] = [];
  store.events.subscribe(() => told.push(...sequencesOf(store).slice(told.length)));
  commit(store);
  commit(store);
  expect([store.events.newest(), sequencesOf(store), told]).toEqual([0, [], []]);
  await store.durable();
  expect([store.events.newest(), sequencesOf(store), told]).toEqual([2, [1, 2], [1, 2]]);
  commit(store);
  expect(store.events.newest()).toBe(2);
  await store.durable();
  expect(told).toEqual([1, 2, 3]);
});

test("a change can be read before it is on disk", () => {
  const store = temporaryStore();
  store.transact((t) => t.putSandbox("a", "{}"));
  expect(store.sandboxDocuments()).toEqual(["{}"]);
});

test("commits of one moment share two writes to disk", async () => {
  const onSync = vi.fn();
  const store = temporaryStore({ onSync });
  for (let index = 0; index < 100; index++) commit(store);
  await store.durable();
  expect(store.events.newest()).toBe(100);
  expect(onSync.mock.calls.length).toBeLessThanOrEqual(2);
});

test("who asks while a write is under way waits for the next, which holds what was committed since", async () => {
  const store = temporaryStore();
  const order: string[] = [];
  store.events.subscribe(() => order.push(`told ${store.events.newest()}`));
  commit(store);
  const first = store.durable().then(() => order.push("first"));
  commit(store);
  const second = store.durable().then(() => order.push("second"));
  await Promise.all([first, second]);
  expect(order).toEqual(["told 1", "first", "told 2", "second"]);
});

test("who asks when everything is on disk waits for nothing", async () => {
  const onSync = vi.fn();
  const store = temporaryStore({ onSync });
  await store.durable();
  expect(onSync).not.toHaveBeenCalled();
  commit(store);
  await store.durable();
  await store.durable();
  expect(onSync).toHaveBeenCalledOnce();
});

test("what was rolled back leaves no gap between what is told before and after it", async () => {
  const store = temporaryStore();
  commit(store);
  expect(() =>
    store.transact((t) => {
      t.appendEvent(1, "undone");
      throw new Error("undo");
    }),
  ).toThrow("undo");
  expect(commit(store)).toBe(2);
  await store.durable();
  expect(contentOf(store).events.map(({ sequence, document }) => [sequence, document])).toEqual([
    [1, "{}"],
    [2, "{}"],
  ]);
});

test("closing while a write is under way loses nothing, and whoever waits is answered", async () => {
  const directory = stateDirectory();
  const store = open(directory);
  const listener = vi.fn();
  store.events.subscribe(listener);
  commit(store);
  commit(store);
  const waiting = store.durable();
  store.close();
  await waiting;
  expect(listener).not.toHaveBeenCalled();
  using(directory, (again) => expect(sequencesOf(again)).toEqual([1, 2]));
});

test("what a process had committed when it was killed is told from the opening on", () => {
  const directory = stateDirectory();
  const program = join(directory, "killed.ts");
  const source = new URL("../../../src/store/store.ts", import.meta.url).href;
  writeFileSync(
    program,
    `import { openStore } from ${JSON.stringify(source)};
     const store = openStore({ directory: ${JSON.stringify(directory)}, eventRetention: { count: 9, ageMs: 1e12 } });
     store.transact((t) => t.appendEvent(1, "{}"));
     process.kill(process.pid, "SIGKILL");`,
  );
  expect(spawnSync(process.execPath, [program]).signal).toBe("SIGKILL");
  using(directory, (store) => expect([store.events.newest(), sequencesOf(store)]).toEqual([1, [1]]));
});

test("a log that cannot be written to disk is refused at the opening, before any of it is told", () => {
  const openOn = (file: string) =>
    createDurability({ disk: openDisk(file), mark: () => 0, onDurable: () => undefined });
  // the kernel syncs no such device
  expect(() => openOn("/dev/null")).toThrow("EINVAL");
});

test("the log that is written to disk stays the one that SQLite writes to, however often it begins anew", {
  timeout: 60_000,
}, async () => {
  const directory = stateDirectory();
  const store = temporaryStore({ directory });
  for (let index = 0; index < 5_000; index++) {
    store.transact((t) => t.putSandbox("a", String(index)));
    if (index % 100 === 0) await store.durable();
  }
  const file = join(directory, "state.db-wal");
  const { ino, size } = statSync(file);
  // each transaction appends a page of 4 KiB or more: it would be 20 MB
  expect(size).toBeLessThan(10e6);
  const opened = readdirSync("/proc/self/fd").filter((name) => linkOf(name).startsWith(file));
  expect(opened.map((name) => fstatSync(Number(name)).ino)).toEqual([ino, ino]);
});

/** What a descriptor is open on; empty for one that is closed meanwhile. */
function linkOf(descriptor: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${descriptor}`);
  } catch {
    // the one that listed the directory
    return "";
  }
}
