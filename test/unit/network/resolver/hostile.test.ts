import { createSocket } from "node:dgram";
import { setImmediate } from "node:timers/promises";
import dnsPacket, { type Packet, type RecordType } from "dns-packet";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isPublic } from "../../../../src/network/addresses.ts";
import { answerOf, withoutInside } from "../../../../src/network/resolver/answer.ts";
import { createUnframing, framed } from "../../../../src/network/resolver/framing.ts";
import { readQuery, readResponse, writeReply } from "../../../../src/network/resolver/message.ts";
import { judge } from "../../../../src/network/resolver/question.ts";
import {
  a,
  gateway,
  type Inside,
  listed,
  type Outside,
  open,
  optOf,
  send,
  startInside,
  startOutside,
} from "./fixture.ts";

const question = { name: "www.example.com", type: "A" as RecordType, class: "IN" as const };
const goodQuery = dnsPacket.encode({
  type: "query",
  id: 7,
  flags: dnsPacket.RECURSION_DESIRED,
  questions: [question],
  additionals: [optOf(1_232)],
});
const goodResponse = dnsPacket.encode({
  type: "response",
  id: 7,
  questions: [question],
  answers: [
    { type: "CNAME", name: question.name, ttl: 60, data: "edge.example.net" },
    a("edge.example.net", "8.8.8.8"),
    { type: "TXT", name: question.name, ttl: 60, data: ["one", "two"] },
    { type: "MX", name: question.name, ttl: 60, data: { preference: 1, exchange: "mail.example.com" } },
    { type: "SRV", name: question.name, ttl: 60, data: { port: 1, target: "sip.example.com" } },
  ],
  authorities: [
    { type: "SOA", name: "com", ttl: 60, data: { mname: "a.com", rname: "b.com", minimum: 60 } },
    { type: "NSEC", name: "com", ttl: 60, data: { nextDomain: "d.com", rrtypes: ["A", "TXT"] } },
    { type: "DNSKEY", name: "com", ttl: 60, data: { flags: 257, algorithm: 13, key: Buffer.alloc(32) } },
  ],
  additionals: [optOf(1_232)],
});

/** A message with some bytes changed, and perhaps cut. */
const damaged = (message: Buffer) =>
  fc
    .tuple(
      fc.array(fc.tuple(fc.nat(message.length - 1), fc.nat(255)), { maxLength: 8 }),
      fc.nat(message.length),
      fc.boolean(),
    )
    .map(([changes, length, isCut]) => {
      const copy = Buffer.from(message);
      for (const [at, byte] of changes) copy[at] = byte;
      return isCut ? copy.subarray(0, length) : copy;
    });
const garbage = fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes));
const runs = { numRuns: 3_000 };

