import { describe, expect, test } from "vitest";
import type { EffectiveEgress } from "../../../../src/network/effective.ts";
import type { Query } from "../../../../src/network/resolver/message.ts";
import { judge } from "../../../../src/network/resolver/question.ts";
import { listed, open } from "./fixture.ts";

const query = (name: string, type = "A"): Query => ({
  id: 1,
  asked: { name, type: "A" },
  name,
  type,
  isInternet: true,
  wantsRecursion: true,
  roomBytes: undefined,
});
const verdict = (egress: EffectiveEgress | undefined, name: string, type?: string) =>
  judge(query(name, type), egress);

describe("names", () => {
  test("are all asked where all that is public may be reached", () => {
    expect(verdict(open, "example.com")).toBe("ASK");
  });

  test("are none of them asked where nothing outside may be reached", () => {
    expect(verdict(undefined, "example.com")).toBe("DENIED");
  });

  test("are none of them asked where addresses only are listed", () => {
    expect(verdict({ ...listed(), allowCidrs: ["192.0.9.0/24"] }, "example.com")).toBe("DENIED");
  });

  test("are none of them asked where a proxy asks them", () => {
    expect(verdict({ ...open, proxy: { address: "8.8.4.4", port: 3128 } }, "example.com")).toBe("DENIED");
  });

  test.each([
    ["example.com", "example.com", "ASK"],
    ["example.com", "www.example.com", "DENIED"],
    ["example.com", "badexample.com", "DENIED"],
    ["example.com", "example.com.evil.net", "DENIED"],
    ["*.example.com", "www.example.com", "ASK"],
    ["*.example.com", "a.b.example.com", "ASK"],
    ["*.example.com", "example.com", "DENIED"],
    ["*.example.com", "badexample.com", "DENIED"],
    ["*.example.com", "_dmarc.example.com", "ASK"],
  ])("where %s is listed: %s", (domain, name, expected) => {
    expect(verdict(listed(domain), name)).toBe(expected);
  });

  test.each(["web", "localhost", "a.localhost", "printer.local", "x.invalid", "facebookwkhpilnemxj7.onion"])(
    "that are none of the outside are not asked: %s",
    (name) => {
      expect(verdict(open, name)).toBe("ABSENT");
    },
  );

  test.each(["1.0.0.10.in-addr.arpa", "10.in-addr.arpa", "254.169.254.169.in-addr.arpa", "8.e.f.ip6.arpa"])(
    "of addresses that are not public are not asked: %s",
    (name) => {
      expect(verdict(open, name, "PTR")).toBe("ABSENT");
    },
  );

  test.each(["8.8.8.8.in-addr.arpa", "0/25.1.1.1.in-addr.arpa"])(
    "of addresses that are public are asked: %s",
    (name) => {
      expect(verdict(open, name, "PTR")).toBe("ASK");
    },
  );

  test.each([
    "a b.example.com",
    "é.example.com",
    "a\n.example.com",
    "a..example.com",
    `${"a".repeat(64)}.com`,
  ])("that cannot be written as they are, are not asked: %j", (name) => {
    expect(verdict(open, name)).toBe("ABSENT");
  });

  test("the root has no addresses", () => {
    expect(verdict(open, ".")).toBe("EMPTY");
  });
});

describe("types", () => {
  test.each(["A", "CNAME", "MX", "TXT", "SRV", "PTR"])("%s is asked", (type) => {
    expect(verdict(open, "example.com", type)).toBe("ASK");
  });

  test.each(["AAAA", "UNKNOWN_64", "UNKNOWN_65", "NULL", "DNSKEY", "NS"])("%s is empty", (type) => {
    expect(verdict(open, "example.com", type)).toBe("EMPTY");
  });

  test.each(["ANY", "AXFR", "IXFR"])("%s is refused", (type) => {
    expect(verdict(open, "example.com", type)).toBe("REFUSED");
  });

  test("of a name that is not allowed are denied, also those that would be empty", () => {
    expect(verdict(listed("example.com"), "example.org", "AAAA")).toBe("DENIED");
    expect(verdict(listed("example.com"), "example.com", "AAAA")).toBe("EMPTY");
  });

  test("of another class than the internet's are refused", () => {
    expect(judge({ ...query("version.bind", "TXT"), isInternet: false }, open)).toBe("REFUSED");
  });
});
