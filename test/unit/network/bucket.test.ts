import { describe, expect, test } from "vitest";
import { boundCommands, bucketOf, rateIn } from "../../../src/network/bucket.ts";

describe("a bound of bandwidth", () => {
  test.each([8_192, 1_000_000, 125_000_000, 12_500_000_000])(
    "of %i bytes a second lets the largest packets pass, and holds little back",
    (rate) => {
      const { burst, limit } = bucketOf(rate);
      // jumbo frames; and what the kernel's coarsest tick needs to reach the rate
      expect(burst).toBeGreaterThan(9_216);
      expect(burst).toBeGreaterThanOrEqual(rate / 100);
      expect(limit - burst).toBeGreaterThanOrEqual(32 * 1_024);
      expect(limit - burst).toBeLessThanOrEqual(16 * 1_024 ** 2);
      // both are numbers of 32 bits to the kernel
      expect(limit).toBeLessThan(2 ** 32);
    },
  );

  test("replaces what was there with packets and all, and is shown last", () => {
    expect(boundCommands("eth0", 1_000_000)).toBe(
      `qdisc replace dev eth0 root noqueue
qdisc replace dev eth0 root tbf rate 1000000bps burst 16384 limit 116384
qdisc show dev eth0
`,
    );
    expect(boundCommands("eth0", undefined)).toBe(
      "qdisc replace dev eth0 root noqueue\nqdisc show dev eth0\n",
    );
  });

  test("is read from what tc prints", () => {
    const bucket = `{"kind":"tbf","handle":"8002:","root":true,"refcnt":3,"options":{"rate":1000000,"burst":16384,"lat":65536}}`;
    expect(rateIn(`[${bucket}]\n`)).toBe(1_000_000);
    expect(rateIn(`[{"kind":"noqueue","handle":"0:","root":true,"refcnt":2,"options":{}}]`)).toBeUndefined();
    // one below another that lets everything pass bounds nothing that is told
    expect(rateIn(`[${bucket.replace('"root":true', '"parent":"1:1"')}]`)).toBeUndefined();
    expect(() => rateIn("qdisc tbf 8002: root rate 8Mbit")).toThrow(SyntaxError);
  });
});
