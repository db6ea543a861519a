// A gathered body: all that has come at once, no more held than two pieces, and an end that is told from a cut.

import type { IncomingMessage } from "node:http";
import { PassThrough } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { gatheredBody } from "../../../src/api/bulk-body.ts";

function begun() {
  const source = new PassThrough({ highWaterMark: 16_384 });
  const body = gatheredBody(source as unknown as IncomingMessage);
  return { source, body, pieces: body.bytes[Symbol.asyncIterator]() };
}

test("what has come is one piece, and the end is told after it", async () => {
  const { source, pieces } = begun();
  for (const text of ["a", "b", "c"]) source.write(text);
  expect(`${Buffer.from((await pieces.next()).value)}`).toBe("abc");
  const waiting = pieces.next();
  source.end("d");
  expect(`${Buffer.from((await waiting).value)}`).toBe("d");
  expect((await pieces.next()).done).toBe(true);
});

test("all of it comes through in order, in memory that is used again, and no more is read than fits", async () => {
  const { source, pieces } = begun();
  const all = Buffer.from(Array.from({ length: 2_000_000 }, (_, index) => (index * 7919) % 251));
  let taken = 0;
  void (async () => {
    for (let at = 0; at < all.length; at += 10_000) {
      if (!source.write(all.subarray(at, at + 10_000)))
        await new Promise((resolve) => source.once("drain", resolve));
      taken += 10_000;
    }
    source.end();
  })();
  await sleep(100);
  expect(taken).toBeLessThan(400_000);
  const found: Buffer[] = [];
  const places = new Set<ArrayBufferLike>();
  for (let next = await pieces.next(); next.done !== true; next = await pieces.next()) {
    places.add(next.value.buffer);
    found.push(Buffer.from(next.value));
  }
  expect(Buffer.concat(found).equals(all)).toBe(true);
  expect(places.size).toBe(2);
});

test("a body that is cut is an error, not an end", async () => {
  const { source, pieces } = begun();
  source.write("half");
  await pieces.next();
  const waiting = pieces.next();
  source.destroy();
  await expect(waiting).rejects.toMatchObject({ message: expect.any(String) });
});

test("no more is read once it is left", async () => {
  const { source, body, pieces } = begun();
  source.write("a");
  await pieces.next();
  await pieces.return?.();
  body.close();
  source.write("b");
  await sleep(10);
  expect([source.readableLength, source.destroyed]).toEqual([1, false]);
});
