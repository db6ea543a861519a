import { getEventListeners, once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createPlainServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { decodeMultiStream, encode } from "@msgpack/msgpack";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { connectReceiver, type ReceiverLink, type ReceiverOptions } from "../../../src/logs/receiver-link.ts";
import { type Authority, createAuthority, type KeyPair, loaded } from "../api/certificates.ts";

const entries = { tag: "t", records: 1, data: encode([1, { log: "x" }]) };
const { signal } = new AbortController();

let server: Server | undefined;
const sockets = new Set<Socket>();
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  server?.close();
});

async function listen(made: Server): Promise<number> {
  server = made;
  made.on("connection", (socket) => sockets.add(socket));
  await new Promise<void>((resolve) => made.listen(0, "127.0.0.1", resolve));
  const address = made.address();
  return typeof address === "object" && address !== null ? address.port : 0;
}

/** Confirms each message. */
async function confirm(socket: Socket): Promise<void> {
  socket.on("error", () => undefined);
  for await (const message of decodeMultiStream(socket)) {
    const [, , { chunk }] = message as [string, Uint8Array, { chunk: string }];
    socket.write(encode({ ack: chunk }));
  }
}
/** Why its connection ended, once it has. */
async function endOf({ ended }: ReceiverLink): Promise<string> {
  if (!ended.aborted) await once(ended, "abort");
  return String(ended.reason);
}
const at = (port: number): ReceiverOptions => ({
  address: { kind: "tcp", host: "127.0.0.1", port },
  ack: true,
});

describe("what is sent has arrived", () => {
  test("once it was confirmed", async () => {
    const port = await listen(createPlainServer((socket) => void confirm(socket).catch(() => undefined)));
    const link = await connectReceiver(at(port), signal);
    await link.send(entries, signal);
    await link.send(entries, signal);
    expect(getEventListeners(link.ended, "abort"), "nothing of what was sent is kept").toEqual([]);
    link.close();
    expect(await endOf(link)).toContain("closed");
  });

  test.each([
    ["another id", encode({ ack: "another" }), "confirmed something that it was not sent"],
    ["nonsense", Buffer.from("nonsense"), "is no confirmation"],
    ["an end", undefined, "closed the connection"],
  ])("not with %s", async (_, answer, message) => {
    const port = await listen(
      createPlainServer((socket) => {
        socket.on("error", () => undefined);
        socket.once("data", () => (answer === undefined ? socket.end() : socket.write(answer)));
      }),
    );
    const link = await connectReceiver(at(port), signal);
    await expect(link.send(entries, signal)).rejects.toThrow(message);
    link.close();
  });

  test("not while nothing is said: the wait ends with the abort", async () => {
    const port = await listen(
      createPlainServer((socket) => void socket.on("error", () => undefined).resume()),
    );
    const ending = new AbortController();
    const link = await connectReceiver(at(port), signal);
    const sent = link.send(entries, ending.signal);
    ending.abort(new Error("that is enough"));
    await expect(sent).rejects.toThrow("that is enough");
    link.close();
  });

  test("without confirmations once it was written, whatever the receiver says", async () => {
    const port = await listen(
      createPlainServer((socket) => void socket.on("error", () => undefined).end("what?")),
    );
    const link = await connectReceiver({ ...at(port), ack: false }, signal);
    expect(await endOf(link)).toContain("closed");
  });
});

test("a receiver that is not there is an error at once", async () => {
  const port = await listen(createPlainServer());
  server?.close();
  await expect(connectReceiver(at(port), signal)).rejects.toThrow("ECONNREFUSED");
});

describe("over TLS", () => {
  const directory = mkdtempSync(join(tmpdir(), "receiver-"));
  let authority: Authority;
  let stranger: Authority;
  let own: KeyPair;
  let port = 0;
  beforeAll(async () => {
    authority = await createAuthority(directory, "authority");
    stranger = await createAuthority(directory, "stranger");
    own = await authority.issue("daemon", { subject: "/CN=daemon" });
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  async function open(): Promise<void> {
    const names = "IP:127.0.0.1";
    const pair = await authority.issue("receiver", { subject: "/CN=receiver", names, usage: "serverAuth" });
    const ca = (await loaded(authority)).cert;
    const made = createTlsServer({ ...(await loaded(pair)), ca, requestCert: true });
    made.on("secureConnection", (socket) => void confirm(socket).catch(() => undefined));
    made.on("tlsClientError", () => undefined);
    port = await listen(made);
  }

  test("both know each other by their certificates", async () => {
    await open();
    const tls = { ca: authority.certFile, certificate: own.certFile, key: own.keyFile };
    const link = await connectReceiver({ ...at(port), tls }, signal);
    await link.send(entries, signal);
    link.close();
  });

  test("who has none that is wanted gets nothing sent to it, and nothing through", async () => {
    await open();
    await expect(connectReceiver({ ...at(port), tls: { ca: stranger.certFile } }, signal)).rejects.toThrow(
      "self-signed certificate",
    );
    const anonymous = await connectReceiver({ ...at(port), tls: { ca: authority.certFile } }, signal);
    await expect(anonymous.send(entries, signal)).rejects.toThrow();
    anonymous.close();
  });
});
