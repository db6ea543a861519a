import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { deviceOf } from "../../../src/monitor/host-disks.ts";
import { parseCpuTimes, parseLoad, parseMemory, parsePressure } from "../../../src/monitor/host-figures.ts";

const parse = <T>(parser: (bytes: Uint8Array, end: number) => T, text: string): T =>
  parser(Buffer.from(text), text.length);

describe("the host's figures", () => {
  it("count stolen time as busy, waiting for I/O as idle, and guests once", () => {
    const text = [
      "cpu  10 20 30 400 500 1 2 3 8 9",
      "cpu0 5 10 15 200 250 1 1 1 4 4",
      "cpu1 5 10 15 200 250 0 1 2 4 5",
      "intr 123 4 5",
      "cpufreq 9",
      "",
    ].join("\n");
    expect(parse(parseCpuTimes, text)).toEqual({ busyUsec: 660_000, totalUsec: 9_660_000, cpus: 2 });
  });

  it("read memory in bytes", () => {
    const text =
      "MemTotal:       24684084 kB\nMemFree: 1 kB\nMemAvailable:   24203536 kB\nSwapTotal: 8 kB\nSwapFree: 4 kB\n";
    expect(parse(parseMemory, text)).toEqual({
      totalBytes: 24684084 * 1024,
      availableBytes: 24203536 * 1024,
      swapTotalBytes: 8192,
      swapFreeBytes: 4096,
    });
  });

  it("read load and tasks", () => {
    expect(parseLoad("0.12 0.35 10.23 2/98 8229\n")).toEqual({
      load1: 0.12,
      load5: 0.35,
      load15: 10.23,
      tasks: 98,
    });
  });

  it("read pressure, with and without the line for all tasks", () => {
    const some = "some avg10=2.16 avg60=1.58 avg300=3.92 total=32397952\n";
    expect(parsePressure(some)).toEqual({ some: { avg10: 2.16, avg60: 1.58, totalUsec: 32397952 } });
    expect(parsePressure(`${some}full avg10=0.50 avg60=0.25 avg300=0.00 total=7\n`).full).toEqual({
      avg10: 0.5,
      avg60: 0.25,
      totalUsec: 7,
    });
  });

  it("are numbers of 0 or more whatever the kernel writes", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const { some, full } = parsePressure(text);
        const figures = [
          parse(parseCpuTimes, text),
          parse(parseMemory, text),
          parseLoad(text),
          some,
          full ?? some,
        ];
        for (const value of figures.flatMap((figure) => Object.values(figure))) {
          expect(value).toBeGreaterThanOrEqual(0);
        }
      }),
    );
  });
});

describe("a device number", () => {
  it("comes apart into major and minor as glibc puts them together", () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 ** 20 - 1 }), fc.nat({ max: 2 ** 20 - 1 }), (major, minor) => {
        const [a, b] = [BigInt(major), BigInt(minor)];
        const number = ((a & 0xfffn) << 8n) | ((a & ~0xfffn) << 32n) | (b & 0xffn) | ((b & ~0xffn) << 12n);
        expect(deviceOf(Number(number))).toEqual({ major, minor });
      }),
    );
  });
});
