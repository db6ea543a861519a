import { Code } from "@connectrpc/connect";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  LocalizedMessageSchema,
} from "../../../gen/google/rpc/error_details_pb.ts";
import { ErrorReason } from "../../../gen/sandboxd/v1/error_pb.ts";
import { encodeError, reasonOf, shortened, statusName } from "../../../src/api/error-encoding.ts";
import type { Reason } from "../../../src/errors.ts";
import { catalogue, SandboxdError } from "../../../src/errors.ts";

const reasons = Object.keys(catalogue) as Reason[];

test("the catalogue and the contract's enum name the same reasons", () => {
  const inContract = Object.values(ErrorReason).filter(
    (name) => typeof name === "string" && name !== "UNSPECIFIED",
  );
  expect([...reasons].sort()).toEqual([...inContract].sort());
});

test.each(reasons)("%s travels under its status with its reason", (reason) => {
  const error = encodeError(new SandboxdError(reason, "It failed."));
  expect(statusName(error.code)).toBe(catalogue[reason]);
  expect(reasonOf(error)).toBe(reason);
  expect(error.rawMessage).toBe("It failed.");
});

test.each([
  [Code.Canceled, "canceled"],
  [Code.InvalidArgument, "invalid_argument"],
  [Code.DeadlineExceeded, "deadline_exceeded"],
])("code %i is called %s", (code, name) => {
  expect(statusName(code)).toBe(name);
});

describe("a hint", () => {
  test.each([
    ["It failed", "It failed.\nHint: Wait."],
    ["It failed.", "It failed.\nHint: Wait."],
    ["Did it?", "Did it?\nHint: Wait."],
  ])("after %j makes %j", (message, whole) => {
    const error = encodeError(new SandboxdError("INTERNAL", message, { hint: "Wait." }));
    expect(error.rawMessage).toBe(whole);
    expect(error.findDetails(LocalizedMessageSchema)[0]?.message).toBe("Wait.");
  });
});

test("metadata travels, the cause does not", () => {
  const error = encodeError(
    new SandboxdError("STALE_TERM", "Old.", { metadata: { term: "4" }, cause: new Error("secret") }),
  );
  expect(error.findDetails(ErrorInfoSchema)[0]?.metadata).toEqual({ term: "4" });
  expect([error.cause, error.details]).toEqual([undefined, [expect.anything()]]);
});

test("however much is wrong, the error fits into 8 KiB of trailers, and says how much it left out", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ field: fc.string(), description: fc.string() }), { minLength: 1, maxLength: 400 }),
      fc.string({ maxLength: 5000 }),
      (fields, message) => {
        const error = encodeError(new SandboxdError("INVALID_FIELD", message, { fields, hint: message }));
        const told = error.findDetails(BadRequestSchema)[0]?.fieldViolations ?? [];
        const bytes = told.reduce(
          (sum, { field, description }) => sum + field.length + description.length,
          0,
        );
        expect(bytes).toBeLessThan(3000);
        expect(error.rawMessage.length).toBeLessThan(2100);
        if (told.length < fields.length) {
          expect(told.at(-1)?.description).toBe(`and ${fields.length - told.length + 1} more`);
        } else {
          expect(told).toMatchObject(fields);
        }
      },
    ),
  );
});

test("shortening never cuts a character in half and never exceeds its bound", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), fc.integer({ min: 1, max: 40 }), (text, max) => {
      const short = shortened(text, max);
      expect(short.length).toBeLessThanOrEqual(max);
      expect(short.isWellFormed()).toBe(true);
      expect(short === text || short.endsWith("…")).toBe(true);
    }),
  );
});
