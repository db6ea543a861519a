import fc from "fast-check";
import { expect, test } from "vitest";
import { promisedOf } from "../../../src/workspace/record.ts";
import { mebibyte, modelDisk, workspaced } from "./fixture.ts";

type Step =
  | { readonly do: "create" | "grow"; readonly id: string; readonly mebibytes: number }
  | { readonly do: "delete" | "snapshot" | "unsnapshot" | "restore"; readonly id: string }
  | { readonly do: "restart" };

const ids = fc.constantFrom("a", "b", "c", "d");
const sizes = fc.integer({ min: 16, max: 200 });
const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant("create" as const), id: ids, mebibytes: sizes }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("grow" as const), id: ids, mebibytes: sizes }) },
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constantFrom(
          "delete" as const,
          "snapshot" as const,
          "unsnapshot" as const,
          "restore" as const,
        ),
        id: ids,
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const) }) },
  ),
  { minLength: 1, maxLength: 30 },
);

/** Every order of requests, several at a time, with the disk failing now and then, and the daemon starting anew. */
test("a quota is never exceeded, and what is promised is what there is, after any steps in any order", async () => {
  const quota = { diskBytes: 400 * mebibyte, workspaces: 3, inodes: 30_000 };
  await fc.assert(
    fc.asyncProperty(
      steps,
      fc.infiniteStream(fc.nat(9)),
      fc.integer({ min: 1, max: 4 }),
      async (all, luck, width) => {
        const disk = modelDisk();
        disk.faults.fail = () => {
          if (luck.next().value === 0) throw new Error("out of luck");
        };
        let now = workspaced({ quota, disk });
        const check = () => {
          const records = now.repository.all();
          const sums = records.map(promisedOf);
          const bytes = sums.reduce((sum, one) => sum + one.bytes, 0);
          expect(bytes).toBeLessThanOrEqual(quota.diskBytes);
          expect(sums.reduce((sum, one) => sum + one.inodes, 0)).toBeLessThanOrEqual(quota.inodes);
          expect(records.length).toBeLessThanOrEqual(quota.workspaces);
          expect(now.room.promised().bytes).toBe(bytes);
        };
        const run = async (step: Step): Promise<void> => {
          const { workspaces, snapshots, create } = now;
          switch (step.do) {
            case "create":
              await create(step.id, { limits: { bytes: step.mebibytes * mebibyte } });
              return;
            case "grow":
              await workspaces.update({
                id: step.id,
                limits: { bytes: step.mebibytes * mebibyte },
                clearsSoft: false,
              });
              return;
            case "delete":
              return workspaces.delete(step.id);
            case "snapshot":
              await snapshots.create(step.id, "s");
              return;
            case "unsnapshot":
              return snapshots.delete(step.id, "s");
            case "restore":
              await snapshots.restore(step.id, "s");
              return;
            case "restart":
              now = workspaced({ store: now.store, disk, directory: now.directory, quota });
              return now.workspaces.resume();
          }
        };
        for (let at = 0; at < all.length; at += width) {
          const group = all.slice(at, at + width);
          // a daemon that starts has no calls of the one before
          const calls = group.filter((step) => step.do !== "restart");
          await Promise.all(calls.map((step) => run(step).catch(() => undefined)));
          check();
          for (const step of group) if (step.do === "restart") await run(step);
          check();
        }
        // once the disk is well again, what is on it is exactly what is recorded
        disk.faults.fail = () => undefined;
        now = workspaced({ store: now.store, disk, directory: now.directory, quota });
        await now.workspaces.resume();
        await now.workspaces.look();
        check();
        const recorded = now.repository.all();
        expect(disk.spaces.size).toBe(recorded.length);
        for (const { state } of recorded) expect(state).toBe("READY");
      },
    ),
    { numRuns: 60 },
  );
});
