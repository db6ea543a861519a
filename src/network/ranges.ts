// Sets of IPv4 addresses as ranges, for what must be exact between policies: what is in both, in either, in one and not the other.

import {
  addressText,
  type Cidr,
  cidrText,
  parseAddress,
  parseCidr,
  sizeOf,
  specialCidrs,
} from "./addresses.ts";

/** Addresses from `first` to `last`, both included. */
interface AddressRange {
  readonly first: number;
  readonly last: number;
}

/** In order, apart from each other, and not adjacent: equal sets are equal values. */
export type AddressSet = readonly AddressRange[];

const lastAddress = 2 ** 32 - 1;

/** Every address that is not of the public internet. */
export const specialAddresses: AddressSet = setOf(specialCidrs);

export const publicAddresses: AddressSet = difference([{ first: 0, last: lastAddress }], specialAddresses);

/** Of texts of blocks; what is none adds nothing. */
export function setOf(cidrs: readonly string[]): AddressSet {
  return merged(
    cidrs
      .flatMap((text) => parseCidr(text) ?? [])
      .map(({ base, prefix }) => ({ first: base, last: base + sizeOf(prefix) - 1 })),
  );
}

/** The fewest blocks that are the set, in order. */
export function cidrsOf(set: AddressSet): readonly string[] {
  return set.flatMap((range) => blocksOf(range).map(cidrText));
}

export function union(one: AddressSet, other: AddressSet): AddressSet {
  return merged([...one, ...other]);
}

export function intersection(one: AddressSet, other: AddressSet): AddressSet {
  const common: AddressRange[] = [];
  let [left, right] = [0, 0];
  for (;;) {
    const [a, b] = [one[left], other[right]];
    if (a === undefined || b === undefined) return common;
    const [first, last] = [Math.max(a.first, b.first), Math.min(a.last, b.last)];
    if (first <= last) common.push({ first, last });
    if (a.last < b.last) left += 1;
    else right += 1;
  }
}

/** What is in `one` and not in `other`. */
export function difference(one: AddressSet, other: AddressSet): AddressSet {
  return intersection(one, complement(other));
}

export function hasAddress(set: AddressSet, address: string): boolean {
  const number = parseAddress(address);
  return number !== undefined && set.some(({ first, last }) => first <= number && number <= last);
}

/** Its first address, for messages. */
export function firstOf(set: AddressSet): string | undefined {
  const [range] = set;
  return range && addressText(range.first);
}

function complement(set: AddressSet): AddressSet {
  const starts = [0, ...set.map(({ last }) => last + 1)];
  const ends = [...set.map(({ first }) => first - 1), lastAddress];
  return starts
    .map((first, index) => ({ first, last: ends[index] ?? lastAddress }))
    .filter(({ first, last }) => first <= last);
}

function merged(ranges: readonly AddressRange[]): AddressSet {
  const result: AddressRange[] = [];
  for (const range of ranges.toSorted((a, b) => a.first - b.first)) {
    const before = result.at(-1);
    if (before === undefined || range.first > before.last + 1) result.push(range);
    else result[result.length - 1] = { first: before.first, last: Math.max(before.last, range.last) };
  }
  return result;
}

function blocksOf({ first, last }: AddressRange): readonly Cidr[] {
  const blocks: Cidr[] = [];
  let base = first;
  while (base <= last) {
    let prefix = 32;
    // the largest block that begins here and ends within the range
    while (prefix > 0 && base % sizeOf(prefix - 1) === 0 && base + sizeOf(prefix - 1) - 1 <= last)
      prefix -= 1;
    blocks.push({ base, prefix });
    base += sizeOf(prefix);
  }
  return blocks;
}
