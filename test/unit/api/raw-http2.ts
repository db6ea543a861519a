// HTTP/2 by hand, for what no client library would send.
import type { Socket } from "node:net";
import { connect } from "node:net";
import type { Listener } from "../../../src/api/listeners.ts";

/** A TCP connection to the listener, and what it received. */
export function rawSocket(listener: Listener): Promise<Socket & { received: Buffer[] }> {
  const [host = "", port = ""] = listener.address.split(/:(?=[0-9]+$)/);
  return new Promise((resolve, reject) => {
    const socket = Object.assign(connect({ host, port: Number(port) }), { received: [] as Buffer[] });
    socket.on("data", (chunk: Buffer) => socket.received.push(chunk));
    socket.once("connect", () => resolve(socket)).once("error", reject);
  });
}

/** Milliseconds until the other side closes the connection. */
export async function closedAfter(socket: Socket): Promise<number> {
  const begun = performance.now();
  await new Promise((resolve) => {
    socket.on("error", () => {}).once("close", resolve);
  });
  return performance.now() - begun;
}

/** What every HTTP/2 connection begins with. */
export const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/** One HTTP/2 frame. */
export function frame(
  type: number,
  flags: number,
  stream: number,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.byteLength, 0, 3);
  header.writeUInt8(type, 3);
  header.writeUInt8(flags, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

/** HPACK, literal without indexing and without Huffman. */
export function literal(name: string, value: string): Buffer {
  return Buffer.concat([
    Buffer.from([0, name.length]),
    Buffer.from(name),
    Buffer.from([value.length]),
    Buffer.from(value, "latin1"),
  ]);
}

/** The types of the HTTP/2 frames received. */
export function frames(received: readonly Buffer[]): number[] {
  const types: number[] = [];
  const bytes = Buffer.concat(received);
  for (let at = 0; at + 9 <= bytes.byteLength; at += 9 + bytes.readUIntBE(at, 3)) {
    types.push(bytes.readUInt8(at + 3));
  }
  return types;
}
