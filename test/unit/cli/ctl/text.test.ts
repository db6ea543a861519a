import { describe, expect, test } from "vitest";
import { factsText, tableText } from "../../../../src/cli/ctl/table.ts";
import { printable, printableJson, shortened } from "../../../../src/cli/ctl/text.ts";

describe("text for terminals", () => {
  test("what a terminal would act on is an escape", () => {
    expect(printable("a\u001b[2Jb\n\t\r\u0007\u009b\u202e\u2028é漢")).toBe(
      "a\\x1b[2Jb\\n\\t\\r\\x07\\x9b\\u{202e}\\u{2028}é漢",
    );
  });

  test("JSON means the same, and has no such character either", () => {
    const value = { name: "a\u009b\u202e\u{e0001}\u001b", text: "é" };
    const json = printableJson(value);
    expect(json).toBe('{"name":"a\\u009b\\u202e\\udb40\\udc01\\u001b","text":"é"}');
    expect(JSON.parse(json)).toEqual(value);
    expect(printableJson([1], 2)).toBe("[\n  1\n]");
  });

  test("tables are aligned by what the eye sees", () => {
    const rows = [
      ["one", "漢字", "x"],
      ["a\nb", "é", ""],
    ];
    expect(tableText(["NAME", "WIDE", "LAST"], rows)).toBe(
      ["NAME   WIDE   LAST", "one    漢字   x", "a\\nb   é", ""].join("\n"),
    );
    expect(
      factsText([
        ["A", "1"],
        ["Long", "\u001b"],
      ]),
    ).toBe("A:    1\nLong: \\x1b\n");
  });

  test("long text is cut with an ellipsis, never within a character", () => {
    expect([shortened("abc", 3), shortened("abcd", 3), shortened("a😀😀b", 3)]).toEqual([
      "abc",
      "ab…",
      "a😀…",
    ]);
  });
});
