// A nameserver of the tests' own, and clients at addresses of the loopback network that each stand for a sandbox.

import { randomInt } from "node:crypto";
import { createSocket, type RemoteInfo } from "node:dgram";
import { connect, createServer } from "node:net";
import dnsPacket, { type Answer, type Packet, type RecordType } from "dns-packet";
import type { EffectiveEgress } from "../../../../src/network/effective.ts";
import {
  type Asker,
  createResolver,
  type Resolver,
  type ResolverOptions,
} from "../../../../src/network/resolver/resolver.ts";
import { createLog } from "../../../../src/observe/log.ts";

export const gateway = "127.0.0.1";
export const log = createLog({ level: "fatal" });

export const open: EffectiveEgress = {
  scope: "PUBLIC",
  ports: [{ protocol: "TCP", first: 443, last: 443 }],
  allowCidrs: [],
  denyCidrs: [],
  allowDomains: [],
};
export const listed = (...allowDomains: readonly string[]): EffectiveEgress => ({
  ...open,
  scope: "LISTED",
  allowDomains,
});

export interface Asked {
  readonly name: string;
  readonly type: RecordType;
  readonly transport: "udp" | "tcp";
  readonly packet: dnsPacket.DecodedPacket;
}

export interface Said {
  readonly answers?: readonly Answer[];
  readonly authorities?: readonly Answer[];
  readonly code?: number;
  /** Changes to the response as it would be. */
  readonly change?: Partial<Packet>;
  readonly truncated?: boolean;
  /** Sent from another port than was asked. */
  readonly fromElsewhere?: boolean;
  /** Sent before it, as they are. */
  readonly before?: readonly Buffer[];
}

export interface Outside {
  readonly port: number;
  readonly asked: readonly Asked[];
  close(): Promise<void>;
}

const truncatedFlag = dnsPacket.TRUNCATED_RESPONSE;

/** `say`: undefined is silence. */
export async function startOutside(
  say: (asked: Asked) => Said | undefined | Promise<Said | undefined>,
): Promise<Outside> {
  const asked: Asked[] = [];
  async function respond(message: Buffer, transport: Asked["transport"]) {
    const packet = dnsPacket.decode(message);
    const [question] = packet.questions ?? [];
    if (question === undefined) return undefined;
    const one = { name: question.name, type: question.type, transport, packet };
    asked.push(one);
    const said = await say(one);
    if (said === undefined) return undefined;
    const { answers = [], authorities = [], code = 0, truncated = false, change = {} } = said;
    const reply = dnsPacket.encode({
      type: "response",
      ...(packet.id === undefined ? {} : { id: packet.id }),
      flags: dnsPacket.RECURSION_AVAILABLE | code | (truncated && transport === "udp" ? truncatedFlag : 0),
      questions: [question],
      answers: [...answers],
      authorities: [...authorities],
      ...change,
    });
    return { said, reply };
  }

  const port = await freePort();
  const udp = createSocket("udp4");
  const elsewhere = createSocket("udp4");
  udp.on("message", async (message, from: RemoteInfo) => {
    const response = await respond(message, "udp");
    if (response === undefined) return;
    const { said, reply } = response;
    for (const early of said.before ?? []) udp.send(early, from.port, from.address);
    (said.fromElsewhere === true ? elsewhere : udp).send(reply, from.port, from.address);
  });
  const tcp = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", async (chunk: Buffer) => {
      const response = await respond(chunk.subarray(2), "tcp");
      if (response === undefined) return;
      const length = Buffer.alloc(2);
      length.writeUInt16BE(response.reply.length);
      socket.write(Buffer.concat([length, response.reply]));
    });
  });
  await Promise.all([
    new Promise<void>((resolve) => udp.bind({ port, address: gateway }, resolve)),
    new Promise<void>((resolve) => tcp.listen({ port, host: gateway }, resolve)),
    new Promise<void>((resolve) => elsewhere.bind({ port: 0, address: gateway }, resolve)),
  ]);
  return {
    port,
    asked,
    async close() {
      udp.close();
      elsewhere.close();
      await new Promise((resolve) => tcp.close(resolve));
    },
  };
}

export interface Learnt {
  readonly sandboxId: string;
  readonly address: string;
  readonly ttlMs: number;
  readonly name: string;
}

export interface Inside {
  readonly resolver: Resolver;
  readonly port: number;
  readonly learnt: readonly Learnt[];
  readonly denied: readonly (readonly [sandboxId: string, name: string, reason: string])[];
  readonly clock: { nowMs: number };
  ask(question: Question): Promise<Told>;
  close(): Promise<void>;
}

