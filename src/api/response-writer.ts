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
      if (!response.write(chunk.value)) {
        await drained(response);
      }
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

function drained(response: NodeResponse): Promise<void> {
  return new Promise((resolve) => {
    function done(): void {
      response.off("drain", done);
      response.off("close", done);
      resolve();
    }
    response.on("drain", done);
    response.on("close", done);
  });
}

function nodeHeaders(headers: Headers | undefined): Record<string, string> {
  return headers === undefined ? {} : Object.fromEntries(headers);
}
