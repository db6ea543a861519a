import { describe, expect, test } from "vitest";
import type { Resources, SandboxRecord } from "../../../src/sandbox/record.ts";
import { overQuota, promisedTo, quotaViolations } from "../../../src/tenant/quota.ts";
import { recordOf, resources } from "../sandbox/fixture.ts";

const small: Resources = {
  ...resources,
  cpuMillis: 100,
  cpuRequestMillis: 50,
  memoryBytes: 200,
  memoryRequestBytes: 100,
  pids: 10,
};

const stopped = { state: "STOPPED", wanted: "STOPPED" } as const;
const having = (id: string, more: Partial<SandboxRecord> = {}) =>
  recordOf({ id, ...more, spec: { ...recordOf().spec, resources: small } });

test("what is promised counts every sandbox, and the resources of those that run or are to run", () => {
  expect(promisedTo([having("a"), having("b", { state: "PENDING" }), having("c", stopped)])).toEqual({
    sandboxes: 3,
    runningSandboxes: 2,
    cpuRequestMillis: 100,
    cpuMillis: 200,
    memoryRequestBytes: 200,
    memoryBytes: 400,
    pids: 20,
    workspaces: 0,
    diskBytes: 0,
    inodes: 0,
  });
});

test("workspaces and their snapshots count with what they may hold, and without bounded inodes with one for each 4 KiB", () => {
  const counted = { bytes: 100, inodes: 7 };
  const snapshots = [{ id: "s", createdAtMs: 0, counted, isComplete: true }];
  const spaces = [
    { limits: { bytes: 8_192, inodes: 30 }, snapshots },
    { limits: { bytes: 8_193 }, snapshots: [] },
  ];
  expect(promisedTo([], spaces)).toMatchObject({
    sandboxes: 0,
    workspaces: 2,
    diskBytes: 8_192 + 100 + 8_193,
    inodes: 30 + 7 + 3,
  });
});

describe("a quota", () => {
  const others = promisedTo([having("a"), having("b", stopped)]);

  test.each([
    ["sandboxes", 2, 1, 0],
    ["runningSandboxes", 1, 1, 0],
    ["cpuRequestMillis", 99, 50, 49],
    ["cpuMillis", 199, 100, 99],
    ["memoryRequestBytes", 199, 100, 99],
    ["memoryBytes", 399, 200, 199],
    ["pids", 19, 10, 9],
  ] as const)("of %s refuses what is more, and names it", (key, limit, asked, free) => {
    expect(quotaViolations({ resources: small }, others, { [key]: limit })).toMatchObject([
      { level: "TENANT", limit, asked, free, promised: others[key] },
    ]);
    expect(quotaViolations({ resources: small }, others, { [key]: limit + 1 })).toEqual([]);
  });

  test("names all that does not suffice, as the contract names it", () => {
    const found = quotaViolations({ resources: small }, others, {
      runningSandboxes: 0,
      memoryBytes: 0,
      pids: 100,
    });
    expect(found.map(({ resource }) => resource)).toEqual(["running_sandboxes", "memory_bytes"]);
  });

  test("that was lowered refuses a start, but not what one holds already, nor that it shrinks", () => {
    const quota = { sandboxes: 0, runningSandboxes: 1, memoryBytes: 100 };
    const names = (present: { readonly held: Resources | undefined }, asked = small) =>
      quotaViolations({ resources: asked }, others, quota, present).map(({ resource }) => resource);
    expect(names({ held: undefined })).toEqual(["running_sandboxes", "memory_bytes"]);
    expect(names({ held: small })).toEqual([]);
    expect(names({ held: small }, { ...small, memoryBytes: 150 })).toEqual([]);
    expect(names({ held: small }, { ...small, memoryBytes: 201 })).toEqual(["memory_bytes"]);
  });

  test("tells of what more is promised than it allows", () => {
    expect(overQuota(others, { sandboxes: 1, cpuMillis: 100, pids: 9 })).toEqual(["sandboxes", "pids"]);
    expect(overQuota(others, {})).toEqual([]);
  });
});
