// An answer's chunks: large ones are sent before the next is made, so that their memory can be used again; small ones of one turn go together.

import { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import type { NodeRequest, NodeResponse } from "../../../src/api/request-handler.ts";
import { leastSentBytes, writeResponse } from "../../../src/api/response-writer.ts";

function answered(chunks: AsyncIterable<Uint8Array>) {
  const writes: number[][] = [];
  let take = () => {};
  const response = new Writable({
    highWaterMark: 1024 * 1024,
    writev(parts, done) {
      writes.push(parts.map(({ chunk }) => (chunk as Buffer).length));
      take = () => done();
    },
  });
  const stubbed = Object.assign(response, { writeHead: () => undefined });
  const answer = { status: 200, header: new Headers(), body: chunks };
  const written = writeResponse(
    { stream: {}, complete: true } as unknown as NodeRequest,
    stubbed as unknown as NodeResponse,
    answer,
    false,
  );
  return { writes, written, response, take: () => take() };
}

test("a large chunk is out before the next is asked for, also where there is room for more", async () => {
  let asked = 0;
  const { writes, written, take } = answered(
    (async function* () {
      for (; asked < 2; asked += 1) yield Buffer.alloc(leastSentBytes);
    })(),
  );
  await sleep(20);
  expect([asked, writes.length]).toEqual([0, 1]);
  take();
  await sleep(20);
  expect([asked, writes.length]).toEqual([1, 2]);
  take();
  await written;
});

test("small chunks of one turn are sent together", async () => {
  const { writes, written, take } = answered(
    (async function* () {
      for (let count = 0; count < 3; count += 1) yield Buffer.alloc(10);
    })(),
  );
  await written;
  await sleep(20);
  take();
  expect(writes).toEqual([[10, 10, 10]]);
});

test("a caller that goes is not waited for", async () => {
  const { written, response } = answered(
    (async function* () {
      for (;;) yield Buffer.alloc(leastSentBytes);
    })(),
  );
  await sleep(20);
  response.destroy();
  await written;
});
