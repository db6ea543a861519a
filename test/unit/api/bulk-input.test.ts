// However a body of envelopes is cut, its bytes come through in order; and whatever is no message of bytes is read, and refused, as the library does.

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, type ConnectError } from "@connectrpc/connect";
import {
  createAsyncIterable,
  encodeEnvelope,
  pipe,
  transformParseEnvelope,
  transformSplitEnvelope,
} from "@connectrpc/connect/protocol";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  StatRequestSchema,
  type WriteFileRequest,
  WriteFileRequestSchema,
} from "../../../gen/sandboxd/v1/filesystem_service_pb.ts";
import { isBulkyInput, messagesIn } from "../../../src/api/bulk-input.ts";

const readMaxBytes = 4 * 1024 * 1024;
const parse = transformParseEnvelope<WriteFileRequest>({
  parse: (bytes: Uint8Array) => fromBinary(WriteFileRequestSchema, bytes),
  serialize: () => new Uint8Array(),
});

/** Each piece in memory that is used again for the next, as a gathered body is. */
async function* cutAt(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  const memory = Buffer.alloc(size);
  for (let at = 0; at < bytes.length; at += size) {
    const piece = Buffer.from(bytes.subarray(at, at + size));
    piece.copy(memory);
    yield memory.subarray(0, piece.length);
    memory.fill(0xee);
  }
}

/** The cases of the messages with bytes of neighbours put together, and how many messages there were. */
async function read(body: Uint8Array, size: number) {
  const found: { kind: string | undefined; bytes: Buffer }[] = [];
  let count = 0;
  const options = {
    readMaxBytes,
    read: (bytes: Uint8Array) =>
      pipe(createAsyncIterable([bytes]), transformSplitEnvelope(readMaxBytes), parse),
  };
  for await (const { part } of messagesIn<WriteFileRequest>(
    WriteFileRequestSchema,
    cutAt(body, size),
    options,
  )) {
    count += 1;
    const bytes = part.case === "data" ? Buffer.from(part.value) : Buffer.alloc(0);
    const last = found.at(-1);
    if (part.case === "data" && last?.kind === "data") last.bytes = Buffer.concat([last.bytes, bytes]);
    else found.push({ kind: part.case, bytes });
  }
  return { found, count };
}

const target = { case: "target" as const, value: { sandboxId: "box", path: "/x" } };
const enveloped = (part: object) =>
  encodeEnvelope(
    0,
    toBinary(WriteFileRequestSchema, create(WriteFileRequestSchema, { part: part as never })),
  );
const data = (value: Uint8Array) => enveloped({ case: "data", value });

describe("a body of messages of bytes", () => {
  test("comes through in order, however it is cut", async () => {
    const sizes = fc.array(
      fc.oneof(fc.integer({ min: 1, max: 300 }), fc.constantFrom(1, 127, 128, 16_383, 16_384)),
      { minLength: 1, maxLength: 8 },
    );
    await fc.assert(
      fc.asyncProperty(sizes, fc.integer({ min: 1, max: 40_000 }), async (lengths, size) => {
        const sent = lengths.map((length, index) => Buffer.alloc(length, index + 1));
        const body = Buffer.concat([enveloped(target), ...sent.map(data)]);
        const { found } = await read(body, size);
        expect(found.map(({ kind }) => kind)).toEqual(["target", "data"]);
        expect(found[1]?.bytes.equals(Buffer.concat(sent))).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  test("is passed on as it comes: many small ones together, a large one in pieces", async () => {
    const small = Buffer.concat(Array.from({ length: 100 }, () => data(Buffer.alloc(100))));
    expect((await read(small, small.length)).count).toBe(1);
    expect((await read(data(Buffer.alloc(100_000)), 10_000)).count).toBe(11);
  });

  test("keeps its order around messages of other kinds", async () => {
    const body = Buffer.concat([
      data(Buffer.from("a")),
      enveloped(target),
      data(Buffer.from("b")),
      enveloped({ case: undefined }),
    ]);
    for (const size of [1, 7, body.length]) {
      const { found } = await read(body, size);
      expect(found.map(({ kind, bytes }) => [kind, `${bytes}`])).toEqual([
        ["data", "a"],
        ["target", ""],
        ["data", "b"],
        [undefined, ""],
      ]);
    }
  });
});

describe("what is no such message", () => {
  test("of more bytes than the contract allows is one message, to be refused as that", async () => {
    expect((await read(data(Buffer.alloc(1_048_576)), 500_000)).count).toBe(3);
    expect((await read(data(Buffer.alloc(1_048_577)), 500_000)).count).toBe(1);
  });

  test("is refused at its header where it is too large, and at its end where it is cut", async () => {
    const code = async (body: Uint8Array) =>
      (
        (await read(body, 10).then(
          () => undefined,
          (error: unknown) => error,
        )) as ConnectError | undefined
      )?.code;
    const large = encodeEnvelope(0, new Uint8Array(readMaxBytes + 1)).subarray(0, 20);
    expect(await code(large)).toBe(Code.ResourceExhausted);
    const whole = data(Buffer.alloc(100));
    for (const length of [1, 5, 6, 50, whole.length - 1])
      expect(await code(whole.subarray(0, length)), `${length}`).toBe(Code.InvalidArgument);
    expect(await code(enveloped(target).subarray(0, 9))).toBe(Code.InvalidArgument);
    expect(await code(whole)).toBeUndefined();
  });

  test("is read by the library with its flags, and with more than one field", async () => {
    const twice = toBinary(
      WriteFileRequestSchema,
      create(WriteFileRequestSchema, { part: { case: "data", value: Buffer.from("a") } }),
    );
    const both = encodeEnvelope(0, Buffer.concat([twice, twice.with(2, 0x62)]));
    expect((await read(both, 3)).found.map(({ bytes }) => `${bytes}`)).toEqual(["b"]);
    const flagged = Buffer.from(data(Buffer.alloc(10)));
    flagged[0] = 1;
    const flags: number[] = [];
    const options = {
      readMaxBytes,
      async *read(bytes: Uint8Array) {
        flags.push(bytes[0] ?? 0);
        yield create(WriteFileRequestSchema);
      },
    };
    for await (const _ of messagesIn(WriteFileRequestSchema, cutAt(flagged, 4), options));
    expect(flags).toEqual([1]);
  });

  test("is of another method", () => {
    expect([isBulkyInput(WriteFileRequestSchema), isBulkyInput(StatRequestSchema)]).toEqual([true, false]);
  });
});
