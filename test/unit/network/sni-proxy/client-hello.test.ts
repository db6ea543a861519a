// What is taken for a first message of TLS, and what name is read from it: those of real clients, each cut and bent in every place.

import { once } from "node:events";
import { createServer } from "node:net";
import { type ConnectionOptions, connect } from "node:tls";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type ClientHello, readClientHello } from "../../../../src/network/sni-proxy/client-hello.ts";

/** What a client of Node's TLS sends first. */
async function helloOf(options: ConnectionOptions): Promise<Buffer> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const client = connect({
    ...options,
    host: "127.0.0.1",
    port: typeof address === "object" ? (address?.port ?? 0) : 0,
  });
  client.on("error", () => undefined);
  const [socket] = await once(server, "connection");
  const [sent] = await once(socket, "data");
  client.destroy();
  socket.destroy();
  server.close();
  return sent;
}

const site = await helloOf({ servername: "Site.Example", ALPNProtocols: ["h2", "http/1.1"] });

/** Offset, in the bytes that were sent, of the extensions' length. */
function extensionsAt(sent: Buffer): number {
  let at = 5 + 4 + 2 + 32;
  at += 1 + (sent[at] ?? 0);
  at += 2 + sent.readUInt16BE(at);
  return at + 1 + (sent[at] ?? 0);
}

/** The same hello with other extensions, all lengths set right. */
function withExtensions(sent: Buffer, extensions: Buffer): Buffer {
  const at = extensionsAt(sent);
  const head = Buffer.from(sent.subarray(0, at + 2));
  head.writeUInt16BE(extensions.length, at);
  const whole = Buffer.concat([head, extensions]);
  whole.writeUInt16BE(whole.length - 5, 3);
  whole.writeUIntBE(whole.length - 9, 6, 3);
  return whole;
}

const extensionsOf = (sent: Buffer) => sent.subarray(extensionsAt(sent) + 2);

function extension(type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16BE(type, 0);
  head.writeUInt16BE(data.length, 2);
  return Buffer.concat([head, data]);
}

function vector(data: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(data.length);
  return Buffer.concat([length, data]);
}

const nameEntry = (name: string, type = 0) =>
  Buffer.concat([Buffer.from([type]), vector(Buffer.from(name, "latin1"))]);
const serverName = (...entries: readonly Buffer[]) => extension(0, vector(Buffer.concat(entries)));
const bare = await helloOf({});

/** The same message in several records of so many bytes. */
function inRecords(sent: Buffer, size: number): Buffer {
  const message = sent.subarray(5);
  const records: Buffer[] = [];
  for (let at = 0; at < message.length; at += size) {
    records.push(Buffer.from([22, 3, 1]), vector(message.subarray(at, at + size)));
  }
  return Buffer.concat(records);
}

const named = (name: string): ClientHello => ({ kind: "hello", serverName: name });

describe("the server name", () => {
  test("is read from hellos of TLS 1.2 and 1.3, in lower case", async () => {
    expect(readClientHello(site)).toEqual(named("site.example"));
    const old = await helloOf({ servername: "a.example", minVersion: "TLSv1.2", maxVersion: "TLSv1.2" });
    expect(readClientHello(old)).toEqual(named("a.example"));
  });

  test("is absent where the client names none", () => {
    expect(readClientHello(bare)).toEqual({ kind: "hello" });
    const at = extensionsAt(bare);
    const without = Buffer.from(bare.subarray(0, at));
    without.writeUInt16BE(without.length - 5, 3);
    without.writeUIntBE(without.length - 9, 6, 3);
    expect(readClientHello(without)).toEqual({ kind: "hello" });
  });

  test("is waited for, however little comes at a time", () => {
    for (let length = 0; length < site.length; length += 1)
      expect(readClientHello(site.subarray(0, length)), `${length} bytes`).toMatchObject({
        kind: "incomplete",
      });
  });

  test("is read no oftener than there is something new to be told", () => {
    for (const sent of [site, inRecords(site, 100)]) {
      let [length, reads] = [0, 0];
      let hello: ClientHello = { kind: "incomplete", neededBytes: 1 };
      while (hello.kind === "incomplete") {
        expect(hello.neededBytes).toBeGreaterThan(length);
        length = hello.neededBytes;
        hello = readClientHello(sent.subarray(0, length));
        reads += 1;
      }
      expect(length).toBe(sent.length);
      expect(reads).toBeLessThanOrEqual(2 * 32);
    }
  });

  test("is read over several records, as some clients send it", () => {
    for (const size of [100, 200, 700])
      expect(readClientHello(inRecords(site, size))).toEqual(named("site.example"));
  });

  test("does not depend on what follows in records of their own, as early data", () => {
    expect(readClientHello(Buffer.concat([site, Buffer.from([23, 3, 3, 0, 1, 0])]))).toEqual(
      named("site.example"),
    );
  });
});

