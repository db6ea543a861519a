import { getEventListeners } from "node:events";
import { expect, test, vi } from "vitest";
import { createRepository } from "../../../src/sandbox/repository.ts";
import type { Store } from "../../../src/store/store.ts";
import { recordOf, temporaryStore } from "./fixture.ts";

async function eventsOf(store: Store) {
  await store.durable();
  return store.events.readAfter(0, 100).map((event) => {
    const { type, sandbox } = JSON.parse(event.document);
    return [type, sandbox.id, sandbox.generation];
  });
}

test("each change is kept with the event that tells it", async () => {
  const store = temporaryStore();
  const repository = createRepository(store);
  repository.insert(recordOf());
  repository.put(recordOf({ generation: 2 }), "SANDBOX_UPDATED");
  expect(repository.get("one")).toEqual(recordOf({ generation: 2 }));
  repository.remove(recordOf({ generation: 3 }));
  expect(repository.get("one")).toBeUndefined();
  expect(store.isTombstone("instance-one")).toBe(true);
  expect(await eventsOf(store)).toEqual([
    ["SANDBOX_CREATED", "one", 1],
    ["SANDBOX_UPDATED", "one", 2],
    ["SANDBOX_DELETED", "one", 3],
  ]);
});

test("a new repository over the same store knows the same sandboxes", () => {
  const store = temporaryStore();
  const first = createRepository(store);
  for (const id of ["b", "a", "c"]) first.insert(recordOf({ id }));
  first.remove(recordOf({ id: "c" }));
  const second = createRepository(store);
  expect(second.all()).toEqual(first.all());
  expect(second.all().map((record) => record.id)).toEqual(["a", "b"]);
});

test("what cannot be written never happened, and no one is told", async () => {
  const store = temporaryStore();
  const repository = createRepository(store);
  repository.insert(recordOf());
  const listener = vi.fn();
  repository.subscribe(listener);
  vi.spyOn(store, "transact").mockImplementation(() => {
    throw new Error("disk full");
  });
  expect(() => repository.insert(recordOf({ id: "two" }))).toThrow("disk full");
  expect(repository.get("two")).toBeUndefined();
  expect(() => repository.put(recordOf({ generation: 2 }), "SANDBOX_UPDATED")).toThrow("disk full");
  expect(() => repository.remove(recordOf())).toThrow("disk full");
  expect(repository.get("one")?.generation).toBe(1);
  expect(await eventsOf(store)).toHaveLength(1);
  expect(listener).not.toHaveBeenCalled();
});

test("listeners are told of each change after it, until they stop", () => {
  const repository = createRepository(temporaryStore());
  const seen: unknown[] = [];
  const stop = repository.subscribe((id) => seen.push([id, repository.get(id)?.generation]));
  repository.insert(recordOf());
  repository.put(recordOf({ generation: 2 }), "SANDBOX_UPDATED");
  repository.remove(recordOf());
  stop();
  repository.insert(recordOf());
  expect(seen).toEqual([
    ["one", 1],
    ["one", 2],
    ["one", undefined],
  ]);
});

test("who waits is told as soon as it holds, at once if it does already", async () => {
  const repository = createRepository(temporaryStore());
  repository.insert(recordOf());
  expect(await repository.until("one", (record) => record !== undefined)).toEqual(recordOf());
  const third = repository.until("one", (record) => record?.generation === 3);
  const gone = repository.until("one", (record) => record === undefined);
  repository.put(recordOf({ generation: 2 }), "SANDBOX_UPDATED");
  repository.put(recordOf({ generation: 3 }), "SANDBOX_UPDATED");
  repository.put(recordOf({ generation: 4 }), "SANDBOX_UPDATED");
  repository.remove(recordOf());
  expect((await third)?.generation).toBe(3);
  expect(await gone).toBeUndefined();
});

test("who waits for one sandbox is not asked about another", () => {
  const repository = createRepository(temporaryStore());
  const done = vi.fn(() => false);
  void repository.until("one", done);
  repository.insert(recordOf({ id: "two" }));
  expect(done).toHaveBeenCalledOnce();
});

test("who stops waiting gets the reason, is asked no more and leaves nothing behind", async () => {
  const repository = createRepository(temporaryStore());
  const abort = new AbortController();
  const done = vi.fn(() => false);
  const waiting = repository.until("one", done, abort.signal);
  const reason = new Error("caller left");
  abort.abort(reason);
  await expect(waiting).rejects.toBe(reason);
  repository.insert(recordOf());
  expect(done).toHaveBeenCalledOnce();
  expect(getEventListeners(abort.signal, "abort")).toHaveLength(0);
  await expect(repository.until("one", () => true, AbortSignal.abort(reason))).rejects.toBe(reason);
});

test("who was told leaves no listener on its signal", async () => {
  const repository = createRepository(temporaryStore());
  const { signal } = new AbortController();
  await repository.until("one", () => true, signal);
  expect(getEventListeners(signal, "abort")).toHaveLength(0);
});
