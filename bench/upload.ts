// WriteFile as a caller sends it who has the bytes at hand: gRPC over Node's HTTP/2, framed here. The protocol libraries of Node copy each message two or
// three times into new memory, which takes more of two cores than the daemon and the sandbox together: with them, they would be what is measured.

import type { ClientHttp2Session } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { WriteFileRequestSchema } from "../gen/sandboxd/v1/filesystem_service_pb.ts";
import { beginCall, envelope } from "./framing.ts";

const mebibyte = 1_024 ** 2;
/** `data` of WriteFileRequest. */
const dataTag = (2 << 3) | 2;

/** In messages of 1 MiB, the most that there may be. @throws Error unless the call ends well. */
export async function upload(
  session: ClientHttp2Session,
  target: { readonly sandboxId: string; readonly path: string },
  content: Buffer,
): Promise<void> {
  const { stream, status: ended } = beginCall(session, "/sandboxd.v1.FilesystemService/WriteFile");
  const first = create(WriteFileRequestSchema, { part: { case: "target", value: target } });
  const message = toBinary(WriteFileRequestSchema, first);
  stream.write(Buffer.concat([envelope(message.length), message]));
  for (let at = 0; at < content.length; at += mebibyte) {
    const data = content.subarray(at, at + mebibyte);
    const head = Buffer.from([dataTag, ...varint(data.length)]);
    stream.write(Buffer.concat([envelope(head.length + data.length), head]));
    if (!stream.write(data)) await new Promise((resolve) => stream.once("drain", resolve));
  }
  stream.end();
  const status = await ended;
  if (status !== "0") throw new Error(`WriteFile ended with status ${status}`);
}

function varint(value: number): readonly number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >>> 7)];
}
