import { expect, test, vi } from "vitest";
import type { Store } from "../../../src/store/store.ts";
import { open, stateDirectory, temporaryStore } from "./directory.ts";

/** Appends in one transaction. Resolves once the events are told. */
function append(store: Store, count: number, timeMs = 1): Promise<void> {
  store.transact((t) => {
    for (let index = 0; index < count; index++) t.appendEvent(timeMs, "{}");
  });
  return store.durable();
}

const sequencesAfter = (store: Store, sequence: number, limit = 1_000_000) =>
  store.events.readAfter(sequence, limit).map((event) => event.sequence);

test("events read back in the order in which they were written, from any place, at most so many", async () => {
  const store = temporaryStore();
  for (let index = 1; index <= 5; index++) {
    store.transact((t) => expect(t.appendEvent(100 - index, `"${index}"`)).toBe(index));
  }
  await store.durable();
  expect(store.events.readAfter(0, 10).map((event) => event.document)).toEqual([
    '"1"',
    '"2"',
    '"3"',
    '"4"',
    '"5"',
  ]);
  expect(sequencesAfter(store, 2)).toEqual([3, 4, 5]);
  expect(sequencesAfter(store, 1, 2)).toEqual([2, 3]);
  expect(sequencesAfter(store, 5)).toEqual([]);
  expect([store.events.oldest(), store.events.newest()]).toEqual([1, 5]);
});

test("an empty log's oldest is the one that comes next", () => {
  const store = temporaryStore();
  expect([store.events.oldest(), store.events.newest()]).toEqual([1, 0]);
});

test("listeners are told once for each write to disk that held events, until they stop", async () => {
  const store = temporaryStore();
  const newest: number[] = [];
  const stop = store.events.subscribe(() => newest.push(store.events.newest()));
  await append(store, 3);
  store.transact((t) => t.setMeta("key", "value"));
  await store.durable();
  await append(store, 1);
  stop();
  await append(store, 1);
  expect(newest).toEqual([3, 4]);
});

test("a listener hears nothing while the transaction is open", async () => {
  const store = temporaryStore();
  const listener = vi.fn();
  store.events.subscribe(listener);
  store.transact((t) => {
    t.appendEvent(1, "{}");
    expect(listener).not.toHaveBeenCalled();
    expect(store.events.newest()).toBe(0);
  });
  await store.durable();
  expect(listener).toHaveBeenCalledOnce();
});

test("sequence numbers go on over reopening, even when every event was trimmed", async () => {
  const directory = stateDirectory();
  const retention = { count: 1_000_000, ageMs: 10 };
  const store = open(directory, retention);
  await append(store, 255, 1);
  await append(store, 1, 1_000);
  expect(sequencesAfter(store, 0)).toEqual([256]);
  store.close();
  const again = open(directory, retention);
  expect([again.events.oldest(), again.events.newest()]).toEqual([257, 256]);
  await append(again, 1);
  expect(sequencesAfter(again, 0)).toEqual([257]);
  again.close();
});

test("what is too old or too much is trimmed when the log is opened, and nothing else", async () => {
  const directory = stateDirectory();
  const now = Date.now();
  const first = open(directory);
  await append(first, 20, 1);
  await append(first, 30, now);
  first.close();
  const oldest = (retention: { readonly count: number; readonly ageMs: number }) => {
    const store = open(directory, retention);
    expect(sequencesAfter(store, 0)).toHaveLength(51 - store.events.oldest());
    const found = store.events.oldest();
    store.close();
    return found;
  };
  expect(oldest({ count: 50, ageMs: Number.MAX_SAFE_INTEGER })).toBe(1);
  expect(oldest({ count: 50, ageMs: 3_600_000 })).toBe(21);
  expect(oldest({ count: 10, ageMs: 3_600_000 })).toBe(41);
});

test("the newest events are kept and at most a batch more than asked", { timeout: 60_000 }, async () => {
  const store = temporaryStore({ eventRetention: { count: 100, ageMs: 1_000 } });
  for (let index = 1; index <= 900; index++) {
    await append(store, 1);
    const sequences = sequencesAfter(store, 0);
    expect(sequences.at(-1)).toBe(index);
    expect(sequences.length).toBeGreaterThanOrEqual(Math.min(index, 100));
    expect(sequences.length).toBeLessThanOrEqual(100 + 256);
    expect(store.events.oldest()).toBe(sequences[0]);
  }
});

test("events past their age are trimmed, younger ones stay", async () => {
  const store = temporaryStore({ eventRetention: { count: 1_000_000, ageMs: 1_000 } });
  await append(store, 100, 5_000);
  await append(store, 155, 6_000);
  await append(store, 1, 7_000);
  expect(sequencesAfter(store, 0)[0]).toBe(101);
  expect(store.events.oldest()).toBe(101);
});

test("the oldest is right although the trimming was not the transaction's last write", async () => {
  const store = temporaryStore({ eventRetention: { count: 10, ageMs: 1_000 } });
  await append(store, 300);
  expect(store.events.oldest()).toBe(sequencesAfter(store, 0)[0]);
});

test("a trimming that was rolled back trimmed nothing", async () => {
  const store = temporaryStore({ eventRetention: { count: 10, ageMs: 1_000 } });
  await append(store, 200);
  expect(() =>
    store.transact((t) => {
      for (let index = 0; index < 100; index++) t.appendEvent(1, "{}");
      throw new Error("undo");
    }),
  ).toThrow("undo");
  await append(store, 1);
  expect(sequencesAfter(store, 0)).toHaveLength(201);
  expect(store.events.oldest()).toBe(1);
});
