// Adds up the counters of /proc/<pid>/net/dev, which shows the interfaces of that process's network namespace.
import { nextLine, nextWord, numberAt } from "./bytes.ts";
import type { NetworkCounters } from "./sample.ts";

const space = 32;
const colon = 58;

/** The columns after an interface's name: eight of receiving, then eight of sending. */
const rxBytesColumn = 0;
const rxPacketsColumn = 1;
const rxDroppedColumn = 3;
const txBytesColumn = 8;
const txPacketsColumn = 9;
const txDroppedColumn = 11;
const columns = 12;

const values = new Float64Array(columns);

/**
 * Sums all interfaces for which `counts` says so, given the file's bytes from `start` of a name to `nameEnd`. The
 * two heading lines have no colon and fall out by themselves.
 */
export function sumInterfaces(
  bytes: Uint8Array,
  end: number,
  counts: (bytes: Uint8Array, start: number, nameEnd: number) => boolean,
): NetworkCounters {
  values.fill(0);
  for (let line = 0; line < end; line = nextLine(bytes, line, end)) {
    let start = line;
    while (start < end && bytes[start] === space) {
      start++;
    }
    const nameEnd = endOfName(bytes, start, end);
    if (nameEnd < 0 || !counts(bytes, start, nameEnd)) {
      continue;
    }
    // on old kernels a long number may follow the colon without a blank
    let at = bytes[nameEnd + 1] === space ? nextWord(bytes, nameEnd, end) : nameEnd + 1;
    for (let column = 0; column < columns; column++) {
      values[column] = (values[column] as number) + numberAt(bytes, at, end);
      at = nextWord(bytes, at, end);
    }
  }
  return {
    rxBytes: values[rxBytesColumn] as number,
    txBytes: values[txBytesColumn] as number,
    rxPackets: values[rxPacketsColumn] as number,
    txPackets: values[txPacketsColumn] as number,
    rxDropped: values[rxDroppedColumn] as number,
    txDropped: values[txDroppedColumn] as number,
  };
}

function endOfName(bytes: Uint8Array, start: number, end: number): number {
  for (let at = start; at < end; at++) {
    const byte = bytes[at] as number;
    if (byte === colon) {
      return at;
    }
    if (byte <= space) {
      return -1;
    }
  }
  return -1;
}

/** Everything but loopback, which never leaves the namespace. */
export function exceptLoopback(bytes: Uint8Array, start: number, nameEnd: number): boolean {
  return !(nameEnd - start === 2 && bytes[start] === 108 && bytes[start + 1] === 111);
}
