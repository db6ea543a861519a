import fc from "fast-check";
import { expect, test } from "vitest";
import { chooseRetired, type Rested } from "../../../src/host/retirement.ts";
import type { SandboxRecord } from "../../../src/sandbox/record.ts";
import { recordOf, states } from "../sandbox/fixture.ts";

const nowMs = 1_000_000;
const ended = (id: string, agoMs: number, change: Partial<SandboxRecord> = {}): Rested => ({
  record: recordOf({ id, wanted: "STOPPED", state: "STOPPED", ...change }),
  sinceMs: nowMs - agoMs,
});
const ids = (rested: readonly Rested[], retention: { ageMs: number; count: number }) =>
  chooseRetired(rested, retention, nowMs).map(({ record }) => record.id);

test("what ended long enough ago goes, the oldest first", () => {
  const rested = [ended("young", 59_999), ended("old", 60_000), ended("older", 70_000, { state: "FAILED" })];
  expect(ids(rested, { ageMs: 60_000, count: 10 })).toEqual(["older", "old"]);
});

test("of too many the oldest go", () => {
  const rested = [ended("b", 200), ended("a", 100), ended("d", 400), ended("c", 300)];
  expect(ids(rested, { ageMs: 60_000, count: 2 })).toEqual(["d", "c"]);
  expect(ids(rested, { ageMs: 60_000, count: 0 })).toEqual(["d", "c", "b", "a"]);
});

test("says why in figures", () => {
  const rested = [ended("a", 61_500), ended("b", 100, { state: "FAILED" }), ended("c", 50)];
  expect(chooseRetired(rested, { ageMs: 60_000, count: 1 }, nowMs).map(({ why }) => why)).toEqual([
    "stopped for 61 s, and kept for 60 s",
    "failed, and the oldest of 2; 1 are kept",
  ]);
});

test("whatever there is: only what is at rest goes, so many stay as may, and none that stays is older", () => {
  const wanted = fc.constantFrom("RUNNING", "PAUSED", "STOPPED", "DELETED");
  const any = fc
    .tuple(fc.stringMatching(/^[a-z]{1,8}$/), fc.nat(100_000), fc.constantFrom(...states), wanted)
    .map(([id, agoMs, state, wanted]) => ended(id, agoMs, { state, wanted }));
  const all = fc.uniqueArray(any, { selector: ({ record }) => record.id, maxLength: 30 });
  fc.assert(
    fc.property(all, fc.nat(100_000), fc.nat(30), (rested, ageMs, count) => {
      const gone = new Set(ids(rested, { ageMs, count }));
      const atRest = rested.filter(
        ({ record: { wanted, state } }) =>
          wanted === "STOPPED" && (state === "STOPPED" || state === "FAILED"),
      );
      const stay = atRest.filter(({ record }) => !gone.has(record.id));
      expect(gone.size + stay.length).toBe(atRest.length);
      expect(stay.length).toBeLessThanOrEqual(count);
      const oldestKept = Math.min(...stay.map(({ sinceMs }) => sinceMs));
      for (const { record, sinceMs } of atRest) {
        if (gone.has(record.id)) expect(sinceMs).toBeLessThanOrEqual(oldestKept);
        else expect(nowMs - sinceMs).toBeLessThan(ageMs);
      }
    }),
  );
});
