import type { IncomingMessage } from "node:http";
import { PassThrough } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { expect, test } from "vitest";
import { boundedBody, createReceiveBudget } from "../../../src/api/request-body.ts";

const budgetBytes = 1_000_000;

function received({ timeoutMs = 60_000 } = {}) {
  const request = new PassThrough({ highWaterMark: 1_000_000 });
  const budget = createReceiveBudget(budgetBytes);
  const body = boundedBody(request as unknown as IncomingMessage, budget, timeoutMs);
  const source = body.bytes[Symbol.asyncIterator]();
  const all = async () => {
    const chunks: Uint8Array[] = [];
    for (let next = await source.next(); next.done !== true; next = await source.next())
      chunks.push(next.value);
    return Buffer.concat(chunks).toString();
  };
  return { request, budget, body, source, all };
}

test("a body is told as it comes, until its end", async () => {
  const { request, all } = received();
  const told = all();
  request.write("one ");
  await turn();
  request.write("two ");
  request.end("three");
  expect(await told).toBe("one two three");
});

test("what is left in the middle is cancelled by its caller", async () => {
  const { request, source } = received();
  request.write("half");
  await source.next();
  const next = source.next();
  request.destroy();
  await expect(next).rejects.toMatchObject({ rawMessage: expect.stringContaining("caller has gone") });
});

test("what does not come in time is refused, and no more of it is taken", async () => {
  const { request, source } = received({ timeoutMs: 20 });
  await expect(source.next()).rejects.toMatchObject({ rawMessage: expect.stringContaining("20 ms") });
  request.write(Buffer.alloc(2_000_000));
  await turn();
  await expect(source.next()).rejects.toThrow();
  expect(request.isPaused()).toBe(true);
});

test("what nobody asks for is not read without end, and goes on when it is asked for", async () => {
  const { request, budget, all } = received();
  for (let count = 0; count < 8; count += 1) {
    request.write("x".repeat(40_000));
    await turn();
  }
  expect(request.isPaused()).toBe(true);
  // not more than 80,000 bytes of the budget were taken
  budget.take(budgetBytes - 80_000);
  budget.give(budgetBytes - 80_000);
  request.end();
  expect((await all()).length).toBe(320_000);
});

test("more than all requests together may hold is refused; what a request held is given back once", async () => {
  const { request, budget, body, source } = received();
  budget.take(budgetBytes - 10);
  request.write("12345678");
  await source.next();
  request.write("12345678");
  await expect(source.next()).rejects.toMatchObject({ rawMessage: expect.stringContaining("at once") });
  expect(() => budget.take(3)).toThrow();
  body.close();
  body.close();
  budget.take(10);
  expect(() => budget.take(1)).toThrow();
});
