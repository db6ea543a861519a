import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createDetachFilter, parseDetachKeys } from "../../../../src/cli/ctl/process/detach-keys.ts";

/** What is passed on of pieces of input, and whether the keys were in it. */
function filtered(keys: string, pieces: readonly string[]) {
  const filter = createDetachFilter(parseDetachKeys(keys));
  let passed = "";
  for (const piece of pieces) {
    const found = filter.push(Buffer.from(piece));
    passed += Buffer.from(found.passed).toString();
    if (found.detached) return { passed, detached: true };
  }
  return { passed, detached: false };
}

describe("detach keys", () => {
  test("are found wherever the input is cut, and are not sent", () => {
    expect(filtered("ctrl-p,ctrl-q", ["ab\u0010\u0011cd"])).toEqual({ passed: "ab", detached: true });
    expect(filtered("ctrl-p,ctrl-q", ["ab\u0010", "\u0011"])).toEqual({ passed: "ab", detached: true });
  });

  test("what only begins like them is sent once that is known", () => {
    expect(filtered("ctrl-p,ctrl-q", ["\u0010"])).toEqual({ passed: "", detached: false });
    expect(filtered("ctrl-p,ctrl-q", ["\u0010", "x"])).toEqual({ passed: "\u0010x", detached: false });
    expect(filtered("ctrl-p,ctrl-q", ["\u0010\u0010\u0011"])).toEqual({ passed: "\u0010", detached: true });
    expect(filtered("a,b,a,c", ["ababac"])).toEqual({ passed: "ab", detached: true });
  });

  test("none at all detach nothing", () => {
    expect(filtered("", ["\u0010\u0011"])).toEqual({ passed: "\u0010\u0011", detached: false });
  });

  test("no byte is lost or made up, however it is cut", () => {
    const input = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 30 });
    const keys = fc.constantFrom("a,b", "a,a,b", "a,b,a,b,c", "a,b,a,c");
    fc.assert(
      fc.property(input, keys, fc.nat(30), (text, named, cut) => {
        const sequence = named.replaceAll(",", "");
        const at = text.indexOf(sequence);
        const found = filtered(named, [text.slice(0, cut), text.slice(cut), "\n"]);
        expect(found).toEqual(
          at === -1
            ? { passed: `${text}\n`, detached: false }
            : { passed: text.slice(0, at), detached: true },
        );
      }),
    );
  });

  test("what is no key is refused", () => {
    expect([...parseDetachKeys("ctrl-@,ctrl-[,x")]).toEqual([0, 27, 120]);
    for (const text of ["ctrl-", "ctrl-pp", "ab", "é", "ctrl-p,"])
      expect(() => parseDetachKeys(text)).toThrow();
  });
});
