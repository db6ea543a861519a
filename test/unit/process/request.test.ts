// What is refused before a sandbox is asked for anything, with the exact field; defaults; and which requests are the same.

import fc from "fast-check";
import { expect, test } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { hashOfRequest, type StartRequest, specOf } from "../../../src/process/request.ts";
import { signalOf } from "../../../src/process/signals.ts";
import { requestOf } from "./fixture.ts";

function fieldsOf(change: Partial<StartRequest>, command: readonly string[] = ["true"]): readonly string[] {
  try {
    specOf(requestOf(command, change), "/tmp");
  } catch (error) {
    if (!(error instanceof SandboxdError)) throw error;
    expect(error.reason).toBe("INVALID_FIELD");
    return error.details.fields?.map(({ field }) => field) ?? [];
  }
  return [];
}

test.each<[string, Partial<StartRequest>, readonly string[], readonly string[]]>([
  ["no executable", {}, [""], ["command[0]"]],
  ["NUL in a word", {}, ["sh", "-c", "a\0b"], ["command[2]"]],
  ["words of more than 128 KiB", {}, ["echo", "x".repeat(131_072)], ["command"]],
  ["a reserved variable", { env: { LD_PRELOAD: "x" } }, ["true"], ['env["LD_PRELOAD"]']],
  ["a variable of the daemon's", { env: { SANDBOXD_X: "x" } }, ["true"], ['env["SANDBOXD_X"]']],
  ["a name that is none", { env: { "A=B": "x", "": "y" } }, ["true"], ['env["A=B"]', 'env[""]']],
  ["NUL in a value", { env: { A: "x\0y" } }, ["true"], ['env["A"]']],
  ["a value of more than 32 KiB", { env: { A: "x".repeat(32_769) } }, ["true"], ['env["A"]']],
  [
    "words and variables of more than 128 KiB",
    { env: Object.fromEntries(Array.from({ length: 5 }, (_, index) => [`V${index}`, "x".repeat(30_000)])) },
    ["true"],
    ["env"],
  ],
  ["a relative directory", { workingDir: "tmp" }, ["true"], ["working_dir"]],
  ["a directory of the kernel's", { workingDir: "/proc/self/cwd" }, ["true"], ["working_dir"]],
  ["one that is spelled otherwise", { workingDir: "//tmp/..//./sys" }, ["true"], ["working_dir"]],
  ["NUL in a directory", { workingDir: "/a\0" }, ["true"], ["working_dir"]],
  ["a ring that is too small", { retainedBytes: 4_095 }, ["true"], ["retained_bytes"]],
  [
    "several things at once",
    { retainedBytes: 1, workingDir: "x" },
    [""],
    ["command[0]", "working_dir", "retained_bytes"],
  ],
])("%s is refused", (_what, change, command, fields) => {
  expect(fieldsOf(change, command)).toEqual(fields);
});

test("a refusal never says a value of the environment", () => {
  try {
    specOf(requestOf(["true"], { env: { TOKEN: `hunter2\0${"s3cret".repeat(9_000)}` } }), "/tmp");
    expect.unreachable();
  } catch (error) {
    expect(JSON.stringify(error) + String(error)).not.toMatch(/hunter2|s3cret/);
  }
});

test("what is left out has its default; a terminal has an input, a size and a TERM", () => {
  expect(specOf(requestOf(["true"], { workingDir: "" }), "/workspace")).toEqual({
    command: ["true"],
    env: {},
    workingDir: "/workspace",
    hasInput: false,
    timeoutMs: 0,
    killGraceMs: 5_000,
    killsOnDisconnect: false,
    waits: false,
    maxWaitMs: 30_000,
    retainedBytes: 1_048_576,
  });
  const terminal = specOf(requestOf(["sh"], { terminal: { rows: 0, columns: 132 } }), "/tmp");
  expect(terminal).toMatchObject({
    hasInput: true,
    terminal: { rows: 24, columns: 132 },
    env: { TERM: "xterm-256color" },
  });
  const own = specOf(requestOf(["sh"], { terminal: { rows: 0, columns: 0 }, env: { TERM: "dumb" } }), "/tmp");
  expect(own.env).toEqual({ TERM: "dumb" });
});

test("requests that mean the same have one hash, whatever the order of their variables; others another", () => {
  const same = requestOf(["a", "b"], { env: { A: "1", B: "2" } });
  expect(hashOfRequest({ ...same, env: { B: "2", A: "1" } })).toBe(hashOfRequest(same));
  const others: Partial<StartRequest>[] = [
    { command: ["a b"] },
    { command: ["a", "b", ""] },
    { env: { A: "1" } },
    { env: { A: "1", B: "3" } },
    { workingDir: "/" },
    { hasInput: true },
    { terminal: { rows: 1, columns: 1 } },
    { timeoutMs: 1 },
    { waits: true },
    { retainedBytes: 4_096 },
  ];
  const hashes = [same, ...others.map((change) => ({ ...same, ...change }))].map(hashOfRequest);
  expect(new Set(hashes).size).toBe(hashes.length);
});

test("no two different commands have one hash", () => {
  const words = fc.array(fc.string(), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(words, words, (one, other) => {
      const isSame = JSON.stringify(one) === JSON.stringify(other);
      expect(hashOfRequest(requestOf(one)) === hashOfRequest(requestOf(other))).toBe(isSame);
    }),
  );
});

test.each([
  ["SIGTERM", 15],
  ["TERM", 15],
  ["term", 15],
  ["15", 15],
  ["SIGKILL", 9],
  ["SIGRTMIN", 34],
  ["SIGRTMIN+3", 37],
  ["RTMAX-1", 63],
  ["64", 64],
])("%s is signal %i", (text, number) => {
  expect(signalOf(text)).toBe(number);
});

test.each(["0", "65", "SIGNONE", "RTMAX+1", "RTMIN-1", "-9", "9.0", "", "toString", "SIGRTMIN+99"])(
  "%j is no signal",
  (text) => {
    expect(() => signalOf(text)).toThrowError(/signal: /);
  },
);
