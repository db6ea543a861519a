import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isAcceptableAuthority } from "../../../src/api/authority.ts";

describe("an authority", () => {
  test.each(["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:443", "LOCALHOST"])(
    "%s is loopback",
    (authority) => {
      expect(isAcceptableAuthority(authority, true)).toBe(true);
    },
  );

  test.each([
    "host.example:8443",
    "10.0.0.1",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "[fe80::1]",
  ])("%s is acceptable, but not as loopback", (authority) => {
    expect([isAcceptableAuthority(authority, false), isAcceptableAuthority(authority, true)]).toEqual([
      true,
      false,
    ]);
  });

  test.each([
    undefined,
    "",
    "a b",
    "u@h",
    "u:p@h",
    "h/p",
    "h?q",
    "h#f",
    "h:99999",
    "[::1",
    "\\\\h",
    "h\n",
    "x".repeat(600),
  ])("%j is malformed", (authority) => {
    expect(isAcceptableAuthority(authority, false)).toBe(false);
  });

  test("of any kind is judged without an exception", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.boolean(), (authority, loopbackOnly) => {
        expect(typeof isAcceptableAuthority(authority, loopbackOnly)).toBe("boolean");
      }),
    );
  });
});
