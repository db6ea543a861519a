// One line of the files in which the engine keeps a container's log (driver json-file): an object on a line of its own,
// {"log":"…\n","stream":"stdout","time":"2026-01-01T00:00:00.000000000Z"}.

import { parseTime } from "./log-stream.ts";
import type { LogChunk } from "./runtime.ts";

interface RawLine {
  readonly log?: unknown;
  readonly stream?: unknown;
}

const beginning = '{"log":';
const timeKey = Buffer.from('"time":"');
/** `"time":"` with its value and what ends the object. */
const timeBytes = 48;
/** "2026-01-01T00:00:00" */
const secondsLength = 19;

/**
 * Reads the times of lines that follow each other: most are of one second, whose text is read only once. Undefined for what is no
 * line of the engine's.
 */
export function createTimeReader(): (line: Buffer) => bigint | undefined {
  let known = "";
  let knownNanoseconds = 0n;
  return (line) => {
    const at = line.lastIndexOf(timeKey);
    if (at < 0 || line.length - at > timeBytes) return undefined;
    const begin = at + timeKey.length;
    const text = line.toString("latin1", begin, line.indexOf(0x22, begin));
    const seconds = text.slice(0, secondsLength);
    const fraction = text.slice(secondsLength + 1, -1);
    if (!/^\d{1,9}$/.test(fraction) || !text.endsWith("Z")) return parseTime(text);
    if (seconds !== known) {
      const whole = parseTime(`${seconds}Z`);
      if (whole === undefined) return undefined;
      [known, knownNanoseconds] = [seconds, whole];
    }
    return knownNanoseconds + BigInt(Number(fraction) * 10 ** (9 - fraction.length));
  };
}

/**
 * What a line says that was written at that time; undefined if it is none of the engine's. An engine that is killed can leave a
 * line cut off, which the next one's first line then follows without an end between them: that one is told.
 */
export function decodeLine(line: Buffer, timeNanoseconds: bigint): LogChunk | undefined {
  const text = line.toString("utf8");
  const raw = parse(text) ?? parse(text.slice(Math.max(text.lastIndexOf(beginning), 0)));
  if (typeof raw?.log !== "string") return undefined;
  return {
    timeNanoseconds,
    stream: raw.stream === "stderr" ? "stderr" : "stdout",
    data: Buffer.from(raw.log, "utf8"),
  };
}

function parse(text: string): RawLine | undefined {
  try {
    return JSON.parse(text) as RawLine;
  } catch {
    return undefined;
  }
}
