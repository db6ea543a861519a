import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createBackoff } from "../../../src/scheduler/backoff.ts";

describe("the back-off", () => {
  test("doubles its bound from the base to the cap", () => {
    const backoff = createBackoff({ baseMs: 500, capMs: 30_000, random: () => 1 });
    const bounds = Array.from({ length: 8 }, () => backoff.nextMs());
    expect(bounds).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  });

  test("begins anew after a reset", () => {
    const backoff = createBackoff({ baseMs: 500, capMs: 30_000, random: () => 1 });
    backoff.nextMs();
    backoff.nextMs();
    backoff.reset();
    expect(backoff.attempts()).toBe(0);
    expect(backoff.nextMs()).toBe(500);
  });

  test("is spread over the whole range below its bound, at any attempt", () => {
    fc.assert(
      fc.property(fc.nat({ max: 5_000 }), fc.double({ min: 0, max: 1, noNaN: true }), (attempts, random) => {
        const backoff = createBackoff({ baseMs: 500, capMs: 30_000, random: () => random });
        for (let index = 0; index < attempts; index += 1) backoff.nextMs();
        const bound = attempts > 6 ? 30_000 : Math.min(30_000, 500 * 2 ** attempts);
        expect(backoff.nextMs()).toBeCloseTo(random * bound, 6);
      }),
    );
  });
});
