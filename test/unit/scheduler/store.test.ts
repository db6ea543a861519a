import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openFileStore } from "../../../src/dev-scheduler/store.ts";

describe("the file of acknowledgements", () => {
  let directory = "";
  let path = "";

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "acks-"));
    path = join(directory, "acks.jsonl");
  });

  afterEach(() => rmSync(directory, { recursive: true }));

  test("remembers the newest number of each host and epoch", () => {
    const store = openFileStore(path);
    store.keep("a", "1", 5);
    store.keep("a", "1", 3);
    store.keep("a", "2", 1);
    store.close();
    const again = openFileStore(path);
    expect([
      again.acknowledged("a", "1"),
      again.acknowledged("a", "2"),
      again.acknowledged("b", "1"),
    ]).toEqual([5, 1, 0]);
    again.close();
  });

  test("is opened after a crash in the middle of a line", () => {
    const store = openFileStore(path);
    store.keep("a", "1", 5);
    store.close();
    appendFileSync(path, '{"hostId":"a","epo');
    const again = openFileStore(path);
    expect(again.acknowledged("a", "1")).toBe(5);
    again.close();
  });

  test("is shortened when it is opened", () => {
    const store = openFileStore(path);
    for (let sequence = 1; sequence <= 20; sequence += 1) store.keep("a", "1", sequence);
    store.close();
    openFileStore(path).close();
    expect(readFileSync(path, "utf8")).toBe('{"hostId":"a","epoch":"1","sequence":20}\n');
  });
});
