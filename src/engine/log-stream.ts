// Takes the engine's log stream apart: frames of stdout and stderr, each line led by its time. Reads only as fast as it
// is read from.

import type { Readable } from "node:stream";
import type { LogChunk } from "./runtime.ts";

const headerBytes = 8;

/** The frames of a raw log stream (type, three zeros, length as big-endian, payload), over any cut of its chunks. */
export async function* readFrames(
  source: AsyncIterable<Buffer>,
): AsyncIterable<{ type: number; payload: Buffer }> {
  let buffered: Buffer = Buffer.alloc(0);
  for await (const chunk of source) {
    buffered = buffered.length === 0 ? chunk : Buffer.concat([buffered, chunk]);
    while (buffered.length >= headerBytes) {
      const length = buffered.readUInt32BE(4);
      if (buffered.length < headerBytes + length) break;
      yield { type: buffered[0] ?? 0, payload: buffered.subarray(headerBytes, headerBytes + length) };
      buffered = buffered.subarray(headerBytes + length);
    }
  }
}

/** Log chunks of a stream that was asked for with timestamps. */
export async function* readLogs(stream: Readable): AsyncIterable<LogChunk> {
  try {
    for await (const { type, payload } of readFrames(stream)) {
      const space = payload.indexOf(0x20);
      const timeNanoseconds = parseTime(payload.subarray(0, Math.max(space, 0)).toString("latin1"));
      yield {
        timeNanoseconds: timeNanoseconds ?? 0n,
        stream: type === 2 ? "stderr" : "stdout",
        data: timeNanoseconds === undefined ? payload : payload.subarray(space + 1),
      };
    }
  } finally {
    stream.destroy();
  }
}

/** RFC 3339 with up to nine digits of fraction, as nanoseconds since 1970; undefined if it is none. */
export function parseTime(text: string): bigint | undefined {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text);
  if (match === null) return undefined;
  const [, seconds, fraction = "", zone] = match;
  const ms = Date.parse(`${seconds}${zone}`);
  return Number.isNaN(ms) ? undefined : BigInt(ms) * 1_000_000n + BigInt(fraction.padEnd(9, "0"));
}