describe("whatever comes from a sandbox", () => {
  test("is a query, or nothing; and a query is answered with its question as it was", () => {
    let queries = 0;
    fc.assert(
      fc.property(fc.oneof(damaged(goodQuery), garbage), (message) => {
        const query = readQuery(message);
        if (query === undefined) return;
        queries += 1;
        judge(query, open);
        const reply = { code: "NOERROR", records: [], ttlSeconds: 0, isBlocked: true } as const;
        const written = writeReply(query, reply, "udp");
        const asked = message.subarray(12, message.indexOf(0, 12) + 5);
        expect(written.subarray(12, 12 + asked.length)).toEqual(asked);
        expect(written.subarray(0, 2)).toEqual(message.subarray(0, 2));
      }),
      runs,
    );
    expect(queries).toBeGreaterThan(100);
  });

  test("a name that the policy does not list is not asked, however its labels are cut", () => {
    const label = fc.uint8Array({ minLength: 1, maxLength: 20 }).map((bytes) => Buffer.from(bytes));
    const lookalikes = ["example.com", "com", "example", "evil.example.com", "www"].map((text) =>
      Buffer.from(text),
    );
    const labels = fc.array(fc.oneof(label, fc.constantFrom(...lookalikes)), { minLength: 1, maxLength: 6 });
    const suffix = Buffer.from("\u0007example\u0003com\0", "latin1");
    let isAsked = 0;
    fc.assert(
      fc.property(labels, fc.boolean(), (parts, isBelow) => {
        const bytes = Buffer.concat(parts.flatMap((part) => [Buffer.from([part.length]), part]));
        const name = Buffer.concat([bytes, isBelow ? suffix : Buffer.alloc(1)]);
        const header = Buffer.from([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        const query = readQuery(Buffer.concat([header, name, Buffer.from([0, 1, 0, 1])]));
        if (query === undefined || judge(query, listed("*.example.com")) !== "ASK") return;
        isAsked += 1;
        expect(name.subarray(-suffix.length).toString("latin1").toLowerCase()).toBe(
          suffix.toString("latin1"),
        );
      }),
      runs,
    );
    expect(isAsked).toBeGreaterThan(50);
  });

  test.each<readonly [string, Packet & { readonly type: "query" | "response" }]>([
    ["a response", { type: "response", questions: [question] }],
    ["no question", { type: "query", questions: [] }],
    ["two questions", { type: "query", questions: [question, question] }],
    ["a query with answers", { type: "query", questions: [question], answers: [a("a.com", "8.8.8.8")] }],
    ["another operation", { type: "query", flags: 5 << 11, questions: [question] }],
  ])("%s is no query", (_, packet) => {
    // the library writes no operations but queries
    const message = dnsPacket.encode(packet);
    message.writeUInt16BE(message.readUInt16BE(2) | (packet.flags ?? 0), 2);
    expect(readQuery(message)).toBeUndefined();
    expect(readQuery(goodQuery)).toMatchObject({ name: question.name });
  });

  test("what is longer than any question is none", () => {
    const padded = (length: number) =>
      dnsPacket.encode({
        type: "query",
        questions: [question],
        additionals: [{ ...optOf(1_232), options: [{ code: 12, length }] } as never],
      });
    expect(readQuery(padded(400))).toMatchObject({ name: question.name });
    expect(readQuery(padded(500))).toBeUndefined();
  });
});

describe("whatever comes from outside", () => {
  test("is the response to the question, or nothing; and shows a sandbox no address that is not public", () => {
    let responses = 0;
    fc.assert(
      fc.property(fc.oneof(damaged(goodResponse), garbage), (message) => {
        const response = readResponse(message, 7, question);
        const answer = response === undefined ? undefined : answerOf(question, response);
        if (answer === undefined) return;
        responses += 1;
        const records = withoutInside(answer.records, open);
        for (const record of records) if (record.type === "A") expect(isPublic(record.data)).toBe(true);
        const query = readQuery(goodQuery);
        if (query === undefined) throw new Error("the query is good");
        const reply = { code: answer.code, records, ttlSeconds: 1, isBlocked: false } as const;
        expect(dnsPacket.decode(writeReply(query, reply, "tcp")).answers).toHaveLength(records.length);
      }),
      runs,
    );
    expect(responses).toBeGreaterThan(100);
  });

  test("a name that points at itself ends", () => {
    const looped = Buffer.concat([goodResponse.subarray(0, 12), Buffer.from([0xc0, 12, 0, 1, 0, 1])]);
    expect(readResponse(looped, 7, question)).toBeUndefined();
  });
});

test("messages come out of a stream as they went in, however it is cut", () => {
  fc.assert(
    fc.property(fc.array(garbage, { maxLength: 6 }), fc.array(fc.nat(3_000)), (messages, cuts) => {
      const stream = Buffer.concat(messages.map(framed));
      const read: Buffer[] = [];
      const take = createUnframing(600, (message) => read.push(Buffer.from(message)));
      const edges = [
        0,
        ...cuts.filter((cut) => cut < stream.length).toSorted((x, y) => x - y),
        stream.length,
      ];
      for (const [index, edge] of edges.entries())
        expect(take(stream.subarray(edges[index - 1] ?? 0, edge))).toBe(true);
      expect(read).toEqual(messages);
    }),
  );
});

describe("a resolver that is sent garbage", () => {
  let inside: Inside;
  let outside: Outside;
  beforeAll(async () => {
    outside = await startOutside(({ name }) => ({ answers: [a(name, "8.8.8.8")] }));
    const sandboxes = {
      "127.0.0.2": { sandboxId: "bad", egress: open },
      "127.0.0.3": { sandboxId: "good", egress: open },
    };
    inside = await startInside({ sandboxes, outside: [outside], queriesPerSecond: 100_000 });
  });
  afterAll(async () => {
    await inside.close();
    await outside.close();
  });

  test("answers others, and none of it", async () => {
    const socket = createSocket("udp4");
    await new Promise<void>((resolve) => socket.bind({ address: "127.0.0.2" }, resolve));
    const answers: Buffer[] = [];
    socket.on("message", (message) => answers.push(message));
    const bad = fc.sample(garbage, 500);
    for (const message of bad) {
      await new Promise((resolve) => socket.send(message, inside.port, gateway, resolve));
      // the resolver is in this process, and reads between the turns
      await setImmediate();
    }
    expect((await inside.ask({ name: "example.com", from: "127.0.0.3" })).code).toBe(0);
    await send(inside.port, "127.0.0.2", goodQuery);
    socket.close();
    expect(answers).toEqual([]);
  });
});
