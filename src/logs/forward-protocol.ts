// The Forward protocol of Fluentd, version 1, as a client speaks it:
// https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1. Records travel in PackedForward messages, whose
// entries are encoded once, when they are made, and sent as they are.

import { randomBytes } from "node:crypto";
import { decodeMultiStream, Encoder, ExtData, ExtensionCodec } from "@msgpack/msgpack";

/** What is told of one line. */
export interface ForwardRecord {
  readonly timeNanoseconds: bigint;
  readonly fields: Readonly<Record<string, unknown>>;
}

const nanosecondsPerSecond = 1_000_000_000n;

/** Type of the extension that EventTime is. */
const eventTimeType = 0;

const encoder = new Encoder({ useBigInt64: true, extensionCodec: new ExtensionCodec() });

/** An entry: its EventTime, which has nanoseconds, and its record. */
export function encodeEntry({ timeNanoseconds, fields }: ForwardRecord): Uint8Array {
  const time = Buffer.alloc(8);
  // 32 bits of seconds, until 2106
  time.writeUInt32BE(Number((timeNanoseconds / nanosecondsPerSecond) & 0xffff_ffffn), 0);
  time.writeUInt32BE(Number(timeNanoseconds % nanosecondsPerSecond), 4);
  return encoder.encode([new ExtData(eventTimeType, time), fields]);
}

/** What is sent together: encoded entries of one tag, one after the other. */
export interface Entries {
  readonly tag: string;
  readonly records: number;
  readonly data: Uint8Array;
}

/** A message of entries. With an id, the receiver is asked to confirm by it. */
export function encodeMessage({ tag, records, data }: Entries, chunkId: string | undefined): Uint8Array {
  return encoder.encode([tag, data, { size: records, ...(chunkId === undefined ? {} : { chunk: chunkId }) }]);
}

/** An id for what is to be confirmed: 128 bits in base64, as the specification has it. */
export const newChunkId = (): string => randomBytes(16).toString("base64");

/** The longest answer that a receiver has reason to give. */
const longestAnswerBytes = 64 * 1024;

/** Ids that the receiver confirms. @throws Error for what is no confirmation: nothing else may come from a receiver. */
export async function* readConfirmations(source: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let unread = 0;
  const bounded = async function* () {
    for await (const chunk of source) {
      unread += chunk.length;
      if (unread > longestAnswerBytes)
        throw new Error(`the receiver sent ${unread} bytes without a confirmation`);
      yield chunk;
    }
  };
  const answers = decodeMultiStream<undefined>(bounded(), { maxStrLength: 1_024, maxMapLength: 16 });
  for await (const answer of answers) {
    unread = 0;
    const ack = typeof answer === "object" && answer !== null && "ack" in answer ? answer.ack : undefined;
    if (typeof ack !== "string") throw new Error("the receiver's answer is no confirmation");
    yield ack;
  }
}
