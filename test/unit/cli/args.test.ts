import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseCommand, usage } from "../../../src/cli/args.ts";

const parse = (line: string) => parseCommand(line === "" ? [] : line.split(" "));

describe("commands", () => {
  test.each([
    ["serve", { command: "serve", configFile: undefined, dev: false, set: [] }],
    [
      "serve --config /etc/s.toml --dev --set a.b=c=d --set e.f=",
      { command: "serve", configFile: "/etc/s.toml", dev: true, set: ["a.b=c=d", "e.f="] },
    ],
    ["config check --config=x", { command: "config-check", configFile: "x", dev: false, set: [] }],
    [
      "dev-scheduler --listen 127.0.0.1:0",
      { command: "dev-scheduler", listen: { host: "127.0.0.1", port: 0 }, json: false },
    ],
    [
      "dev-scheduler --listen [::1]:7080 --json",
      { command: "dev-scheduler", listen: { host: "::1", port: 7080 }, json: true },
    ],
    ["version", { command: "version" }],
    ["--version", { command: "version" }],
    ["help", { command: "help" }],
    ["-h", { command: "help" }],
    ["serve --help", { command: "help" }],
    ["config --help", { command: "help" }],
    ["dev-scheduler -h", { command: "help" }],
  ])("%s is understood", (line, command) => {
    expect(parse(line)).toEqual(command);
  });

  test.each([
    ["", "a command is missing"],
    ["run", 'unknown command "run"'],
    ["serve extra", "Unexpected argument 'extra'"],
    ["serve --confg x", "Unknown option '--confg'"],
    ["serve --config", "argument missing"],
    ["serve --config=", "--config needs the path of a file"],
    ["serve --dev=1", "does not take an argument"],
    ["serve --set a.b", '--set "a.b": expected SECTION.KEY=VALUE'],
    ["serve --set =b", '--set "=b": expected SECTION.KEY=VALUE'],
    ["config", 'expected "config check"'],
    ["config chek", 'expected "config check"'],
    ["dev-scheduler", "needs --listen HOST:PORT"],
    ["dev-scheduler --listen 7080", '--listen "7080": expected HOST:PORT'],
    ["dev-scheduler --listen a:65536", '--listen "a:65536": expected HOST:PORT'],
    ["version now", 'unexpected argument "now"'],
  ])("%s is wrong usage, and says why", (line, message) => {
    const command = parse(line);
    expect(command).toMatchObject({ command: "usage-error", message: expect.stringContaining(message) });
  });

  test("no arguments make the parser throw", () => {
    const word = fc.oneof(
      fc.constantFrom("serve", "config", "check", "--", "-", "--set", "--listen", "--dev"),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.array(word, { maxLength: 5 }), (argv) => {
        expect(parseCommand(argv).command).toBeTypeOf("string");
      }),
    );
  });

  test("the usage names every command and option", () => {
    for (const word of [
      "serve",
      "config check",
      "dev-scheduler",
      "version",
      "help",
      "--config",
      "--dev",
      "--set",
      "--listen",
      "--json",
    ]) {
      expect(usage).toContain(word);
    }
  });
});
