// The body of a request that is mostly bytes, gathered: Node hands it out in pieces of 16 KiB, each in new memory, and to pass each on by itself
// costs more than all that is done with it. Here they are copied together into memory that is used again and again.

import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import { callIsOver } from "./calls.ts";
import { transferred } from "./collection-pace.ts";
import { encodeError } from "./error-encoding.ts";
import type { RequestBody } from "./request-body.ts";

/** Most in one piece, as in a frame to the toolbox. Two are held: one that is gathered while the other is used. Unit: bytes. */
const pieceBytes = 256 * 1024;

/**
 * All that has come since the last was asked for, as one piece: it may be changed by who asked, and is good until the next is asked for. As
 * streamedBody otherwise: no faster than it is taken, and leaving it early leaves the connection alone.
 */
export function gatheredBody(request: IncomingMessage | Http2ServerRequest): RequestBody {
  // the compatible request is a second stream over this one
  const source = "stream" in request ? request.stream : request;
  let gathered = Buffer.allocUnsafeSlow(pieceBytes);
  let spare = Buffer.allocUnsafeSlow(pieceBytes);
  let bytes = 0;
  /** What did not fit. */
  let left: Buffer = Buffer.alloc(0);
  let end: "ended" | "cut" | undefined;
  let wake = () => {};

  const gather = (chunk: Buffer) => {
    const copied = chunk.copy(gathered, bytes);
    bytes += copied;
    left = chunk.subarray(copied);
    if (bytes === pieceBytes) source.pause();
  };
  const onData = (chunk: Buffer) => {
    transferred(chunk.length);
    gather(chunk);
    wake();
  };
  const onEnd = () => {
    end ??= "ended";
    // the request sees its end only if it is asked
    request.resume();
    wake();
  };
  const onCut = () => {
    end ??= "cut";
    wake();
  };

  function leave(): void {
    source.off("data", onData);
    source.pause();
  }

  async function next(): Promise<IteratorResult<Uint8Array>> {
    while (bytes === 0 && end === undefined) {
      await new Promise<void>((resolve) => {
        wake = () => {
          wake = () => {};
          // what has arrived at the same time is read first
          setImmediate(resolve);
        };
      });
    }
    if (end === "cut") throw encodeError(callIsOver);
    if (bytes === 0) return { done: true, value: undefined };
    const value = gathered.subarray(0, bytes);
    [gathered, spare] = [spare, gathered];
    bytes = 0;
    gather(left);
    if (end === undefined && source.isPaused() && bytes < pieceBytes) source.resume();
    return { done: false, value };
  }

  source.on("data", onData);
  source.once("end", onEnd);
  source.once("error", onCut);
  source.once("aborted", onCut);
  source.once("close", onCut);
  return {
    bytes: {
      [Symbol.asyncIterator]: () => ({
        next,
        async return(value) {
          leave();
          return { done: true, value };
        },
      }),
    },
    close: leave,
  };
}
