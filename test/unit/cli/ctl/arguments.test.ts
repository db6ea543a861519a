import { describe, expect, test } from "vitest";
import { optionValue, pairsOf, parseArguments, UsageError } from "../../../../src/cli/ctl/arguments.ts";

const specs = {
  tty: { kind: "flag", short: "t", help: "" },
  interactive: { kind: "flag", short: "i", help: "" },
  env: { kind: "list", short: "e", value: "K=V", help: "" },
  tail: { kind: "value", short: "n", value: "N", help: "" },
} as const;

const parse = (argv: readonly string[], interspersed = true) => parseArguments(argv, { specs, interspersed });

describe("arguments", () => {
  test("short options are joined, and values follow after a space, after =, or at once", () => {
    const args = parse(["-it", "-n5", "-eA=1", "-e", "B=2", "--env=C=3", "word"]);
    expect([...args.flags]).toEqual(["interactive", "tty"]);
    expect(optionValue(args, "tail")).toBe("5");
    expect(args.values.get("env")).toEqual(["A=1", "B=2", "C=3"]);
    expect(args.words).toEqual(["word"]);
    expect(optionValue(parse(["-itn", "7"]), "tail")).toBe("7");
    expect(optionValue(parse(["-n=7"]), "tail")).toBe("7");
  });

  test("of a value that is given twice the last counts, and a flag can be taken back", () => {
    expect(optionValue(parse(["-n1", "--tail=2"]), "tail")).toBe("2");
    expect(parse(["-t", "--tty=false"]).flags.has("tty")).toBe(false);
  });

  test("options may follow after words, but not after --, nor where a command comes last", () => {
    expect(parse(["a", "-t", "b"])).toMatchObject({ words: ["a", "b"], flags: new Set(["tty"]) });
    expect(parse(["a", "--", "-t", "--nonsense"]).words).toEqual(["a", "-t", "--nonsense"]);
    expect(parse(["-t", "box", "ls", "-t", "--"], false).words).toEqual(["box", "ls", "-t", "--"]);
    expect(parse(["-", "-t"]).words).toEqual(["-"]);
  });

  test("what is unknown, lacks its value or has one too many is refused by name", () => {
    const failure = (argv: readonly string[]) => {
      try {
        parse(argv);
      } catch (error) {
        if (error instanceof UsageError) return error.message;
      }
      return "";
    };
    expect(failure(["--nonsense"])).toBe("unknown option --nonsense");
    expect(failure(["--toString"])).toBe("unknown option --toString");
    expect(failure(["-ix"])).toBe("unknown option -x");
    expect(failure(["-n"])).toBe("-n needs a value");
    expect(failure(["--tty=yes"])).toBe("--tty takes no value");
  });

  test("pairs keep what follows the first =, and a bare key takes its value from elsewhere or is refused", () => {
    const args = parse(["-e", "A=b=c", "-eEMPTY=", "-eHOME", "-e__proto__=x"]);
    const pairs = pairsOf(args, "env", (key) => (key === "HOME" ? "/root" : undefined));
    expect(Object.entries(pairs)).toEqual([
      ["A", "b=c"],
      ["EMPTY", ""],
      ["HOME", "/root"],
      ["__proto__", "x"],
    ]);
    expect(() => pairsOf(args, "env")).toThrow('--env "HOME": expected KEY=VALUE');
    expect(() => pairsOf(parse(["-e=x"]), "env", () => "y")).not.toThrow();
    expect(() => pairsOf(parse(["-e", "=x"]), "env", () => "y")).toThrow(UsageError);
  });
});
