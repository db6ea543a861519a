// What the tests of the store share: a state directory that vanishes with the test.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { openStore, type Store, type StoreOptions } from "../../../src/store/store.ts";

export function stateDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "sandboxd-store-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** Keeps also what is dated 1970. */
const muchRetention = { count: 1_000_000, ageMs: Number.MAX_SAFE_INTEGER };

export function open(
  directory: string,
  eventRetention: StoreOptions["eventRetention"] = muchRetention,
): Store {
  return openStore({ directory, eventRetention });
}

/** A store in a directory of the test's own, closed when the test is over. */
export function temporaryStore(options: Partial<StoreOptions> = {}): Store {
  const store = openStore({ directory: stateDirectory(), eventRetention: muchRetention, ...options });
  onTestFinished(() => store.close());
  return store;
}

/** Opens, does, closes. */
export function using<T>(directory: string, work: (store: Store) => T): T {
  const store = open(directory);
  try {
    return work(store);
  } finally {
    store.close();
  }
}

/** What the store holds of sandboxes and events, for comparing. */
export function contentOf(store: Store) {
  return {
    sandboxes: store.sandboxDocuments(),
    events: store.events.readAfter(0, 1_000_000).map((event) => ({ ...event })),
  };
}
