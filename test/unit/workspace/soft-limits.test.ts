import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { followExcess } from "../../../src/workspace/limits.ts";
import type { Excess, WorkspaceLimits } from "../../../src/workspace/record.ts";
import { mebibyte, workspaced } from "./fixture.ts";

const limits: WorkspaceLimits = {
  bytes: 64 * mebibyte,
  inodes: 1_000,
  softBytes: 10 * mebibyte,
  softInodes: 100,
  softGraceMs: 60_000,
};
const at = (ms: number) => ({ wallMs: ms + 5, steadyMs: ms });

describe("a soft limit", () => {
  test("that is exceeded is told with the end of its grace, which later looks do not move", () => {
    const first = followExcess(undefined, limits, { bytes: 11 * mebibyte, inodes: 10 }, at(1_000));
    expect(first).toEqual({ limits: ["soft_bytes"], sinceMs: 1_005, graceEndMs: 61_000 });
    expect(followExcess(first, limits, { bytes: 12 * mebibyte, inodes: 101 }, at(30_000))).toEqual({
      limits: ["soft_bytes", "soft_inodes"],
      sinceMs: 1_005,
      graceEndMs: 61_000,
    });
    expect(followExcess(first, limits, { bytes: 10 * mebibyte, inodes: 10 }, at(30_000))).toBeUndefined();
  });

  test("holds after its grace: nothing may grow, and what is held follows what is used down to it", () => {
    const before: Excess = { limits: ["soft_bytes"], sinceMs: 0, graceEndMs: 60_000 };
    const held = followExcess(before, limits, { bytes: 20 * mebibyte, inodes: 10 }, at(60_000));
    expect(held?.held).toEqual({ bytes: 21 * mebibyte, inodes: 100 });
    const less = followExcess(held, limits, { bytes: 15 * mebibyte, inodes: 10 }, at(70_000));
    expect(less?.held?.bytes).toBe(16 * mebibyte);
    const more = followExcess(less, limits, { bytes: 16 * mebibyte, inodes: 10 }, at(80_000));
    expect(more?.held?.bytes, "it does not follow up again").toBe(16 * mebibyte);
  });

  test("without a grace only warns", () => {
    const { softGraceMs: _, ...endless } = limits;
    const excess = followExcess(undefined, endless, { bytes: 60 * mebibyte }, at(0));
    expect(followExcess(excess, endless, { bytes: 60 * mebibyte }, at(10 ** 12))).toEqual({
      limits: ["soft_bytes"],
      sinceMs: 5,
    });
  });

  test("never holds less than is used, nor more than the hard limit", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 64 * mebibyte }), fc.integer({ min: 1, max: 50_000 })), {
          maxLength: 20,
        }),
        (looks) => {
          let excess: Excess | undefined;
          let nowMs = 0;
          for (const [bytes, passedMs] of looks) {
            nowMs += passedMs;
            const bounded = Math.min(bytes, excess?.held?.bytes ?? limits.bytes);
            excess = followExcess(excess, limits, { bytes: bounded }, at(nowMs));
            expect(excess?.held?.bytes ?? limits.bytes).toBeLessThanOrEqual(limits.bytes);
            if (excess?.held !== undefined) expect(excess.held.bytes).toBeGreaterThanOrEqual(bounded);
          }
        },
      ),
    );
  });
});

test("is watched: warned of, held after its grace by the backend, and given back once less is used", async () => {
  const { create, watch, disk, time, repository, told } = workspaced();
  const made = await create("home", { limits });
  const [space] = disk.spaces.values();
  if (space === undefined) throw new Error("there is no space");
  const look = async (bytes: number, passedMs: number) => {
    space.used = { bytes, inodes: 10 };
    time.nowMs += passedMs;
    await watch.see(repository.get("home") ?? made);
  };
  await look(20 * mebibyte, 0);
  expect(repository.get("home")?.excess).toMatchObject({ limits: ["soft_bytes"] });
  expect(space.limits.bytes).toBe(64 * mebibyte);
  await look(20 * mebibyte, 60_000);
  expect(space.limits.bytes, "held").toBe(21 * mebibyte);
  await look(5 * mebibyte, 1_000);
  expect(repository.get("home")?.excess).toBeUndefined();
  expect(space.limits.bytes, "given back").toBe(64 * mebibyte);
  expect(await told()).toEqual([
    ...["WORKSPACE_CREATED", "READY"],
    ...["WORKSPACE_SOFT_LIMIT", "WORKSPACE_SOFT_LIMIT", "WORKSPACE_SOFT_LIMIT"],
  ]);
});

test("one that cannot be read any more is told as UNAVAILABLE, and read again once it can", async () => {
  const { create, watch, workspaces, disk, repository } = workspaced();
  const made = await create("home");
  const [[name, space] = ["", undefined]] = [...disk.spaces];
  if (space === undefined) throw new Error("there is no space");
  disk.spaces.delete(name);
  await watch.see(made);
  expect(repository.get("home")?.state).toBe("UNAVAILABLE");
  disk.spaces.set(name, space);
  await workspaces.look();
  await watch.see(workspaces.get("home"));
  expect(repository.get("home")?.state).toBe("READY");
  expect(watch.usage(made)?.bytes).toBe(4_096);
});
