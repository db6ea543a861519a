// What a hostile peer tries on a listener: each try is bounded, answered or cut, and the next caller is served.
import { execFile } from "node:child_process";
import http2 from "node:http2";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import * as grpc from "@grpc/grpc-js";
import { afterEach, expect, test } from "vitest";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import type { Listener } from "../../src/api/listeners.ts";
import type { ApiFixture } from "../unit/api/fixture.ts";
import { errorOf, grpcClient, startApi, until } from "../unit/api/fixture.ts";
import { closedAfter, frame, frames, literal, preface, rawSocket } from "../unit/api/raw-http2.ts";

const run = promisify(execFile);
const getSandbox = "/sandboxd.v1.SandboxService/GetSandbox";
let api: ApiFixture;
afterEach(() => api.close());

async function expectStillServing(listener: Listener): Promise<void> {
  expect((await grpcClient(listener).getSandbox({ sandboxId: "known" })).sandbox?.sandboxId).toBe("known");
}

test("a message of 100 MB from a gRPC client is MESSAGE_TOO_LARGE", async () => {
  api = await startApi();
  const listener = await api.listen();
  const client = new grpc.Client(listener.address, grpc.credentials.createInsecure());
  const error = await new Promise<grpc.ServiceError | null>((resolve) => {
    client.makeUnaryRequest(getSandbox, Buffer.from, Buffer.from, Buffer.alloc(100_000_000), (failed) =>
      resolve(failed),
    );
  });
  client.close();
  expect(error?.code).toBe(grpc.status.RESOURCE_EXHAUSTED);
  expect(error?.details).toBe(
    "The message size 100000000 is larger than configured readMaxBytes 4194304.\nHint: Send or ask for less in one message.",
  );
  await expectStillServing(listener);
});

test.each(["--http1.1", "--http2-prior-knowledge"])(
  "100 MB of JSON without a length by curl %s are answered, and memory stays bounded",
  async (version) => {
    api = await startApi();
    const listener = await api.listen();
    await expectStillServing(listener);
    const before = process.memoryUsage().rss;
    const { stdout } = await run("sh", [
      "-c",
      'head -c 100000000 /dev/zero | curl -sS -T - -X POST "$0" -H "content-type: application/json" "$1"',
      version,
      `http://${listener.address}${getSandbox}`,
    ]);
    expect(JSON.parse(stdout)).toMatchObject({ code: "resource_exhausted" });
    expect(process.memoryUsage().rss - before).toBeLessThan(40 * 1024 * 1024);
    await expectStillServing(listener);
  },
);

test("a compressed message that is larger than the limit once unpacked is MESSAGE_TOO_LARGE", async () => {
  api = await startApi();
  const listener = await api.listen();
  const answer = await fetch(`http://${listener.address}${getSandbox}`, {
    method: "POST",
    headers: { "content-type": "application/json", "content-encoding": "gzip" },
    body: gzipSync(Buffer.alloc(50_000_000, "x")),
  });
  expect(await answer.json()).toMatchObject({
    code: "resource_exhausted",
    details: [{ type: "google.rpc.ErrorInfo" }, {}],
  });
});

test("requests that together hold more than the budget are refused while they do", async () => {
  api = await startApi({ receiveBudgetBytes: 1000, requestTimeoutMs: 500 });
  const listener = await api.listen();
  const client = grpcClient(listener);
  const error = await errorOf(client.getSandbox({ sandboxId: "x".repeat(1100) }));
  expect(error.findDetails(ErrorInfoSchema)[0]?.reason).toBe("MESSAGE_TOO_LARGE");
  await expectStillServing(listener);
});