export interface Question {
  readonly name: string;
  readonly type?: string;
  readonly from?: string;
  readonly transport?: "udp" | "tcp";
  /** What the client takes in a datagram. */
  readonly roomBytes?: number;
}

export interface Told {
  readonly code: number;
  readonly isTruncated: boolean;
  /** As "name type data". */
  readonly records: readonly string[];
  readonly ttls: readonly number[];
  readonly packet: dnsPacket.DecodedPacket;
  readonly bytes: number;
}

export interface InsideOptions extends Partial<ResolverOptions> {
  /** By address. */
  readonly sandboxes: Readonly<Record<string, Asker>>;
  readonly outside?: readonly { readonly port: number }[];
  /** Of the virtual clock, which stands still unless it is moved. Default: real time. */
  readonly clock?: { nowMs: number };
}

export async function startInside({
  sandboxes,
  outside = [],
  clock,
  ...options
}: InsideOptions): Promise<Inside> {
  const port = await freePort();
  const learnt: Learnt[] = [];
  const denied: [string, string, string][] = [];
  const resolver = createResolver({
    upstreams: () => outside.map((one) => ({ address: gateway, port: one.port })),
    asker: (address) => sandboxes[address],
    learn: async (sandboxId, addresses) => {
      learnt.push(...addresses.map((one) => ({ sandboxId, ...one })));
    },
    onDenied: (...denial) => denied.push(denial),
    log,
    port,
    patienceMs: 300,
    ...(clock === undefined ? {} : { nowMs: () => clock.nowMs }),
    ...options,
  });
  await resolver.listen(gateway);
  return {
    resolver,
    port,
    learnt,
    denied,
    clock: clock ?? { nowMs: 0 },
    ask: (question) => ask(port, question),
    close: () => resolver.close(),
  };
}

let lastId = 0;

async function ask(
  port: number,
  { name, type = "A", from = "127.0.0.2", transport = "udp", roomBytes }: Question,
): Promise<Told> {
  lastId += 1;
  const message = dnsPacket.encode({
    type: "query",
    id: lastId,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ name, type: type as RecordType, class: "IN" }],
    ...(roomBytes === undefined ? {} : { additionals: [optOf(roomBytes)] }),
  });
  const reply = await (transport === "udp" ? send : stream)(port, from, message);
  const packet = dnsPacket.decode(reply);
  const records = (packet.answers ?? []).filter((one) => one.type !== "OPT");
  return {
    code: (packet.flags ?? 0) & 15,
    isTruncated: packet.flag_tc,
    records: records.map((one) => `${one.name} ${one.type} ${one.data}`),
    ttls: records.map(({ ttl = 0 }) => ttl),
    packet,
    bytes: reply.length,
  };
}

export function optOf(udpPayloadSize: number): Answer {
  const rest = { extendedRcode: 0, ednsVersion: 0, flags: 0, flag_do: false, options: [] };
  return { type: "OPT", name: ".", udpPayloadSize, ...rest };
}

const silenceMs = 10_000;

/** Rejects after a silence. */
export async function send(
  port: number,
  from: string,
  message: Buffer,
  waitMs = silenceMs,
  to = gateway,
): Promise<Buffer> {
  const socket = createSocket("udp4");
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  socket.on("message", resolve);
  socket.on("error", reject);
  socket.bind({ address: from }, () => socket.send(message, port, to));
  const timer = setTimeout(() => reject(new Error("no answer")), waitMs);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    socket.close();
  }
}

async function stream(port: number, from: string, message: Buffer): Promise<Buffer> {
  const socket = connect({ port, host: gateway, localAddress: from });
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  let read = Buffer.alloc(0);
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("closed")));
  socket.on("data", (chunk: Buffer) => {
    read = Buffer.concat([read, chunk]);
    if (read.length >= 2 && read.length >= 2 + read.readUInt16BE(0)) resolve(read.subarray(2));
  });
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  socket.write(Buffer.concat([length, message]));
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}

/** Of both protocols, and none that the kernel gives to whoever asks for any. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    const isFree = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.on("error", () => resolve(false));
      server.listen({ port, host: gateway, exclusive: true }, () => server.close(() => resolve(true)));
    });
    if (isFree) return port;
  }
}

export const a = (name: string, data: string, ttl = 60): Answer => ({
  type: "A",
  name,
  ttl,
  class: "IN",
  data,
});
export const alias = (name: string, data: string, ttl = 60): Answer => ({
  type: "CNAME",
  name,
  ttl,
  class: "IN",
  data,
});
export const soa = (name: string, ttl: number, minimum: number): Answer => ({
  type: "SOA",
  name,
  ttl,
  class: "IN",
  data: { mname: `ns.${name}`, rname: `admin.${name}`, minimum },
});
