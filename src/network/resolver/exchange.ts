// One question to one nameserver. An answer is taken only from whom was asked, to the port that asked, with the id and the question
// that it is to: the port and the id are random, and new for each.

import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect, isIPv6 } from "node:net";
import { orAborted } from "../../waiting.ts";
import { createUnframing, framed } from "./framing.ts";
import { type Question, type Response, readResponse, writeQuestion } from "./message.ts";

export interface Nameserver {
  /** IPv4 or IPv6. */
  readonly address: string;
  readonly port: number;
}

/** Longer answers are not for programs that look up names, but for those that carry something else. */
const maxResponseBytes = 8_192;

/** By UDP, and by TCP if the answer does not fit. Rejects when the signal says so, and when the nameserver cannot be reached or talks nonsense. */
export async function exchange(
  server: Nameserver,
  question: Question,
  signal: AbortSignal,
): Promise<Response> {
  const response = await overUdp(server, question, signal);
  return response.isTruncated ? await overTcp(server, question, signal) : response;
}

type Ways = PromiseWithResolvers<Response>;

async function overUdp(server: Nameserver, question: Question, signal: AbortSignal): Promise<Response> {
  const id = randomInt(2 ** 16);
  const { promise, resolve, reject }: Ways = Promise.withResolvers();
  const socket = createSocket(isIPv6(server.address) ? "udp6" : "udp4");
  socket.on("error", reject);
  socket.on("message", (message) => {
    // what is no answer to this question may be somebody's guess: the right one may still come
    const response = readResponse(message, id, question);
    if (response !== undefined) resolve(response);
  });
  // a connected socket has a port of its own, and hears nobody else
  socket.connect(server.port, server.address, () => socket.send(writeQuestion(id, question)));
  try {
    return await orAborted(promise, signal);
  } finally {
    socket.close();
  }
}

async function overTcp(server: Nameserver, question: Question, signal: AbortSignal): Promise<Response> {
  const id = randomInt(2 ** 16);
  const { promise, resolve, reject }: Ways = Promise.withResolvers();
  const socket = connect(server.port, server.address);
  const take = createUnframing(maxResponseBytes, (message) => {
    const response = readResponse(message, id, question);
    if (response === undefined) reject(new Error("the answer is to another question"));
    else resolve(response);
  });
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("the connection was closed before the answer")));
  socket.on("data", (chunk: Buffer) => {
    if (!take(chunk)) reject(new Error(`the answer is longer than ${maxResponseBytes} bytes`));
  });
  socket.write(framed(writeQuestion(id, question)));
  try {
    return await orAborted(promise, signal);
  } finally {
    socket.destroy();
  }
}
