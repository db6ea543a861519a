import { gunzipSync, gzipSync } from "node:zlib";
import { Code } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { compressionGzip } from "../../../src/api/compression.ts";

const text = Buffer.from("x".repeat(10_000));

test("what is compressed is gzip, and what is gzip is decompressed", async () => {
  expect(gunzipSync(await compressionGzip.compress(text)).equals(text)).toBe(true);
  expect(Buffer.from(await compressionGzip.decompress(gzipSync(text), 10_000)).equals(text)).toBe(true);
});

test("an empty message is empty, compressed or not", async () => {
  expect(await compressionGzip.decompress(new Uint8Array(0), 10)).toHaveLength(0);
});

test("a message that is larger than it may be is refused as that", async () => {
  await expect(compressionGzip.decompress(gzipSync(text), 9_999)).rejects.toMatchObject({
    code: Code.ResourceExhausted,
  });
});

test.each([
  ["no gzip", text],
  ["cut off", gzipSync(text).subarray(0, 20)],
])("a message that is %s is refused as invalid", async (_, bytes) => {
  await expect(compressionGzip.decompress(bytes, 10_000)).rejects.toMatchObject({
    code: Code.InvalidArgument,
  });
});
