// Frames arrive as they were sent, however the stream is cut, and no faster than they are taken.

import { Duplex } from "node:stream";
import fc from "fast-check";
import { expect, test } from "vitest";
import { connectionOver } from "../../../src/toolbox/connection.ts";
import { mostFrameBytes, writer } from "../../../src/toolbox/protocol.ts";

/** Gives out these pieces, each in a buffer that is used again for the next. */
function given(pieces: Iterable<Buffer>) {
  const source = pieces[Symbol.iterator]();
  const counted = { pieces: 0 };
  const socket = new Duplex({
    // as much as is held back before reading stops
    readableHighWaterMark: 1,
    read() {
      const next = source.next();
      counted.pieces += 1;
      if (next.done === true) this.push(null);
      else this.push(next.value);
    },
    write: (_chunk, _encoding, done) => done(),
  });
  return { connection: connectionOver(socket), counted };
}

function* cutAt(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

test("frames are put together from pieces that are cut anywhere", async () => {
  const payloads = fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 20 });
  await fc.assert(
    fc.asyncProperty(payloads, fc.integer({ min: 1, max: 400 }), async (sent, size) => {
      const frames = sent.map((payload, index) => writer().bytes(payload).frame(index));
      const { connection } = given(cutAt(Buffer.concat(frames), size));
      for (const [index, payload] of sent.entries()) {
        const frame = await connection.receive();
        expect(frame?.type).toBe(index);
        expect(frame?.payload.equals(payload)).toBe(true);
      }
      expect(await connection.receive()).toBeUndefined();
    }),
    { numRuns: 50 },
  );
});

test.each([0, mostFrameBytes + 1, 0xffffffff])(
  "a frame of %i bytes is refused, after those before it",
  async (length) => {
    const header = Buffer.alloc(4);
    header.writeUInt32LE(length);
    const { connection } = given([Buffer.concat([writer().frame(7), header]), Buffer.alloc(1_000)]);
    expect((await connection.receive())?.type).toBe(7);
    await expect(connection.receive()).rejects.toMatchObject({ reason: "TOOLBOX_UNAVAILABLE" });
  },
);

test("no more is read while nobody takes it", async () => {
  const frame = writer().bytes(Buffer.alloc(65_000)).frame(1);
  function* endless(): Generator<Buffer> {
    for (;;) yield frame;
  }
  const { connection, counted } = given(endless());
  await connection.receive();
  await new Promise((resolve) => setTimeout(resolve, 50));
  const before = counted.pieces;
  expect(before).toBeLessThan(30);
  for (let count = 0; count < 20; count += 1) await connection.receive();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(counted.pieces).toBeGreaterThan(before);
  connection.close();
});