describe("no hello is", () => {
  const other = extensionsOf(bare);
  const cases: readonly (readonly [string, Buffer, RegExp])[] = [
    ["HTTP", Buffer.from("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n"), /is not TLS/],
    ["SSH", Buffer.from("SSH-2.0-x\r\n"), /is not TLS/],
    ["a hello of SSL 2", Buffer.from([0x80, 0x2e, 1, 3, 1, 0, 0x15]), /is not TLS/],
    ["another message", Buffer.from([22, 3, 1, 0, 4, 2, 0, 0, 0]), /does not begin with a hello/],
    ["a record without anything in it", Buffer.from([22, 3, 1, 0, 0]), /wrong length/],
    ["a longer one than any client sends", Buffer.from([22, 3, 1, 0x40, 0, 1, 1, 0, 0]), /is too long/],
    ["many small records", inRecords(site, 1), /too many pieces/],
    [
      "two names",
      withExtensions(
        bare,
        Buffer.concat([other, serverName(nameEntry("a.example"), nameEntry("b.example"))]),
      ),
      /behind its end/,
    ],
    [
      "a name of another type",
      withExtensions(bare, Buffer.concat([other, serverName(nameEntry("a.example", 1))])),
      /unknown type/,
    ],
    [
      "the extension twice",
      withExtensions(
        bare,
        Buffer.concat([serverName(nameEntry("a.example")), other, serverName(nameEntry("b.example"))]),
      ),
      /twice/,
    ],
    [
      "an empty list of names",
      withExtensions(bare, Buffer.concat([other, extension(0, vector(Buffer.alloc(0)))])),
      /before its time/,
    ],
    [
      "an empty extension",
      withExtensions(bare, Buffer.concat([other, extension(0, Buffer.alloc(0))])),
      /before its time/,
    ],
    [
      "an encrypted hello",
      withExtensions(site, Buffer.concat([extensionsOf(site), extension(0xfe0d, Buffer.alloc(40))])),
      /ECH/,
    ],
    [
      "something behind the extensions",
      Buffer.concat([site.subarray(0, 3), vector(Buffer.concat([site.subarray(5), Buffer.from([0])]))]),
      /behind it/,
    ],
    ...[
      "a.example\0.evil.example",
      "a example",
      "a..example",
      ".",
      "a.example.",
      "bücher.example",
      "a/b",
      "[::1]",
    ].map(
      (name) =>
        [
          `the name ${JSON.stringify(name)}`,
          withExtensions(bare, Buffer.concat([other, serverName(nameEntry(name))])),
          /a name that is none/,
        ] as const,
    ),
  ];
  test.each(cases)("%s", (_what, sent, why) => {
    expect(readClientHello(sent)).toEqual({ kind: "unreadable", why: expect.stringMatching(why) });
  });

  test("whatever is changed in it, it is read as the same name, another one, or none", () => {
    const kinds = new Set(["incomplete", "hello", "unreadable"]);
    fc.assert(
      fc.property(fc.nat(site.length - 1), fc.nat(255), fc.nat(site.length), (at, byte, length) => {
        const bent = Buffer.from(site);
        bent[at] = byte;
        expect(kinds).toContain(readClientHello(bent).kind);
        expect(kinds).toContain(readClientHello(bent.subarray(0, length)).kind);
      }),
      { numRuns: 2_000 },
    );
  });
});
