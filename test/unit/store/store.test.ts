import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { expect, onTestFinished, test, vi } from "vitest";
import { migrations } from "../../../src/store/schema.ts";
import { contentOf, open, stateDirectory, temporaryStore, using } from "./directory.ts";

const range = { first: 100, last: 104 };

test("everything that was committed is there after reopening", () => {
  const directory = stateDirectory();
  const epoch = using(directory, (store) => {
    store.transact((t) => {
      t.putSandbox("b", '{"id":"b"}');
      t.putSandbox("a", '{"id":"a","v":1}');
      t.putSandbox("gone", "{}");
      t.appendEvent(1, '"first"');
      t.setMeta("host", "h1");
      expect(t.uidOf("acme", range)).toBe(100);
    });
    store.transact((t) => {
      t.putSandbox("a", '{"id":"a","v":2}');
      t.removeSandbox("gone", "instance-gone");
    });
    return store.epoch;
  });
  using(directory, (store) => {
    expect(contentOf(store)).toEqual({
      sandboxes: ['{"id":"a","v":2}', '{"id":"b"}'],
      events: [{ sequence: 1, timeMs: 1, document: '"first"' }],
    });
    expect(store.meta("host")).toBe("h1");
    expect(store.epoch).toBe(epoch);
    expect(store.setAside).toBeUndefined();
    expect(store.transact((t) => t.uidOf("acme", range))).toBe(100);
  });
});

test("what was committed is there although the store was never closed", () => {
  const directory = stateDirectory();
  const store = open(directory);
  onTestFinished(() => store.close());
  store.transact((t) => t.putSandbox("a", "{}"));
  const reader = new DatabaseSync(join(directory, "state.db"), { readOnly: true });
  onTestFinished(() => reader.close());
  expect(reader.prepare("SELECT id FROM sandboxes").all()).toMatchObject([{ id: "a" }]);
});

test("a transaction that throws leaves nothing behind and tells no one", async () => {
  const store = temporaryStore();
  const listener = vi.fn();
  store.events.subscribe(listener);
  store.transact((t) => t.putSandbox("kept", '"kept"'));
  const before = contentOf(store);
  const failure = new Error("changed my mind");
  expect(() =>
    store.transact((t) => {
      t.putSandbox("new", "{}");
      t.putSandbox("kept", "{}");
      t.removeSandbox("kept", "instance");
      t.appendEvent(1, "{}");
      t.setMeta("key", "value");
      t.uidOf("acme", range);
      throw failure;
    }),
  ).toThrow(failure);
  await store.durable();
  expect(contentOf(store)).toEqual(before);
  expect(store.isTombstone("instance")).toBe(false);
  expect(store.meta("key")).toBeUndefined();
  expect(store.events.newest()).toBe(0);
  expect(store.transact((t) => t.uidOf("other", range))).toBe(100);
  await store.durable();
  expect(listener).not.toHaveBeenCalled();
});

test("after a transaction that threw, the next one goes through", () => {
  using(stateDirectory(), (store) => {
    const sequences: number[] = [];
    expect(() =>
      store.transact((t) => {
        t.appendEvent(1, "{}");
        throw new Error();
      }),
    ).toThrow();
    store.transact((t) => sequences.push(t.appendEvent(1, "{}")));
    expect(sequences).toEqual([1]);
    expect(store.isWritable()).toBe(true);
  });
});

test("a second opening of a directory fails and says who holds it and what to do", () => {
  const directory = stateDirectory();
  using(directory, (store) => {
    expect(() => open(directory)).toThrow(
      `state directory ${directory} is in use by another sandboxd\nHint: `,
    );
    expect(store.isWritable()).toBe(true);
  });
  using(directory, (store) => expect(store.isWritable()).toBe(true));
});

test("a file that a newer release wrote is refused and left as it is", () => {
  const directory = stateDirectory();
  using(directory, (store) => store.transact((t) => t.putSandbox("a", "{}")));
  const file = join(directory, "state.db");
  const db = new DatabaseSync(file);
  db.exec(`PRAGMA user_version = ${migrations.length + 1}`);
  const versions = `has version ${migrations.length + 1}; this release knows up to ${migrations.length}`;
  expect(() => open(directory)).toThrow(new RegExp(`${versions}\\nHint: .*newer`));
  db.exec(`PRAGMA user_version = ${migrations.length}`);
  db.close();
  using(directory, (store) => {
    expect(store.setAside).toBeUndefined();
    expect(store.sandboxDocuments()).toEqual(["{}"]);
  });
});

test("a removed sandbox's instance is remembered as deleted, and no other's", () => {
  const directory = stateDirectory();
  using(directory, (store) => {
    store.transact((t) => t.putSandbox("a", "{}"));
    store.transact((t) => t.removeSandbox("a", "first"));
    store.transact((t) => t.putSandbox("a", "{}"));
  });
  using(directory, (store) => {
    expect(store.isTombstone("first")).toBe(true);
    expect(store.isTombstone("second")).toBe(false);
    expect(store.sandboxDocuments()).toHaveLength(1);
  });
});

test("a deletion is forgotten after thirty days, at the next opening", () => {
  const directory = stateDirectory();
  const dayMs = 24 * 3_600_000;
  const now = Date.now();
  vi.useFakeTimers({ toFake: ["Date"], now });
  onTestFinished(() => void vi.useRealTimers());
  using(directory, (store) => store.transact((t) => t.removeSandbox("a", "first")));
  vi.setSystemTime(now + 30 * dayMs);
  using(directory, (store) => expect(store.isTombstone("first")).toBe(true));
  vi.setSystemTime(now + 30 * dayMs + 1);
  using(directory, (store) => expect(store.isTombstone("first")).toBe(false));
});

test("a tenant keeps its uid, and a new one gets the lowest that is free, until the range is used up", () => {
  using(stateDirectory(), (store) => {
    const uidOf = (tenant: string) => store.transact((t) => t.uidOf(tenant, range));
    store.transact((t) => t.claimUid("claimed", 101));
    expect(["a", "b", "a", "claimed", "c", "d"].map(uidOf)).toEqual([100, 102, 100, 101, 103, 104]);
    expect(uidOf("one too many")).toBeUndefined();
    expect(uidOf("d")).toBe(104);
  });
});

test("a claim takes no uid from the tenant that has it, and changes none", () => {
  using(stateDirectory(), (store) => {
    store.transact((t) => t.claimUid("a", 100));
    store.transact((t) => t.claimUid("b", 100));
    store.transact((t) => t.claimUid("a", 103));
    expect(["a", "b"].map((tenant) => store.transact((t) => t.uidOf(tenant, range)))).toEqual([100, 101]);
  });
});

test("whichever uids are taken, the lowest free one of the range is given", () => {
  using(stateDirectory(), (store) => {
    const undo = new Error("undo");
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 95, max: 110 })), (taken) => {
        const free = [100, 101, 102, 103, 104].find((uid) => !taken.includes(uid));
        let given: number | undefined;
        const attempt = () =>
          store.transact((t) => {
            for (const uid of taken) t.claimUid(`tenant-${uid}`, uid);
            given = t.uidOf("new", range);
            throw undo;
          });
        expect(attempt).toThrow(undo);
        expect(given).toBe(free);
      }),
    );
  });
});
