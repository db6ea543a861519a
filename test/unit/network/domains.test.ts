import { describe, expect, test } from "vitest";
import {
  canonicalDomain,
  canonicalDomains,
  domainProblem,
  isPatternWithin,
  matchesDomain,
} from "../../../src/network/domains.ts";

test.each([
  ["example.com", "example.com", true],
  ["example.com", "www.example.com", false],
  ["example.com", "badexample.com", false],
  ["*.example.com", "www.example.com", true],
  ["*.example.com", "a.b.example.com", true],
  ["*.example.com", "example.com", false],
  ["*.example.com", "badexample.com", false],
  ["*.example.com", ".example.com", false],
  ["*.com", "example.com", true],
])("of %s, %s is one: %s", (pattern, name, expected) => {
  expect(matchesDomain(pattern, name)).toBe(expected);
});

test.each([
  ["*.a.example.com", "*.example.com", true],
  ["*.example.com", "*.example.com", true],
  ["*.example.com", "*.a.example.com", false],
  ["*.example.com", "example.com", false],
  ["a.example.com", "*.example.com", true],
])("every name of %s is one of %s: %s", (inner, outer, expected) => {
  expect(isPatternWithin(inner, outer)).toBe(expected);
});

describe("a pattern", () => {
  test.each([
    "example.com",
    "EXAMPLE.com.",
    "*.example.com",
    "xn--bcher-kva.example",
    "a_b.example.com",
    "com",
  ])("may be %s", (text) => {
    expect(domainProblem(text)).toBeUndefined();
  });

  test.each([
    ["", "is no name"],
    ["bücher.example", "ASCII"],
    ["*", "*"],
    ["*.*.example.com", "*"],
    ["www.*.com", "*"],
    ["*example.com", "*"],
    ["-a.example.com", "is no name"],
    ["a..example.com", "is no name"],
    [".example.com", "is no name"],
    ["192.0.2.1", "CIDR"],
    ["https://example.com", "is no name"],
    ["example.com/path", "is no name"],
    ["exa mple.com", "is no name"],
    [`${"a".repeat(64)}.com`, "is no name"],
    [`${"a.".repeat(127)}com`, "is no name"],
    ["example.com\n", "is no name"],
  ])("is not %j", (text, part) => {
    const found = domainProblem(text);
    expect(`${found?.problem} ${found?.hint}`).toContain(part);
  });

  test("is kept in lower case and without a final dot", () => {
    expect(canonicalDomain("*.Example.COM.")).toBe("*.example.com");
  });
});

test("patterns that others have anyway are left out", () => {
  expect(
    canonicalDomains(["b.example.com", "*.example.com", "*.a.example.com", "example.com", "B.example.com"]),
  ).toEqual(["*.example.com", "example.com"]);
});
