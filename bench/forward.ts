// ForwardPort as a caller reads it who wants the bytes and nothing else: gRPC over Node's HTTP/2, taken apart here. With the protocol library of
// Node, which copies each message, the client would take more of two cores than all that is measured.

import type { ClientHttp2Session } from "node:http2";
import { beginCall, envelope } from "./framing.ts";

/** `data` of ForwardPortResponse. */
const dataTag = (1 << 3) | 2;
const envelopeBytes = 5;

/**
 * Sends one request, a whole message, and hands out the bytes that come back until they end. It knows nothing of the contract's code, so that a
 * small program can have it. @throws Error unless the call ends well.
 */
export async function forward(
  session: ClientHttp2Session,
  request: Uint8Array,
  onPiece: (bytes: Uint8Array) => void,
): Promise<void> {
  const { stream, status: ended } = beginCall(session, "/sandboxd.v1.PortService/ForwardPort");
  stream.on("data", partsOf(onPiece));
  stream.write(Buffer.concat([envelope(request.length), request]));
  stream.end();
  const status = await ended;
  if (status !== "0") throw new Error(`ForwardPort ended with status ${status}`);
}

/** Takes messages apart that are cut anywhere, and hands out what is `data` in them. */
function partsOf(onPiece: (bytes: Uint8Array) => void): (chunk: Buffer) => void {
  let head = Buffer.alloc(0);
  let left = { data: 0, others: 0 };
  return (chunk) => {
    for (let at = 0; at < chunk.length; ) {
      const part = chunk.subarray(at, at + (left.data || left.others || 1));
      at += part.length;
      if (left.data > 0) {
        left.data -= part.length;
        onPiece(part);
      } else if (left.others > 0) {
        left.others -= part.length;
      } else {
        head = Buffer.concat([head, part]);
        const known = readHead(head);
        if (known === undefined) continue;
        left = known;
        head = Buffer.alloc(0);
      }
    }
  };
}

/** How many bytes of data come behind a message's head, and then of other fields; undefined for one that is not whole. */
function readHead(head: Buffer): { data: number; others: number } | undefined {
  if (head.length < envelopeBytes) return undefined;
  const length = head.readUInt32BE(1);
  if (length === 0) return { data: 0, others: 0 };
  const [tag, ...varint] = head.subarray(envelopeBytes);
  if (tag === undefined) return undefined;
  if (tag !== dataTag) return { data: 0, others: length - 1 };
  if ((varint.at(-1) ?? 0x80) >= 0x80) return undefined;
  const data = varint.reduceRight((value, byte) => value * 0x80 + (byte & 0x7f), 0);
  return { data, others: length - 1 - varint.length - data };
}
