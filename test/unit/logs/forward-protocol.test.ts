import { decode, decodeMulti, ExtData, encode } from "@msgpack/msgpack";
import { describe, expect, test } from "vitest";
import {
  encodeEntry,
  encodeMessage,
  newChunkId,
  readConfirmations,
} from "../../../src/logs/forward-protocol.ts";

describe("a message", () => {
  const fields = {
    log: "line é",
    stream: "stdout",
    sequence: 1_795_735_505_361_509_070n,
    labels: { a: "b" },
  };
  const entry = encodeEntry({ timeNanoseconds: 1_767_225_600_123_456_789n, fields });

  test("has entries with nanoseconds, and numbers of 64 bits", () => {
    const [time, record] = decode(entry, { useBigInt64: true }) as [ExtData, unknown];
    expect(time).toEqual(new ExtData(0, Uint8Array.from(Buffer.from("6955b900075bcd15", "hex"))));
    expect(record).toEqual(fields);
  });

  test("is of the mode PackedForward, and asks for a confirmation only with an id", () => {
    const data = Buffer.concat([entry, entry]);
    const [tag, packed, option] = decode(encodeMessage({ tag: "t", records: 2, data }, "id")) as [
      string,
      Uint8Array,
      object,
    ];
    expect([tag, option]).toEqual(["t", { size: 2, chunk: "id" }]);
    expect([...decodeMulti(packed)]).toHaveLength(2);
    expect(decode(encodeMessage({ tag: "t", records: 2, data }, undefined))).toMatchObject({
      2: { size: 2 },
    });
    expect(new Set(Array.from({ length: 100 }, newChunkId)).size).toBe(100);
    expect(Buffer.from(newChunkId(), "base64")).toHaveLength(16);
  });
});

describe("confirmations", () => {
  async function read(...chunks: readonly Uint8Array[]): Promise<readonly string[]> {
    const source = (async function* () {
      for (const chunk of chunks) yield Buffer.from(chunk);
    })();
    const ids: string[] = [];
    for await (const id of readConfirmations(source)) ids.push(id);
    return ids;
  }

  test("are read over any cut of what arrives", async () => {
    const bytes = Buffer.concat([encode({ ack: "one" }), encode({ ack: "two" })]);
    expect(await read(bytes)).toEqual(["one", "two"]);
    expect(await read(...Array.from(bytes, (byte) => Uint8Array.of(byte)))).toEqual(["one", "two"]);
  });

  test.each([
    ["text", Buffer.from("HTTP/1.1 400 Bad Request\r\n")],
    ["another message", encode(["HELO", { nonce: "x" }])],
    ["an id that is none", encode({ ack: 7 })],
    ["an id longer than any", encode({ ack: "x".repeat(2_000) })],
    ["a byte that has no meaning", Uint8Array.of(0xc1)],
  ])("%s is refused", async (_, bytes) => {
    await expect(read(bytes)).rejects.toThrow();
  });

  test("that never come to an end are refused before they fill the memory", async () => {
    const endless = Buffer.alloc(10_000);
    endless.writeUInt8(0xdf, 0);
    endless.writeUInt32BE(16, 1);
    endless.fill(0xdb, 5, 6);
    endless.writeUInt32BE(1_000, 6);
    await expect(
      read(endless, ...Array.from({ length: 20 }, () => Buffer.alloc(10_000, 0x91))),
    ).rejects.toThrow();
  });
});
