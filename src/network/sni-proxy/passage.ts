// The two connections of a passage: what a client says first, the way to a server, and both of them joined.

import { connect as dial, type Socket } from "node:net";
import { type ClientHello, maxHelloBytes, readClientHello } from "./client-hello.ts";
import { keepAliveMs } from "./listeners.ts";

/** Resolves to what the client sent, once it can be told what that is. Rejects if it ends or takes too long. */
export function firstMessage(
  socket: Socket,
  patienceMs: number,
): Promise<{ readonly hello: ClientHello; readonly sent: Buffer }> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    let length = 0;
    let neededBytes = 1;
    const timer = setTimeout(() => over(() => reject(new Error("it said nothing in time"))), patienceMs);
    const onEnd = () => over(() => reject(new Error("it ended before its first message did")));
    const onData = (chunk: Buffer) => {
      length += chunk.length;
      parts.push(chunk);
      // it is read once for each of its records, not for each of its bytes
      if (length < neededBytes) return;
      const sent = Buffer.concat(parts.splice(0));
      parts.push(sent);
      const hello = readClientHello(sent.subarray(0, maxHelloBytes));
      if (hello.kind === "incomplete") neededBytes = hello.neededBytes;
      else over(() => resolve({ hello, sent }));
    };
    const over = (then: () => void) => {
      clearTimeout(timer);
      socket.pause().off("data", onData).off("end", onEnd).off("close", onEnd);
      then();
    };
    socket.on("data", onData).once("end", onEnd).once("close", onEnd).resume();
  });
}

export function connected(
  address: string,
  port: number,
  patienceMs: number,
  signal: AbortSignal,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = dial({
      ...{ host: address, port, allowHalfOpen: true, noDelay: true },
      ...{ keepAlive: true, keepAliveInitialDelay: keepAliveMs },
    });
    const timer = setTimeout(() => fail(new Error(`${address} did not answer in time`)), patienceMs);
    const fail = (error: unknown) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      reject(error);
    };
    const onAbort = () => fail(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("error", fail);
    socket.once("connect", () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      socket.off("error", fail);
      resolve(socket);
    });
  });
}

/** Hands on what both send, at the pace of the slower one. */
export function join(one: Socket, other: Socket, begun: Buffer): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on("error", () => undefined);
    from.once("close", () => {
      // an end that was handed on is no reason to break off what is still to be written
      if (from.readableEnded) to.destroySoon();
      else to.resetAndDestroy();
    });
  }
  other.write(begun);
  one.pipe(other);
  other.pipe(one);
}
