// Where browsers connect: HTTP/1.1, over TLS or plain, bounded in connections, headers and the time for them.

import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { TlsOptions } from "node:tls";
import { createServer, createTlsServer, ServerResponse as HttpResponse } from "../http.ts";
import type { Log } from "../observe/log.ts";

/** Reads the certificate and its key. */
export type TlsSource = () => Promise<Pick<TlsOptions, "cert" | "key">>;

/** A connection that is to become a WebSocket, and what came of it by now. */
export interface Upgrade {
  readonly socket: Duplex;
  readonly head: Buffer;
}

export interface ListenerOptions {
  readonly host: string;
  readonly port: number;
  /** Absent: plain HTTP. */
  readonly tls?: TlsSource;
  /** For the headers of a request, and for the beginning of TLS. Default: 10 s. */
  readonly patienceMs?: number;
  readonly serve: (request: IncomingMessage, response: ServerResponse, upgrade?: Upgrade) => Promise<void>;
  readonly log: Log;
}

export interface PreviewListener {
  readonly address: string;
  readonly port: number;
  /** Reads the certificate anew. On failure nothing changes. */
  reload(): Promise<void>;
  close(): Promise<void>;
}

/** A browser opens six for HTTP, and those of its WebSockets. */
const mostConnections = 4_096;
const mostHeaderBytes = 32 * 1_024;
const mostHeaders = 128;
const defaultPatienceMs = 10_000;
const keepAliveTimeoutMs = 15_000;
/** A browser that is gone without a word is noticed after some of these. */
const probeMs = 60_000;

const settings = {
  maxHeaderSize: mostHeaderBytes,
  // of a whole upload: who may send one has a token, and a bounded number of connections
  requestTimeout: 0,
  keepAliveTimeout: keepAliveTimeoutMs,
  connectionsCheckingInterval: 500,
  keepAlive: true,
  keepAliveInitialDelay: probeMs,
  shouldUpgradeCallback: ({ headers }: IncomingMessage) => headers.upgrade?.toLowerCase() === "websocket",
};

export async function openListener(options: ListenerOptions): Promise<PreviewListener> {
  const { host, tls, serve, log, patienceMs = defaultPatienceMs } = options;
  const sockets = new Set<Socket>();

  function answer(request: IncomingMessage, response: ServerResponse, upgrade?: Upgrade): void {
    response.on("error", (error) =>
      log.debug({ err: error }, "an answer of the preview could not be written"),
    );
    serve(request, response, upgrade).catch((error: unknown) => {
      log.warn({ err: error }, "a request of the preview failed");
      response.destroy();
    });
  }

  const bounded = { ...settings, headersTimeout: patienceMs };
  const tlsServer =
    tls === undefined
      ? undefined
      : createTlsServer({ ...bounded, ...(await secure(tls)), handshakeTimeout: patienceMs });
  const server = tlsServer ?? createServer(bounded);
  server.maxHeadersCount = mostHeaders;
  server.maxConnections = mostConnections;
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", (error) => log.debug({ err: error }, "a connection of the preview failed"));
    socket.once("close", () => sockets.delete(socket));
  });
  server.on("request", answer);
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on("error", (error) => log.debug({ err: error }, "a connection of the preview failed"));
    // whatever is said but that it becomes a WebSocket is an answer like others, and the last
    const response = new HttpResponse(request);
    response.shouldKeepAlive = false;
    response.assignSocket(socket as Socket);
    response.once("finish", () => socket.end());
    answer(request, response, { socket, head });
  });
  const port = await listening(server, host, options.port);
  return {
    address: `${host.includes(":") ? `[${host}]` : host}:${port}`,
    port,
    async reload() {
      if (tls !== undefined) tlsServer?.setSecureContext(await secure(tls));
    },
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

async function secure(tls: TlsSource): Promise<TlsOptions> {
  return { ...(await tls()), minVersion: "TLSv1.2", ALPNProtocols: ["http/1.1"] };
}

function listening(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port }, () => {
      server.off("error", reject);
      const address = server.address();
      resolve(address !== null && typeof address === "object" ? address.port : port);
    });
  });
}
