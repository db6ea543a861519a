// A stream of messages that are mostly bytes, taken apart without waiting for a whole one: bytes are passed on as they come, those of one message
// in several or those of several in one. Whatever else a message is, the protocol library reads it.

import type { DescMessage } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  type WriteFileRequest,
  WriteFileRequestSchema,
} from "../../gen/sandboxd/v1/filesystem_service_pb.ts";

/** Messages that may be passed on so: those that are nothing but this field. */
interface Bulk {
  readonly field: number;
  /** The contract's bound. A message beyond it is read whole, and refused for it. */
  readonly mostBytes: number;
  readonly messageOf: (bytes: Uint8Array) => unknown;
}

const bulks: ReadonlyMap<string, Bulk> = new Map([
  [WriteFileRequestSchema.typeName, { field: 2, mostBytes: 1024 * 1024, messageOf: writeFileRequest }],
]);

function writeFileRequest(bytes: Uint8Array): WriteFileRequest {
  return {
    $typeName: "sandboxd.v1.WriteFileRequest",
    part: { case: "data", value: bytes as Uint8Array<ArrayBuffer> },
  };
}

/** Whether messages of this type can be mostly bytes. */
export const isBulkyInput = ({ typeName }: DescMessage): boolean => bulks.has(typeName);

export interface InputOptions {
  readonly readMaxBytes: number;
  /** The messages of such bytes as the library reads them. */
  readonly read: (bytes: Uint8Array) => AsyncIterable<unknown>;
}

const envelopeHeaderBytes = 5;
/** With a tag and a length of three bytes, which is more than any bound. */
const mostHeadBytes = envelopeHeaderBytes + 4;

/**
 * The messages in a body of envelopes. A piece of the body may be changed by this, and a message is good until the next is asked for.
 *
 * @throws ConnectError as the library does.
 */
export async function* messagesIn<T>(
  { typeName }: DescMessage,
  body: AsyncIterable<Uint8Array>,
  { readMaxBytes, read }: InputOptions,
): AsyncGenerator<T> {
  const bulk = bulks.get(typeName);
  if (bulk === undefined) throw new Error(`messages of ${typeName} are not read so`);
  /** What a message begins with, until it is known how it is read. */
  const head = Buffer.alloc(mostHeadBytes);
  let headBytes = 0;
  /** A message that is read whole, and how much of it is still to come. */
  let whole: Buffer[] = [];
  let wholeMissing = 0;
  /** Still to come of the bytes of a message. */
  let missing = 0;

  for await (const { buffer, byteOffset, byteLength } of body) {
    const piece = Buffer.from(buffer, byteOffset, byteLength);
    // bytes of messages are put behind each other, over what was between them
    let [from, to] = [0, 0];
    for (let at = 0; at < piece.length; ) {
      if (missing > 0) {
        const end = Math.min(at + missing, piece.length);
        if (from === to) [from, to] = [at, at];
        else piece.copyWithin(to, at, end);
        to += end - at;
        missing -= end - at;
        at = end;
        continue;
      }
      if (wholeMissing > 0) {
        const part = Buffer.from(piece.subarray(at, at + wholeMissing));
        whole.push(part);
        wholeMissing -= part.length;
        at += part.length;
      } else {
        head[headBytes] = piece[at] ?? 0;
        headBytes += 1;
        at += 1;
        const known = recognized(head.subarray(0, headBytes), bulk, readMaxBytes);
        if (known === undefined) continue;
        if (known.isWhole) {
          whole = [Buffer.from(head.subarray(0, headBytes))];
          wholeMissing = known.missing;
        } else {
          missing = known.missing;
        }
        headBytes = 0;
      }
      if (whole.length > 0 && wholeMissing === 0) {
        if (to > from) yield bulk.messageOf(piece.subarray(from, to)) as T;
        [from, to] = [0, 0];
        yield* read(Buffer.concat(whole)) as AsyncIterable<T>;
        whole = [];
      }
    }
    if (to > from) yield bulk.messageOf(piece.subarray(from, to)) as T;
  }
  if (headBytes + missing + wholeMissing > 0)
    throw new ConnectError("protocol error: incomplete envelope", Code.InvalidArgument);
}

/** How a message that begins so is read, and how much of it is still to come; undefined if more must be seen. */
function recognized(
  head: Uint8Array,
  { field, mostBytes }: Bulk,
  readMaxBytes: number,
): { readonly isWhole: boolean; readonly missing: number } | undefined {
  if (head.length < envelopeHeaderBytes) return undefined;
  const [flags, ...sizes] = head.subarray(0, envelopeHeaderBytes);
  const length = sizes.reduce((sum, byte) => sum * 256 + byte, 0);
  const seen = head.length - envelopeHeaderBytes;
  // nothing of one that is too large is waited for: the library says so at its header
  const whole = { isWhole: true, missing: length > readMaxBytes ? 0 : length - seen };
  if (flags !== 0 || length > readMaxBytes || length === seen) return whole;
  if (seen === 0) return undefined;
  const [tag, ...digits] = head.subarray(envelopeHeaderBytes);
  // https://protobuf.dev/programming-guides/encoding/
  if (tag !== ((field << 3) | 2)) return whole;
  const last = digits.at(-1);
  if (last === undefined || (last > 0x7f && head.length < mostHeadBytes)) return undefined;
  const bytes = digits.reduceRight((sum, digit) => sum * 128 + (digit & 0x7f), 0);
  const isBulk = last <= 0x7f && bytes > 0 && bytes <= mostBytes && bytes === length - seen;
  return isBulk ? { isWhole: false, missing: bytes } : whole;
}
