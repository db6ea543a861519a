// gRPC over Node's HTTP/2 without a library: how messages are framed, and how a call ends.

import { type ClientHttp2Session, type ClientHttp2Stream, constants } from "node:http2";

/** Begins a call; `status` resolves to what it ends with. */
export function beginCall(session: ClientHttp2Session, path: string) {
  const stream = session.request({
    [constants.HTTP2_HEADER_METHOD]: "POST",
    [constants.HTTP2_HEADER_PATH]: path,
    [constants.HTTP2_HEADER_CONTENT_TYPE]: "application/grpc",
    te: "trailers",
  });
  return { stream, status: statusOf(stream) };
}

function statusOf(stream: ClientHttp2Stream): Promise<unknown> {
  return new Promise((resolve, reject) => {
    let status: unknown;
    const told = (headers: Readonly<Record<string, unknown>>) => {
      status = headers["grpc-status"] ?? status;
    };
    stream.on("response", told);
    stream.on("trailers", told);
    stream.on("error", reject);
    stream.on("close", () => resolve(status));
    stream.resume();
  });
}

/** What comes before a message of this length. */
export function envelope(length: number): Buffer {
  const header = Buffer.alloc(5);
  header.writeUInt32BE(length, 1);
  return header;
}
