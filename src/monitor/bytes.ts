// Numbers out of kernel text, straight from the bytes: no strings, no garbage, and no input that throws. It runs a
// dozen times per sandbox and second.

const tab = 9;
const newline = 10;
const space = 32;
const zero = 48;
const nine = 57;

/** Kernel counters are 64 bits wide; longer digits are garbage and end here. */
const largest = 2 ** 64;

/** Limits above this are the kernel's ways to write "none" (v1: 2^63 rounded down to a page). */
const unlimited = 2 ** 60;

/**
 * The unsigned decimal number that starts at `from` (blanks are skipped), or 0 when none does. Exact up to
 * Number.MAX_SAFE_INTEGER, beyond that the nearest number, never above 2^64.
 */
export function numberAt(bytes: Uint8Array, from: number, end: number): number {
  let at = from;
  while (at < end && (bytes[at] === space || bytes[at] === tab)) {
    at++;
  }
  let value = 0;
  for (; at < end; at++) {
    const byte = bytes[at] as number;
    if (byte < zero || byte > nine) {
      break;
    }
    value = value * 10 + (byte - zero);
  }
  return Math.min(value, largest);
}

/** A limit file's number, or undefined for "max", for v1's huge stand-in, and for anything that is not a number. */
export function limitAt(bytes: Uint8Array, end: number): number | undefined {
  const first = end > 0 ? (bytes[0] as number) : 0;
  if (first < zero || first > nine) {
    return undefined;
  }
  const value = numberAt(bytes, 0, end);
  return value >= unlimited ? undefined : value;
}

/** Names to look for, in the order that their values are wanted. */
export type Keys = readonly Uint8Array[];

/** Prepares names for scanKeys. */
export function keysOf(...names: readonly string[]): Keys {
  return names.map((name) => Buffer.from(name, "latin1"));
}

/**
 * Reads a file of "name value" lines: `into[i]` becomes the value of `keys[i]`, or 0 when no line has that name.
 * Other lines are skipped; of two lines with one name the last counts.
 */
export function scanKeys(bytes: Uint8Array, end: number, keys: Keys, into: Float64Array): void {
  into.fill(0);
  let at = 0;
  while (at < end) {
    const start = at;
    let gap = -1;
    while (at < end && bytes[at] !== newline) {
      if (gap < 0 && bytes[at] === space) {
        gap = at;
      }
      at++;
    }
    if (gap > start) {
      const index = indexOfKey(bytes, start, gap, keys);
      if (index >= 0) {
        into[index] = numberAt(bytes, gap, at);
      }
    }
    at++;
  }
}

/** The value that scanKeys or sumPairs put at this index. */
export function at(values: Float64Array, index: number): number {
  return values[index] as number;
}

function indexOfKey(bytes: Uint8Array, start: number, end: number, keys: Keys): number {
  for (let index = 0; index < keys.length; index++) {
    const key = keys[index] as Uint8Array;
    if (key.length === end - start && startsWith(bytes, start, key)) {
      return index;
    }
  }
  return -1;
}

/**
 * Reads a file of "device name=value name=value" lines and adds up: `into[i]` becomes the sum over all lines of the
 * values named `keys[i]` (give the names with their "=").
 */
export function sumPairs(bytes: Uint8Array, end: number, keys: Keys, into: Float64Array): void {
  into.fill(0);
  let at = 0;
  while (at < end) {
    for (let index = 0; index < keys.length; index++) {
      const key = keys[index] as Uint8Array;
      if (at + key.length <= end && startsWith(bytes, at, key)) {
        into[index] = (into[index] as number) + numberAt(bytes, at + key.length, end);
        break;
      }
    }
    while (at < end && bytes[at] !== space && bytes[at] !== newline) {
      at++;
    }
    at++;
  }
}

function startsWith(bytes: Uint8Array, at: number, prefix: Uint8Array): boolean {
  for (let i = 0; i < prefix.length; i++) {
    if (bytes[at + i] !== prefix[i]) {
      return false;
    }
  }
  return true;
}

/** Where the line after `from` starts, or `end`. */
export function nextLine(bytes: Uint8Array, from: number, end: number): number {
  let at = from;
  while (at < end && bytes[at] !== newline) {
    at++;
  }
  return at < end ? at + 1 : end;
}

/** Where the word after the one at `from` starts: past it and the blanks behind it, or `end`. */
export function nextWord(bytes: Uint8Array, from: number, end: number): number {
  let at = from;
  while (at < end && bytes[at] !== space && bytes[at] !== newline) {
    at++;
  }
  while (at < end && bytes[at] === space) {
    at++;
  }
  return at;
}
