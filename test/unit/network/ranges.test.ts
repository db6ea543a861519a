import fc from "fast-check";
import { expect, test } from "vitest";
import { addressText, isPublic } from "../../../src/network/addresses.ts";
import {
  cidrsOf,
  difference,
  firstOf,
  hasAddress,
  intersection,
  publicAddresses,
  setOf,
  union,
} from "../../../src/network/ranges.ts";

/** Blocks at both ends of the address space, where sums overflow, and in the middle. */
const cidr = fc
  .tuple(
    fc.constantFrom(0, 2 ** 31, 2 ** 32 - 256),
    fc.integer({ min: 0, max: 255 }),
    fc.integer({ min: 24, max: 32 }),
  )
  .map(([base, offset, prefix]) => {
    const size = 2 ** (32 - prefix);
    const number = base + offset;
    return `${addressText(number - (number % size))}/${prefix}`;
  });
const set = fc.array(cidr, { maxLength: 6 }).map(setOf);
const address = fc
  .tuple(fc.constantFrom(0, 2 ** 31, 2 ** 32 - 256), fc.integer({ min: 0, max: 255 }))
  .map(([base, offset]) => addressText(base + offset));

test("an address is in a union, an intersection or a difference as it is in the sets", () => {
  fc.assert(
    fc.property(set, set, address, (one, other, probe) => {
      const [a, b] = [hasAddress(one, probe), hasAddress(other, probe)];
      expect(hasAddress(union(one, other), probe)).toBe(a || b);
      expect(hasAddress(intersection(one, other), probe)).toBe(a && b);
      expect(hasAddress(difference(one, other), probe)).toBe(a && !b);
    }),
    { numRuns: 2_000 },
  );
});

test("blocks of a set are the set again, and equal sets have equal blocks", () => {
  fc.assert(
    fc.property(set, set, (one, other) => {
      expect(setOf(cidrsOf(one))).toEqual(one);
      expect(cidrsOf(union(one, other))).toEqual(cidrsOf(union(other, one)));
    }),
  );
});

test("as few blocks as can be", () => {
  expect(cidrsOf(setOf(["10.0.0.0/25", "10.0.0.128/25", "10.0.1.0/24"]))).toEqual(["10.0.0.0/23"]);
  expect(cidrsOf(setOf(["0.0.0.0/1", "128.0.0.0/1"]))).toEqual(["0.0.0.0/0"]);
  expect(cidrsOf(setOf(["10.0.0.2", "10.0.0.0"]))).toEqual(["10.0.0.0/32", "10.0.0.2/32"]);
  expect(cidrsOf(difference(setOf(["10.0.0.0/29"]), setOf(["10.0.0.3"])))).toEqual([
    "10.0.0.0/31",
    "10.0.0.2/32",
    "10.0.0.4/30",
  ]);
});

test("what is public is what is not special", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }).map(addressText), (probe) => {
      expect(hasAddress(publicAddresses, probe)).toBe(isPublic(probe));
    }),
    { numRuns: 2_000 },
  );
  for (const edge of [
    "9.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "11.0.0.0",
    "223.255.255.255",
    "224.0.0.0",
  ])
    expect([edge, hasAddress(publicAddresses, edge)]).toEqual([edge, isPublic(edge)]);
});

test("nothing has no first address", () => {
  expect(firstOf([])).toBeUndefined();
  expect(firstOf(setOf(["10.0.0.4/30", "9.0.0.0/8"]))).toBe("9.0.0.0");
});
