import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  keysOf,
  limitAt,
  nextLine,
  nextWord,
  numberAt,
  scanKeys,
  sumPairs,
} from "../../../src/monitor/bytes.ts";

const counter = fc.maxSafeNat();

describe("numbers in kernel text", () => {
  it("come back as they were written", () => {
    fc.assert(
      fc.property(
        counter,
        fc.constantFrom("", " ", "    "),
        fc.constantFrom("\n", "", " kB\n"),
        (n, before, after) => {
          const bytes = Buffer.from(`${before}${n}${after}`);
          expect(numberAt(bytes, 0, bytes.length)).toBe(n);
        },
      ),
    );
  });

  it("never shrink when the counter grows beyond what a double holds exactly", () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 2n ** 64n - 1n), fc.bigInt(0n, 2n ** 64n - 1n), (a, b) => {
        const [low, high] = a < b ? [a, b] : [b, a];
        const read = (n: bigint) => numberAt(Buffer.from(`${n}\n`), 0, 21);
        expect(read(low)).toBeLessThanOrEqual(read(high));
      }),
    );
  });

  it("stop where the contents stop, even though the buffer holds older digits", () => {
    expect(numberAt(Buffer.from("12345"), 0, 2)).toBe(12);
  });

  it("are 0 where there is none", () => {
    expect(numberAt(Buffer.from("max\n"), 0, 4)).toBe(0);
  });
});

describe("limits", () => {
  it.each(["max\n", "9223372036854771712\n", "9223372036854710272\n", "", "\n"])("%j is no limit", (text) => {
    expect(limitAt(Buffer.from(text), text.length)).toBeUndefined();
  });

  it("keep their number, 0 included", () => {
    expect(limitAt(Buffer.from("0\n"), 2)).toBe(0);
    expect(limitAt(Buffer.from("67108864\n"), 9)).toBe(67108864);
  });
});

describe("files of names and values", () => {
  const names = fc.uniqueArray(fc.stringMatching(/^[a-z_.]{1,20}$/), { minLength: 1, maxLength: 30 });

  it("give each wanted name its own value, in whatever order and company they come", () => {
    fc.assert(
      fc.property(names, fc.infiniteStream(counter), fc.nat(), (present, numbers, pick) => {
        const values = new Map(present.map((name) => [name, numbers.next().value as number]));
        const text = Buffer.from([...values].map(([name, value]) => `${name} ${value}\n`).join(""));
        const wanted = present.filter((_, index) => (index + pick) % 2 === 0).reverse();
        const into = new Float64Array(wanted.length);
        scanKeys(text, text.length, keysOf(...wanted), into);
        expect([...into]).toEqual(wanted.map((name) => values.get(name)));
      }),
    );
  });

  it("do not mistake a name for another that begins or ends like it", () => {
    const text = Buffer.from("oom_kill_disable 9\nxoom_kill 8\noom 7\noom_kill 1\n");
    const into = new Float64Array(2);
    scanKeys(text, text.length, keysOf("oom_kill", "oom_group"), into);
    expect([...into]).toEqual([1, 0]);
  });
});

describe("files of pairs", () => {
  it("add up over devices", () => {
    const line = fc.record({ rbytes: fc.nat(), wbytes: fc.nat() });
    fc.assert(
      fc.property(fc.array(line, { maxLength: 20 }), (devices) => {
        const text = Buffer.from(
          devices
            .map(({ rbytes, wbytes }, i) => `8:${i} rbytes=${rbytes} wbytes=${wbytes} rios=3\n`)
            .join(""),
        );
        const into = new Float64Array(2);
        sumPairs(text, text.length, keysOf("rbytes=", "wbytes="), into);
        expect(into[0]).toBe(devices.reduce((sum, { rbytes }) => sum + rbytes, 0));
        expect(into[1]).toBe(devices.reduce((sum, { wbytes }) => sum + wbytes, 0));
      }),
    );
  });
});

describe("arbitrary bytes", () => {
  const kernelLike = fc.stringMatching(/^[a-z0-9 =:\n\t]{0,200}$/).map((text) => Buffer.from(text));
  const garbage = fc.oneof(fc.uint8Array({ maxLength: 300 }), kernelLike);

  it("never throw, and never yield anything but finite numbers of 0 or more", () => {
    const keys = keysOf("a", "oom_kill", "rbytes=");
    fc.assert(
      fc.property(garbage, fc.nat({ max: 300 }), (bytes, from) => {
        const start = Math.min(from, bytes.length);
        const into = new Float64Array(keys.length);
        scanKeys(bytes, bytes.length, keys, into);
        const scanned = [...into];
        sumPairs(bytes, bytes.length, keys, into);
        const limit = limitAt(bytes, bytes.length) ?? 0;
        for (const value of [...scanned, ...into, numberAt(bytes, start, bytes.length), limit]) {
          expect(value).toBeGreaterThanOrEqual(0);
          expect(value).toBeLessThan(Number.POSITIVE_INFINITY);
        }
      }),
    );
  });

  it("never let a walk over lines or words stand still or run past the end", () => {
    fc.assert(
      fc.property(garbage, (bytes) => {
        for (let at = 0; at < bytes.length; ) {
          const next = nextLine(bytes, at, bytes.length);
          expect(next).toBeGreaterThan(at);
          expect(next).toBeLessThanOrEqual(bytes.length);
          expect(nextWord(bytes, at, bytes.length)).toBeLessThanOrEqual(bytes.length);
          at = next;
        }
      }),
    );
  });
});
