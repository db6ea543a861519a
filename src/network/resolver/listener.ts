// The sockets of the resolver on one gateway: UDP and TCP on the same port, and what a client may hold of them.

import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { createServer, type Server, type Socket } from "node:net";
import { messageOf, SandboxdError } from "../../errors.ts";
import type { Log } from "../../observe/log.ts";
import { createUnframing, framed } from "./framing.ts";
import { maxQueryBytes, type Transport } from "./message.ts";

export interface ListenerOptions {
  readonly address: string;
  readonly port: number;
  /** Resolves to what is sent back; to undefined where nothing is. */
  readonly respond: (message: Buffer, from: string, transport: Transport) => Promise<Buffer | undefined>;
  readonly log: Log;
  /** A connection on which nothing moves is closed after so long. Default: 5,000 ms. */
  readonly idleMs?: number;
}

export interface Listener {
  close(): Promise<void>;
}

const defaultIdleMs = 5_000;
const mostConnectionsOfOne = 8;
const mostConnections = 256;
/** Answers that a client does not read; then it is not waited for. */
const maxUnreadBytes = 64 * 1_024;

/** @throws SandboxdError NETWORK_UNAVAILABLE where the port cannot be had. */
export async function openListener(options: ListenerOptions): Promise<Listener> {
  const closeUdp = await openUdp(options).catch((error: unknown) => {
    throw unavailable(options, "UDP", error);
  });
  try {
    const closeTcp = await openTcp(options);
    return {
      async close() {
        await Promise.all([closeUdp(), closeTcp()]);
      },
    };
  } catch (error) {
    await closeUdp();
    throw unavailable(options, "TCP", error);
  }
}

async function openUdp({ address, port, respond, log }: ListenerOptions): Promise<() => Promise<void>> {
  const socket = createSocket("udp4");
  await bound(socket, (onBound) => socket.bind({ address, port, exclusive: true }, onBound));
  let isClosed = false;
  socket.on("error", (error) => log.warn({ address, err: messageOf(error) }, "a question could not be read"));
  socket.on("message", (message, from) => {
    respond(message, from.address, "udp").then(
      (reply) => {
        // whoever asked may be gone, or not be reachable any more
        if (reply !== undefined && !isClosed) socket.send(reply, from.port, from.address, () => undefined);
      },
      (error: unknown) => log.error({ address, err: error }, "a question could not be answered"),
    );
  });
  return () => {
    isClosed = true;
    return new Promise((resolve) => socket.close(resolve));
  };
}

async function openTcp(options: ListenerOptions): Promise<() => Promise<void>> {
  const { address, port, log } = options;
  const connections = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    const from = socket.remoteAddress;
    const others = [...connections].filter((one) => one.remoteAddress === from).length;
    if (from === undefined || others >= mostConnectionsOfOne) {
      socket.destroy();
      return;
    }
    connections.add(socket);
    socket.on("close", () => connections.delete(socket));
    serve(socket, from, options);
  });
  server.maxConnections = mostConnections;
  await bound(server, (onBound) => server.listen({ host: address, port, exclusive: true }, onBound));
  server.on("error", (error) =>
    log.warn({ address, err: messageOf(error) }, "a connection could not be taken"),
  );
  return () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of connections) socket.destroy();
    });
}

function serve(
  socket: Socket,
  from: string,
  { address, respond, log, idleMs = defaultIdleMs }: ListenerOptions,
) {
  const take = createUnframing(maxQueryBytes, (message) => {
    respond(message, from, "tcp").then(
      (reply) => {
        if (reply !== undefined && socket.writable) socket.write(framed(reply));
        if (socket.writableLength > maxUnreadBytes) socket.destroy();
      },
      (error: unknown) => log.error({ address, err: error }, "a question could not be answered"),
    );
  });
  socket.setTimeout(idleMs, () => socket.destroy());
  // a reset is an end like any other
  socket.on("error", () => undefined);
  socket.on("data", (chunk: Buffer) => {
    if (!take(chunk)) socket.destroy();
  });
}

async function bound(socket: DatagramSocket | Server, bind: (onBound: () => void) => unknown): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once("error", reject);
  bind(resolve);
  await promise;
  socket.off("error", reject);
}

const hints: Readonly<Record<string, string>> = {
  EADDRINUSE:
    "another program answers on port 53 of every address: have it leave the bridges sbx*, for dnsmasq with bind-dynamic and except-interface=sbx*, for others by listing the addresses that it is to listen on",
  EADDRNOTAVAIL:
    "the bridge has no such address here: run sandboxd and the engine in the same network namespace",
  EACCES: "port 53 needs CAP_NET_BIND_SERVICE: run sandboxd as its unit file does",
};

function unavailable({ address, port }: ListenerOptions, protocol: string, error: unknown): SandboxdError {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const hint = hints[code];
  return new SandboxdError(
    "NETWORK_UNAVAILABLE",
    `the resolver cannot listen on ${protocol} port ${port} of ${address}: ${messageOf(error)}`,
    { cause: error, ...(hint === undefined ? {} : { hint }) },
  );
}
