// DNS messages as bytes and as values. The only importer of the library that reads and writes them; what it throws about bytes that
// are no message ends here.

import {
  type Answer as AnyRecord,
  decode,
  encode,
  encodingLength,
  type OptAnswer,
  type Packet,
  type Question as PlainQuestion,
  RECURSION_AVAILABLE,
  RECURSION_DESIRED,
  type RecordType,
  TRUNCATED_RESPONSE,
} from "dns-packet";

/** A name in lower case without a final dot, "." for the root; and a type by its name, "UNKNOWN_65" for those that the library does not know. */
export interface Question {
  readonly name: string;
  readonly type: string;
}

export interface Query extends Question {
  readonly id: number;
  /** As it was asked; it goes back letter for letter. */
  readonly asked: PlainQuestion;
  readonly isInternet: boolean;
  readonly wantsRecursion: boolean;
  /** How much the asker takes in a datagram, if it said so (EDNS, RFC 6891). Unit: bytes. */
  readonly roomBytes: number | undefined;
}

export type ResourceRecord = Exclude<AnyRecord, OptAnswer>;

/** What another nameserver said. */
export interface Response {
  readonly code: number;
  readonly isTruncated: boolean;
  readonly answers: readonly ResourceRecord[];
  readonly authorities: readonly ResourceRecord[];
}

/** What a sandbox is told. */
export interface Reply {
  readonly code: keyof typeof codes;
  readonly records: readonly ResourceRecord[];
  /** Of each record. */
  readonly ttlSeconds: number;
  /** Whether it is the policy that says so. */
  readonly isBlocked: boolean;
}

export type Transport = "udp" | "tcp";

/** RFC 1035, 4.1.1. */
export const codes = { NOERROR: 0, SERVFAIL: 2, NXDOMAIN: 3, REFUSED: 5 } as const;

/** A question with what clients add to it is smaller; whoever sends more sends something else. */
export const maxQueryBytes = 512;
/** What passes every path in one piece (DNS flag day 2020); ours, and the most that is sent to anyone in a datagram. */
const ednsBytes = 1_232;
/** What every client takes (RFC 1035, 4.2.1). */
const plainBytes = 512;
const headerBytes = 12;

/** Undefined for what is no well-formed query with one question: there is nobody to answer. */
export function readQuery(message: Buffer): Query | undefined {
  const packet = message.length > maxQueryBytes ? undefined : decoded(message);
  if (packet === undefined || packet.flag_qr || opcodeOf(packet.flags) !== 0) return undefined;
  const { questions = [], answers = [], authorities = [], additionals = [] } = packet;
  const [asked] = questions;
  if (asked === undefined || questions.length > 1 || answers.length + authorities.length > 0)
    return undefined;
  // names are texts to the library: one label "a.b" would pass for two
  const written = encode({ questions: [asked] }).subarray(headerBytes);
  if (!written.equals(message.subarray(headerBytes, headerBytes + written.length))) return undefined;
  const edns = additionals.find((record) => record.type === "OPT");
  return {
    id: packet.id ?? 0,
    asked,
    name: asked.name.toLowerCase(),
    type: asked.type,
    isInternet: asked.class === "IN",
    wantsRecursion: packet.flag_rd,
    roomBytes: edns?.udpPayloadSize,
  };
}

/** Where a datagram has no room for all records there are as many as fit, and the asker is told to come again by TCP. */
export function writeReply(query: Query, reply: Reply, transport: Transport): Buffer {
  const flags = RECURSION_AVAILABLE | (query.wantsRecursion ? RECURSION_DESIRED : 0) | codes[reply.code];
  const answers = reply.records.map((record) => ({ ...record, ttl: reply.ttlSeconds }));
  const packet: Packet = {
    type: "response",
    id: query.id,
    flags,
    questions: [query.asked],
    answers,
    additionals: query.roomBytes === undefined ? [] : [edns(reply.isBlocked)],
  };
  if (transport === "tcp") return encode(packet);
  const room = Math.max(plainBytes, Math.min(query.roomBytes ?? plainBytes, ednsBytes));
  if (encodingLength(packet) <= room) return encode(packet);
  while (answers.length > 0 && encodingLength(packet) > room) answers.pop();
  return encode({ ...packet, flags: flags | TRUNCATED_RESPONSE });
}

/** A question to another nameserver. Nothing of who asked goes with it. */
export function writeQuestion(id: number, question: Question): Buffer {
  const { name } = question;
  return encode({
    type: "query",
    id,
    flags: RECURSION_DESIRED,
    questions: [{ name, type: question.type as RecordType, class: "IN" }],
    additionals: [edns(false)],
  });
}

/** Undefined unless it is the response to that question. */
export function readResponse(message: Buffer, id: number, question: Question): Response | undefined {
  const packet = decoded(message);
  if (packet === undefined || !packet.flag_qr || packet.id !== id || opcodeOf(packet.flags) !== 0) {
    return undefined;
  }
  const { questions = [], answers = [], authorities = [] } = packet;
  const [asked] = questions;
  if (questions.length !== 1 || asked?.class !== "IN" || asked.type !== question.type) return undefined;
  if (asked.name.toLowerCase() !== question.name) return undefined;
  const isInternet = (record: AnyRecord): record is ResourceRecord =>
    record.type !== "OPT" && record.class === "IN";
  return {
    code: (packet.flags ?? 0) & 15,
    isTruncated: packet.flag_tc,
    answers: answers.filter(isInternet),
    authorities: authorities.filter(isInternet),
  };
}

/** Of records as they are sent. */
export function sizeOf(records: readonly ResourceRecord[]): number {
  return encodingLength({ answers: [...records] });
}

function decoded(message: Buffer) {
  try {
    return decode(message);
  } catch {
    return undefined;
  }
}

function opcodeOf(flags = 0): number {
  return (flags >> 11) & 15;
}

/** Extended DNS error 15, "Blocked" (RFC 8914, 4.16), for people who look with a tool that shows it. */
const blocked = {
  code: 15,
  data: Buffer.concat([Buffer.from([0, 15]), Buffer.from("not allowed by the sandbox's egress policy")]),
};

function edns(isBlocked: boolean): OptAnswer {
  // the library writes options that it has no name for, which its types do not know
  const options = (isBlocked ? [blocked] : []) as unknown as OptAnswer["options"];
  return {
    type: "OPT",
    name: ".",
    udpPayloadSize: ednsBytes,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options,
  };
}
