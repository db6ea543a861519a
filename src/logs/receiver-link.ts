// One connection to a receiver: takes chunks, one after the other, and knows of each when it has arrived.

import { readFileSync } from "node:fs";
import { connect, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { ListenAddress } from "../config/rule.ts";
import { orAborted } from "../waiting.ts";
import { type Entries, encodeMessage, newChunkId, readConfirmations } from "./forward-protocol.ts";

export interface ReceiverOptions {
  readonly address: ListenAddress;
  /** Files, read anew at each connection, so that renewed ones are taken up. Left out: plain text. */
  readonly tls?: { readonly ca: string; readonly certificate?: string; readonly key?: string };
  /** Whether the receiver is asked to confirm. */
  readonly ack: boolean;
}

export interface ReceiverLink {
  /**
   * Resolves once the entries have arrived: they were confirmed, or without confirmations, handed to the kernel. Rejects when
   * that cannot be known, also at the abort.
   */
  send(entries: Entries, signal: AbortSignal): Promise<void>;
  /** Aborted, with the reason, once the connection has ended. */
  readonly ended: AbortSignal;
  close(): void;
}

/** The longest that a receiver may take to accept a connection, or to confirm: fluentd's own clients wait as long. */
const patienceMs = 30_000;

/** Connects. @throws Error if the receiver is not there within 30 s, or is not who it should be. */
export async function connectReceiver(options: ReceiverOptions, signal: AbortSignal): Promise<ReceiverLink> {
  const socket = open(options);
  // not a promise: all who ever waited for it would be kept until it ends
  const ending = new AbortController();
  socket.once("error", (error) => ending.abort(error));
  socket.once("close", () => ending.abort(new Error("the receiver closed the connection")));
  const within = <T>(what: string, work: Promise<T>, until: AbortSignal) =>
    inTime(what, orAborted(work, ending.signal), until);
  try {
    const event = options.tls === undefined ? "connect" : "secureConnect";
    await within("connect", new Promise<void>((resolve) => socket.once(event, resolve)), signal);
  } catch (error) {
    socket.destroy();
    throw error;
  }
  socket.setNoDelay(true);
  socket.setKeepAlive(true, patienceMs);
  const confirmations = options.ack ? readConfirmations(socket) : undefined;
  // who was not asked has nothing to say
  if (confirmations === undefined) socket.resume();
  // read ahead, so that the end of the connection is seen also while nothing is sent
  const nextConfirmation = () => {
    const next = confirmations?.next();
    next?.catch(() => undefined);
    return next;
  };
  let confirmation = nextConfirmation();
  return {
    ended: ending.signal,
    async send(entries, until) {
      const chunkId = confirmation === undefined ? undefined : newChunkId();
      const message = encodeMessage(entries, chunkId);
      const written = new Promise<void>((resolve, reject) => {
        socket.write(message, (error) => (error ? reject(error) : resolve()));
      });
      await within("take what it is sent", written, until);
      if (confirmation === undefined) return;
      const { value, done } = await within("confirm", confirmation, until);
      if (done) throw new Error("the receiver closed the connection");
      if (value !== chunkId) throw new Error("the receiver confirmed something that it was not sent");
      confirmation = nextConfirmation();
    },
    close: () => socket.destroy(),
  };
}

function open({ address, tls }: ReceiverOptions): Socket {
  if (address.kind === "unix") return connect(address.path);
  const { host, port } = address;
  if (tls === undefined) return connect({ host, port });
  const { ca, certificate, key } = tls;
  return connectTls({
    ...{ host, port, ca: readFileSync(ca) },
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...(certificate === undefined || key === undefined
      ? {}
      : { cert: readFileSync(certificate), key: readFileSync(key) }),
  });
}

async function inTime<T>(what: string, work: Promise<T>, signal: AbortSignal): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const cut = new Promise<never>((_, reject) => {
    const late = new Error(`the receiver did not ${what} within ${patienceMs} ms`);
    timer = setTimeout(() => reject(late), patienceMs);
    onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
  try {
    return await Promise.race([work, cut]);
  } finally {
    clearTimeout(timer);
    if (onAbort !== undefined) signal.removeEventListener("abort", onAbort);
  }
}
