// Amounts and times: as people write them on a command line, and as they read them in a table.

import { type Duration, type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { UsageError } from "./arguments.ts";

const byteUnits: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
};

/** "512m", "1.5GiB", "1048576": powers of 1024, as the Docker CLI reads them. @throws UsageError */
export function parseBytes(text: string, option: string): bigint {
  const [, digits, unit] = /^(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?$/i.exec(text.trim()) ?? [];
  const factor = byteUnits[(unit ?? "?").toLowerCase()];
  if (digits === undefined || factor === undefined)
    throw new UsageError(`${option} ${JSON.stringify(text)}: expected bytes, as 512m or 2GiB`);
  return BigInt(Math.round(Number(digits) * factor));
}

const secondsOf: Readonly<Record<string, number>> = {
  ms: 0.001,
  s: 1,
  m: 60,
  h: 3_600,
  d: 86_400,
};

/** "1h30m", "1.5s", "90" (seconds). Unit of the answer: milliseconds. @throws UsageError */
export function parseDurationMs(text: string, option: string): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Math.round(Number(text) * 1_000);
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text))
    throw new UsageError(`${option} ${JSON.stringify(text)}: expected a duration, as 90s or 1h30m`);
  const parts = text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g);
  const seconds = [...parts].reduce(
    (sum, [, digits, unit]) => sum + Number(digits) * (secondsOf[unit ?? ""] ?? 0),
    0,
  );
  return Math.round(seconds * 1_000);
}

/** A whole number. @throws UsageError */
export function parseCount(text: string, option: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new UsageError(`${option} ${JSON.stringify(text)}: expected a number`);
  return Number(text);
}

/** "1.5" CPUs as millicores. @throws UsageError */
export function parseCpuMillis(text: string, option: string): bigint {
  if (!/^(\d{1,7}(\.\d+)?|\.\d+)$/.test(text))
    throw new UsageError(`${option} ${JSON.stringify(text)}: expected CPUs, as 0.5 or 2`);
  return BigInt(Math.round(Number(text) * 1_000));
}

/** A moment, or so long before `nowMs`. Milliseconds since 1970. @throws UsageError */
export function parseTimeMs(text: string, option: string, nowMs: number): number {
  if (/^\d{9,11}(\.\d+)?$/.test(text)) return Math.round(Number(text) * 1_000);
  if (/^\d{4}-\d\d-\d\d/.test(text)) {
    const time = Date.parse(text);
    if (!Number.isNaN(time)) return time;
  }
  try {
    return nowMs - parseDurationMs(text, option);
  } catch {
    throw new UsageError(
      `${option} ${JSON.stringify(text)}: expected a time, as 2026-01-31T12:00:00Z, or how long ago, as 10m`,
    );
  }
}

/** "12.3MiB". */
export function bytesText(bytes: bigint | number): string {
  let value = Number(bytes);
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (value >= 1_000 && unit < units.length - 1) {
    value /= 1_024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : Number(value.toPrecision(3))}${units[unit]}`;
}

/** One unit, as people say it: "42s", "5m", "3h", "12d". */
export function spanText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 2 * 3_600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 2 * 86_400) return `${Math.floor(seconds / 3_600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

/** How long ago it was. Empty without a time. */
export function ageText(time: Timestamp | undefined, nowMs: number = Date.now()): string {
  return time === undefined ? "" : spanText(nowMs - timestampMs(time));
}

/** RFC 3339 with milliseconds. Empty without a time. */
export function timeText(time: Timestamp | undefined): string {
  return time === undefined ? "" : new Date(timestampMs(time)).toISOString();
}

/** "1:02.50", as ps and top show CPU time. */
export function cpuTimeText(cpu: Duration | undefined): string {
  if (cpu === undefined) return "";
  const hundredths = Math.floor(cpu.nanos / 10_000_000);
  const seconds = Number(cpu.seconds);
  return `${Math.floor(seconds / 60)}:${pad(seconds % 60)}.${pad(hundredths)}`;
}

const pad = (value: number): string => String(value).padStart(2, "0");

/** "0.25" CPUs. */
export function cpusText(millis: bigint | number): string {
  return (Number(millis) / 1_000).toFixed(2);
}
