import { expect, test } from "vitest";
import { SandboxdError } from "../../../../src/errors.ts";
import { decodeOutcome, encodeOutcome } from "../../../../src/workspace/archive/outcome.ts";

test("counts and errors come over as they are", () => {
  const error = new SandboxdError("ARCHIVE_REFUSED", 'entry "a\\u{a}": no', {
    hint: "send another",
    metadata: { entry: "a" },
  });
  expect(decodeOutcome(encodeOutcome({ error }))).toEqual({ error });
  expect(decodeOutcome(encodeOutcome({ counts: { bytes: 3 } }))).toEqual({ counts: { bytes: 3 } });
});

test.each([
  ["nothing", ""],
  ["no JSON", "{"],
  ["null", "null"],
  ["a reason that is not the program's to give", '{"reason":"UNAUTHENTICATED","message":"x"}'],
  ["a message that is no text", '{"reason":"INTERNAL","message":{}}'],
  ["a count below zero", '{"counts":{"bytes":-1}}'],
  ["a count that is none", '{"counts":{"bytes":"1"}}'],
])("%s is no outcome", (_what, line) => {
  expect(decodeOutcome(line)).toBeUndefined();
});

test("a program that was taken over cannot speak to a terminal, or at length", () => {
  const line = JSON.stringify({
    reason: "INTERNAL",
    message: `\x1b[2J\n${"x".repeat(9000)}`,
    metadata: { "\n": "\u202e" },
  });
  expect(decodeOutcome(line)).toMatchObject({
    error: { message: `?[2J?${"x".repeat(1019)}`, details: { metadata: { "\\u{a}": "?" } } },
  });
});
