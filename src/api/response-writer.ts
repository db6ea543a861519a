// The bytes of an answer, at the pace of whoever reads them.
import type { ServerResponse } from "node:http";
import { constants } from "node:http2";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import type { NodeRequest, NodeResponse } from "./request-handler.ts";

/**
 * Writes the answer; returns when all of it was handed to the connection or the caller has gone. `last` asks the
 * caller over HTTP/1.1 to use another connection for the next request.
 */
export async function writeResponse(
  request: NodeRequest,
  http: NodeResponse,
  answer: UniversalServerResponse,
  last: boolean,
): Promise<void> {
  // What is used here is the same in HTTP/2, only declared otherwise.
  const response = http as ServerResponse;
  const chunks = answer.body?.[Symbol.asyncIterator]();
  try {
    // Headers wait for the first bytes: until then a handler may still set some.
    let chunk = await chunks?.next();
    if (response.closed || response.destroyed) {
      return;
    }
    if (!("stream" in request) && (last || !request.complete)) {
      response.shouldKeepAlive = false;
    }
    response.writeHead(answer.status, nodeHeaders(answer.header));
    while (chunk !== undefined && chunk.done !== true) {
      await written(response, chunk.value);
      if (response.closed || response.destroyed) {
        return;
      }
      chunk = await chunks?.next();
    }
    if (answer.trailer !== undefined) {
      response.addTrailers(nodeHeaders(answer.trailer));
    }
    if ("stream" in request && !request.complete) {
      // The caller may stop sending what nobody will read (RFC 9113, 8.1).
      response.once("finish", () => request.stream.close(constants.NGHTTP2_NO_ERROR));
    }
    response.end();
  } finally {
    await chunks?.return?.();
  }
}

/** From this size on a chunk is sent before the next is asked for, so that its memory may be used again then. Unit: bytes. */
export const leastSentBytes = 16_384;

/** Resolves when more may be written. */
function written(response: NodeResponse, chunk: Uint8Array): Promise<void> | undefined {
  const isWaitedFor = chunk.byteLength >= leastSentBytes;
  // what comes in one turn is sent in one piece
  (response as ServerResponse).cork();
  process.nextTick(() => (response as ServerResponse).uncork());
  return new Promise((resolve) => {
    const done = () => {
      response.off("drain", done);
      response.off("close", done);
      resolve();
    };
    response.on("close", done);
    const hasRoom = (response as ServerResponse).write(chunk, isWaitedFor ? done : undefined);
    if (isWaitedFor) return;
    if (hasRoom) done();
    else response.on("drain", done);
  });
}

function nodeHeaders(headers: Headers | undefined): Record<string, string> {
  return headers === undefined ? {} : Object.fromEntries(headers);
}