test("20,000 resets end the session and leave nothing open", async () => {
  api = await startApi();
  const listener = await api.listen();
  const session = http2.connect(`http://${listener.address}`).on("error", () => {});
  let sent = 0;
  for (; sent < 20_000 && !session.closed && !session.destroyed; sent += 1) {
    const stream = session.request({
      ":path": "/sandboxd.v1.SandboxService/WatchSandboxes",
      ":method": "POST",
      "content-type": "application/grpc",
    });
    stream.on("error", () => {});
    stream.end(Buffer.alloc(5));
    stream.close(http2.constants.NGHTTP2_CANCEL);
    if (sent % 100 === 99) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  await until("the session is cut", () => session.destroyed);
  await until("no watch is left", () => api.openWatches() === 0 && api.openStreams() === 0);
  await expectStillServing(listener);
});

test("a connection that says nothing, and one that says half a preface, are cut", async () => {
  api = await startApi({ greetingTimeoutMs: 300 });
  const listener = await api.listen();
  const silent = await rawSocket(listener);
  const half = await rawSocket(listener);
  half.write(preface.subarray(0, 10));
  const times = await Promise.all([closedAfter(silent), closedAfter(half)]);
  expect(Math.max(...times)).toBeLessThan(1500);
  expect(api.refused).toEqual(["greeting", "greeting"]);
});

test("a preface that arrives byte by byte is understood", async () => {
  api = await startApi();
  const listener = await api.listen();
  const socket = await rawSocket(listener);
  for (const byte of preface) {
    socket.write(Buffer.from([byte]));
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  socket.write(frame(4, 0, 0));
  await until("SETTINGS come back", () => Buffer.concat(socket.received)[3] === 4);
  socket.destroy();
});

test("HTTP/1.1 headers that trickle are cut", async () => {
  api = await startApi({ headersTimeoutMs: 500 });
  const listener = await api.listen();
  const socket = await rawSocket(listener);
  socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n");
  const drip = setInterval(() => socket.write("a: b\r\n"), 50);
  const time = await closedAfter(socket);
  clearInterval(drip);
  expect(time).toBeLessThan(2500);
  expect(Buffer.concat(socket.received).toString()).toMatch(/^HTTP\/1.1 408/);
});

test.each(["h1", "h2"])("a body that trickles over %s is DEADLINE_EXCEEDED", async (protocol) => {
  api = await startApi({ requestTimeoutMs: 400, headersTimeoutMs: 400 });
  const listener = await api.listen();
  if (protocol === "h1") {
    const socket = await rawSocket(listener);
    socket.write(
      `POST ${getSandbox} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`,
    );
    expect(await closedAfter(socket)).toBeLessThan(2000);
    expect(Buffer.concat(socket.received).toString()).toMatch(/deadline_exceeded|HTTP\/1.1 408/);
  } else {
    const session = http2.connect(`http://${listener.address}`);
    const stream = session.request({
      ":path": getSandbox,
      ":method": "POST",
      "content-type": "application/grpc",
    });
    stream.write(Buffer.alloc(3));
    const trailers = new Promise((resolve) => stream.once("trailers", resolve));
    stream.resume();
    expect(await trailers).toMatchObject({ "grpc-status": "4" });
    session.destroy();
  }
  await expectStillServing(listener);
});

test("an HTTP/2 peer that answers no pings is cut", async () => {
  api = await startApi({ pingIntervalMs: 200, pingTimeoutMs: 200 });
  const listener = await api.listen();
  const socket = await rawSocket(listener);
  socket.write(Buffer.concat([preface, frame(4, 0, 0)]));
  expect(await closedAfter(socket)).toBeLessThan(1500);
  expect(api.refused).toEqual(["dead"]);
});

test("an HTTP/2 session that nobody uses is closed, one with a watch is kept", async () => {
  api = await startApi({ pingIntervalMs: 100, idleTimeoutMs: 200 });
  const listener = await api.listen();
  const idle = http2.connect(`http://${listener.address}`);
  const watch = grpcClient(listener).watchSandboxes({})[Symbol.asyncIterator]();
  await watch.next();
  await new Promise((resolve) => idle.once("close", resolve));
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect([api.refused, api.openWatches()]).toEqual([["idle"], 1]);
});

test("connections beyond the limit are closed", async () => {
  api = await startApi({ sessions: 3 });
  const listener = await api.listen();
  const first = [await rawSocket(listener), await rawSocket(listener), await rawSocket(listener)];
  expect(await closedAfter(await rawSocket(listener))).toBeLessThan(1000);
  expect(api.refused).toEqual(["too_many"]);
  for (const socket of first) {
    socket.destroy();
  }
});

test.each(["evil:99999999", "[::1", "a b", "user@localhost", "localhost/x", "\u00ff\u00fe", ""])(
  "the authority %j is answered 400 or cut, over HTTP/2",
  async (authority) => {
    api = await startApi();
    const listener = await api.listen();
    const socket = await rawSocket(listener);
    const headers = Buffer.concat([
      literal(":method", "POST"),
      literal(":scheme", "http"),
      literal(":path", getSandbox),
      literal(":authority", authority),
      literal("content-type", "application/grpc"),
    ]);
    socket.write(Buffer.concat([preface, frame(4, 0, 0), frame(1, 0b101, 1, headers)]));
    await until("the stream is answered", () =>
      frames(socket.received).some((type) => type === 1 || type === 3 || type === 7),
    );
    socket.destroy();
    await expectStillServing(listener);
  },
);

test.each(["http://[", "evil:99999999", "", "a@b"])(
  "the Host %j is answered 400 over HTTP/1.1",
  async (host) => {
    api = await startApi();
    const listener = await api.listen();
    const socket = await rawSocket(listener);
    socket.write(`POST ${getSandbox} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 0\r\n\r\n`);
    await closedAfter(socket);
    expect(Buffer.concat(socket.received).toString()).toMatch(/^HTTP\/1.1 400/);
    await expectStillServing(listener);
  },
);

test("headers beyond the limit are refused over both protocols", async () => {
  api = await startApi();
  const listener = await api.listen();
  const headers = { big: "x".repeat(60_000) };
  const h1 = await fetch(`http://${listener.address}/`, { headers });
  expect(h1.status).toBe(431);
  const session = http2.connect(`http://${listener.address}`).on("error", () => {});
  const stream = session.request({
    ":path": getSandbox,
    ":method": "POST",
    ...headers,
    more: "y".repeat(20_000),
  });
  const status = await new Promise((resolve) => {
    stream.once("response", ({ ":status": code }) => resolve(code)).once("error", resolve);
  });
  expect(status).not.toBe(200);
  session.destroy();
  await expectStillServing(listener);
});

test("a 1,000 idle watches cost bounded memory and end without trace", async () => {
  api = await startApi();
  const listener = await api.listen();
  const stop = new AbortController();
  globalThis.gc?.();
  const before = process.memoryUsage().rss;
  const watches = Array.from({ length: 10 }, () => grpcClient(listener)).flatMap((client) =>
    Array.from({ length: 100 }, () =>
      client.watchSandboxes({}, { signal: stop.signal })[Symbol.asyncIterator](),
    ),
  );
  await Promise.all(watches.map((watch) => watch.next()));
  // Both sides live in this process.
  expect(process.memoryUsage().rss - before).toBeLessThan(200 * 1024 * 1024);
  expect(api.openWatches()).toBe(1000);
  stop.abort();
  await Promise.all(watches.map((watch) => errorOf(watch.next())));
  await until("no watch is left", () => api.openWatches() === 0 && api.openStreams() === 0);
});

test("one stream too many for one caller is TOO_MANY_STREAMS, and an ended one makes room", async () => {
  api = await startApi({ streamsPerCaller: 2 });
  const listener = await api.listen();
  const client = grpcClient(listener);
  const stop = new AbortController();
  const first = client.watchSandboxes({}, { signal: stop.signal })[Symbol.asyncIterator]();
  const second = grpcClient(listener).watchSandboxes({})[Symbol.asyncIterator]();
  await Promise.all([first.next(), second.next()]);
  const error = await errorOf(client.watchSandboxes({})[Symbol.asyncIterator]().next());
  expect(error.findDetails(ErrorInfoSchema)[0]).toMatchObject({
    reason: "TOO_MANY_STREAMS",
    metadata: { limit: "2" },
  });
  stop.abort();
  await errorOf(first.next());
  await until("there is room", () => api.openStreams() === 1);
  await client.watchSandboxes({})[Symbol.asyncIterator]().next();
});
