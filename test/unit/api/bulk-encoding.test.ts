// Messages that are encoded in parts are, put together, the messages that any reader of protobuf reads.

import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  DownloadArchiveResponseSchema,
  ReadFileResponseSchema,
  StatResponseSchema,
} from "../../../gen/sandboxd/v1/filesystem_service_pb.ts";
import {
  ConnectProcessResponseSchema,
  StartProcessResponseSchema,
} from "../../../gen/sandboxd/v1/process_service_pb.ts";
import { ExportWorkspaceResponseSchema } from "../../../gen/sandboxd/v1/workspace_service_pb.ts";
import { isBulky, splitMessage } from "../../../src/api/bulk-encoding.ts";

const many = fc.integer({ min: 16_384, max: 300_000 }).map((size) => Buffer.alloc(size, "sandboxd"));

function together<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): MessageShape<Desc> {
  const parts = splitMessage(schema, message);
  expect(parts).toBeDefined();
  return fromBinary(schema, Buffer.concat([parts?.head ?? Buffer.alloc(0), parts?.bytes ?? Buffer.alloc(0)]));
}

function same<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): void {
  const read = together(schema, message);
  expect(Buffer.from(toBinary(schema, read)).equals(toBinary(schema, message))).toBe(true);
}

describe("a message of many bytes, in parts, is the same message", () => {
  test.each([StartProcessResponseSchema, ConnectProcessResponseSchema])(
    "output of a process (%#)",
    (schema) => {
      const kinds = fc.constantFrom("stdout" as const, "stderr" as const, "terminal" as const);
      const sequences = fc.bigInt({ min: 0n, max: BigInt(Number.MAX_SAFE_INTEGER) });
      const edges = [0n, 1n, 127n, 128n, 2n ** 31n, 2n ** 32n, 2n ** 35n - 1n].map((edge) =>
        fc.constant(edge),
      );
      fc.assert(
        fc.property(kinds, fc.oneof(sequences, ...edges), many, (kind, sequence, value) => {
          same(schema, create(schema, { event: { sequence, event: { case: kind, value } } }));
        }),
        { numRuns: 50 },
      );
    },
  );

  test("a piece of a file or of an archive", () => {
    fc.assert(
      fc.property(many, (data) => {
        same(ReadFileResponseSchema, create(ReadFileResponseSchema, { part: { case: "data", value: data } }));
        same(DownloadArchiveResponseSchema, create(DownloadArchiveResponseSchema, { data }));
        same(ExportWorkspaceResponseSchema, create(ExportWorkspaceResponseSchema, { data }));
      }),
      { numRuns: 20 },
    );
  });
});

describe("encoded like any other is", () => {
  test("a message of few bytes", () => {
    const few = create(DownloadArchiveResponseSchema, { data: Buffer.alloc(16_383) });
    expect(splitMessage(DownloadArchiveResponseSchema, few)).toBeUndefined();
  });
  test("what is no output", () => {
    const file = create(ReadFileResponseSchema, { part: { case: "file", value: { path: "/x" } } });
    expect(splitMessage(ReadFileResponseSchema, file)).toBeUndefined();
    const quiet = create(StartProcessResponseSchema, { event: { event: { case: "keepalive", value: {} } } });
    expect(splitMessage(StartProcessResponseSchema, quiet)).toBeUndefined();
    expect(splitMessage(StartProcessResponseSchema, create(StartProcessResponseSchema))).toBeUndefined();
  });
  test("a message of another method", () => {
    expect(isBulky(StatResponseSchema)).toBe(false);
    expect(isBulky(ReadFileResponseSchema)).toBe(true);
  });
});
