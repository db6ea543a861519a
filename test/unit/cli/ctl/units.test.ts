import { describe, expect, test } from "vitest";
import {
  bytesText,
  cpuTimeText,
  parseBytes,
  parseCpuMillis,
  parseDurationMs,
  parseTimeMs,
  spanText,
} from "../../../../src/cli/ctl/units.ts";

describe("units", () => {
  test("bytes are powers of 1024, with or without a unit", () => {
    const read = (text: string) => parseBytes(text, "--memory");
    expect([read("1048576"), read("512m"), read("1.5GiB"), read("2KB"), read("3b")]).toEqual([
      1_048_576n,
      536_870_912n,
      1_610_612_736n,
      2_048n,
      3n,
    ]);
    for (const text of ["", "m", "-1", "1x", "1 2", "0x10"]) expect(() => read(text)).toThrow("--memory");
  });

  test("durations are numbers with units, added up, or seconds", () => {
    const read = (text: string) => parseDurationMs(text, "--timeout");
    expect([read("90"), read("1h30m"), read("1.5s"), read("200ms"), read("2d")]).toEqual([
      90_000, 5_400_000, 1_500, 200, 172_800_000,
    ]);
    for (const text of ["", "s", "1y", "1h x", "-1s"]) expect(() => read(text)).toThrow("--timeout");
  });

  test("times are moments, seconds since 1970, or how long ago", () => {
    const now = Date.parse("2026-02-01T00:00:00Z");
    const read = (text: string) => parseTimeMs(text, "--since", now);
    expect(read("2026-01-31T12:00:00Z")).toBe(now - 12 * 3_600_000);
    expect(read("2026-01-31T12:00:00.123456789Z")).toBe(now - 12 * 3_600_000 + 123);
    expect(read("1767225600")).toBe(1_767_225_600_000);
    expect(read("10m")).toBe(now - 600_000);
    for (const text of ["", "yesterday", "2026-13-45"]) expect(() => read(text)).toThrow("--since");
  });

  test("CPUs are thousandths", () => {
    expect([
      parseCpuMillis("2", "--cpus"),
      parseCpuMillis("0.25", "--cpus"),
      parseCpuMillis(".5", "--cpus"),
    ]).toEqual([2_000n, 250n, 500n]);
    expect(() => parseCpuMillis("1e3", "--cpus")).toThrow("--cpus");
  });

  test("amounts are told shortly", () => {
    expect([0n, 999n, 1_000n, 33_554_432n, 1_610_612_736n].map(bytesText)).toEqual([
      "0B",
      "999B",
      "0.977KiB",
      "32MiB",
      "1.5GiB",
    ]);
    expect([-5, 42_000, 300_000, 7_200_000, 1_000_000_000].map(spanText)).toEqual([
      "0s",
      "42s",
      "5m",
      "2h",
      "11d",
    ]);
    expect(cpuTimeText({ $typeName: "google.protobuf.Duration", seconds: 62n, nanos: 509_000_000 })).toBe(
      "1:02.50",
    );
  });
});
