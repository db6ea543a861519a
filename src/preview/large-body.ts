// Large bodies go past Node's HTTP client once it has read the headers: its parser copies all of a body into new memory, which takes longer than everything
// else that is done with it. What is left of such a connection is not used again.

import type { IncomingMessage, ServerResponse } from "node:http";
import { PortStream } from "./port-stream.ts";

/** Far more than may come in one piece with the headers. */
const leastPassedBytes = 1024 * 1024;

export interface PassedBody {
  readonly bytes: number;
  readonly source: PortStream;
}

/** A body that is large and of a length that was told: the parser has nothing to find in it. */
export function largeBody({ method }: IncomingMessage, answer: IncomingMessage): PassedBody | undefined {
  const { headers, statusCode } = answer;
  const source: unknown = answer.socket;
  // whatever length these tell, it is not theirs (RFC 9112, 6.3)
  const isEmpty = method === "HEAD" || statusCode === 204 || statusCode === 304;
  if (isEmpty || headers["transfer-encoding"] !== undefined) return undefined;
  const bytes = Number(headers["content-length"]);
  return bytes >= leastPassedBytes && source instanceof PortStream ? { bytes, source } : undefined;
}

/** Sends it as the answer's body. Never rejects: who is gone needs no word, and one that breaks off is broken off. */
export async function pass(
  { bytes, source }: PassedBody,
  answer: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  let left = bytes;
  const send = (piece: Uint8Array) =>
    new Promise<void>((resolve, reject) => {
      left -= piece.length;
      response.write(piece, (error) => (error ? reject(error) : resolve()));
    });
  answer.on("error", () => response.destroy());
  try {
    const rest = source.rest();
    // what came together with the headers goes through the parser
    do {
      await new Promise(setImmediate);
      for (let part = answer.read(); part !== null; part = answer.read()) await send(part);
    } while (!source.destroyed && (source.readableLength > 0 || answer.readableLength > 0));
    while (left > 0) {
      const next = await rest.next();
      if (next.done === true) break;
      await send(next.value.subarray(0, left));
    }
  } catch {
    // either side is gone
  }
  // one that breaks off must not look whole
  if (left > 0) response.destroy();
  else response.end();
}
