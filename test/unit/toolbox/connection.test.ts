// Frames arrive as they were sent, however the stream is cut, and no faster than they are taken.

import { Duplex } from "node:stream";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Connection, connectionOver } from "../../../src/toolbox/connection.ts";
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
  // far more than is read, and no more than there is memory for
  function* many(): Generator<Buffer> {
    for (let count = 0; count < 1_000; count += 1) yield frame;
  }
  const { connection, counted } = given(many());
  await connection.receive();
  await new Promise((resolve) => setTimeout(resolve, 50));
  const before = counted.pieces;
  expect(before).toBeLessThan(30);
  for (let count = 0; count < 20; count += 1) await connection.receive();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(counted.pieces).toBeGreaterThan(before);
  connection.close();
});

describe("the memory of a large frame", () => {
  const large = (fill: number) => writer().bytes(Buffer.alloc(200_000, fill)).frame(1);
  const received = async (connection: Connection) => {
    const frame = await connection.receive();
    if (frame === undefined) throw new Error("no frame");
    return frame;
  };

  test("is used for another once it was given back, and not before", async () => {
    const { connection } = given([1, 2, 3, 4].map(large));
    const first = await received(connection);
    const second = await received(connection);
    expect(second.payload.buffer).not.toBe(first.payload.buffer);
    expect(first.payload.every((byte) => byte === 1)).toBe(true);
  });

  test("is never more than was given back", async () => {
    function* inTurn(): Generator<Buffer> {
      for (let count = 0; count < 200; count += 1) yield large(count);
    }
    const { connection } = given(inTurn());
    const places = new Set<ArrayBufferLike>();
    for (let count = 0; count < 200; count += 1) {
      const frame = await received(connection);
      expect(frame.payload.every((byte) => byte === count)).toBe(true);
      places.add(frame.payload.buffer);
      connection.release(frame);
    }
    expect(places.size).toBeLessThan(12);
  });

  test("is not taken from small ones, which share theirs", async () => {
    const small = (fill: number) => writer().bytes(Buffer.alloc(1_000, fill)).frame(1);
    const { connection } = given([1, 2, 3].map(small));
    const first = await received(connection);
    connection.release(first);
    await received(connection);
    await received(connection);
    expect(first.payload.every((byte) => byte === 1)).toBe(true);
  });
});

describe("what is sent in parts", () => {
  test("arrives in order, together, and is waited for until it is out", async () => {
    const sent: Buffer[][] = [];
    let take = () => {};
    const socket = new Duplex({
      read: () => undefined,
      writev(chunks, done) {
        sent.push(chunks.map(({ chunk }) => chunk as Buffer));
        take = () => done();
      },
    });
    const connection = connectionOver(socket);
    let isOut = false;
    const out = connection.sendOut([Buffer.from("a"), Buffer.from("b")]).then(() => (isOut = true));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(sent.map((parts) => parts.map(String))).toEqual([["a", "b"]]);
    expect(isOut).toBe(false);
    take();
    await out;
  });

  test("is not waited for once the other side has gone", async () => {
    const socket = new Duplex({ read: () => undefined, writev: () => undefined });
    const connection = connectionOver(socket);
    const out = connection.sendOut([Buffer.from("a")]);
    connection.close();
    await out;
    await connection.sendOut([Buffer.from("b")]);
  });
});
