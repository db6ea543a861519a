// Where callers reach the daemon: the unix socket, TCP with mutual TLS, and for development plain TCP on loopback. Each
// takes gRPC, gRPC-Web and Connect over HTTP/1.1 and HTTP/2.
import type { Server, Socket } from "node:net";
import { createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { TLSSocket } from "node:tls";
import { createServer as createTlsServer } from "node:tls";
import type { Logger } from "pino";
import type { Caller } from "./caller.ts";
import { callerOfCertificate, devCaller, unixCaller } from "./caller.ts";
import { createCalls } from "./calls.ts";
import { createHttpServers } from "./http-servers.ts";
import type { ApiLimits } from "./limits.ts";
import { isLoopbackHost } from "./loopback.ts";
import type { ApiMetrics } from "./ports.ts";
import { sniffProtocol } from "./protocol-sniff.ts";
import type { RequestHandler } from "./request-handler.ts";
import type { TlsFiles } from "./tls.ts";
import { loadTls } from "./tls.ts";
import { claimSocketPath, groupId, listenOnPath } from "./unix-socket.ts";

/** Where and how to listen. */
export type ListenerConfig =
  | {
      readonly kind: "unix";
      readonly path: string;
      /** Default: 0660. */
      readonly mode?: number;
      /** Name or id. Default: the daemon's. */
      readonly group?: string | number;
    }
  | { readonly kind: "tls"; readonly host: string; readonly port: number; readonly tls: TlsFiles }
  /** Only on a loopback address, and only where `dev` says that this is a development daemon. */
  | { readonly kind: "plain"; readonly host: string; readonly port: number; readonly dev: boolean };

/** An open listener. */
export interface Listener {
  /** "unix:/run/…" or "host:port", with the port that was really taken. */
  readonly address: string;
  /** Reads the TLS files again. Sessions begun under the old ones are asked to end; on failure nothing changes. */
  reload(): Promise<void>;
  /**
   * Stops: no new connections or calls, streams end with UNAVAILABLE (SHUTTING_DOWN), other calls have `graceMs` to
   * finish and then end the same way.
   */
  close(options: { readonly graceMs: number }): Promise<void>;
}

/** What all listeners share. */
export interface ListenerParts {
  readonly handle: RequestHandler;
  readonly limits: ApiLimits;
  readonly metrics: ApiMetrics;
  readonly log: Logger;
}

const defaultMode = 0o660;
const farewellMs = 250;
const logIntervalMs = 1000;

/** Opens a listener. Throws an error with a hint when the address cannot or must not be listened on. */
export async function openListener(config: ListenerConfig, parts: ListenerParts): Promise<Listener> {
  const { limits, metrics, log } = parts;
  const calls = createCalls();
  const sockets = new Set<Socket>();
  const callers = new WeakMap<Socket, Caller>();
  const http = createHttpServers(
    limits,
    (request, response, socket) => {
      const caller = callers.get(socket);
      if (caller === undefined) {
        socket.destroy();
      } else {
        parts.handle(request, response, { caller, calls, loopbackOnly: config.kind === "plain" });
      }
    },
    (why) => metrics.connectionRefused(why),
  );
  const logRefusal = throttledLog(log);

  function accept(socket: Socket): void {
    socket.on("error", (error) => log.debug({ err: error }, "connection failed"));
  }
  function acceptPlain(caller: Caller): (socket: Socket) => void {
    return (socket) => {
      accept(socket);
      callers.set(socket, caller);
      sniffProtocol(
        socket,
        limits.greetingTimeoutMs,
        (protocol) => http.serve(protocol, socket),
        () => metrics.connectionRefused("greeting"),
      );
    };
  }
  function acceptTls(socket: TLSSocket): void {
    accept(socket);
    callers.set(socket, callerOfCertificate(socket.getPeerCertificate()));
    http.serve(socket.alpnProtocol === "h2" ? "h2" : "h1", socket);
  }

  let server: Server;
  let reload = async (): Promise<void> => {};
  switch (config.kind) {
    case "unix": {
      const gid = config.group === undefined ? undefined : await groupId(config.group);
      await claimSocketPath(config.path);
      server = bounded(createServer(acceptPlain(unixCaller)));
      await listenOnPath(server, config.path, config.mode ?? defaultMode, gid);
      break;
    }
    case "plain":
      if (!config.dev || !isLoopbackHost(config.host)) {
        throw new Error(
          `Plain TCP on ${config.host}:${config.port} is refused: anybody who reaches it would be an operator.\n` +
            "Hint: use TLS or the unix socket; a development daemon may listen on 127.0.0.1 or ::1.",
        );
      }
      server = bounded(createServer(acceptPlain(devCaller)));
      await listenOnPort(server, config.host, config.port);
      break;
    case "tls": {
      const tlsServer = createTlsServer({
        ...(await loadTls(config.tls)),
        requestCert: true,
        rejectUnauthorized: true,
        ALPNProtocols: ["h2", "http/1.1"],
        handshakeTimeout: limits.greetingTimeoutMs,
      });
      tlsServer.on("secureConnection", acceptTls);
      tlsServer.on("tlsClientError", (error, socket) => {
        metrics.connectionRefused("handshake");
        logRefusal({ audit: true, peer: socket.remoteAddress, err: error }, "TLS handshake refused");
        socket.destroy();
      });
      server = bounded(tlsServer);
      await listenOnPort(server, config.host, config.port);
      reload = async () => {
        tlsServer.setSecureContext(await loadTls(config.tls));
        http.retire();
      };
      break;
    }
  }
  const address = addressOf(server);
  log.info({ address, kind: config.kind }, "listening");

  function bounded(made: Server): Server {
    made.maxConnections = limits.sessions;
    made.on("connection", (socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
    });
    made.on("drop", (dropped) => {
      metrics.connectionRefused("too_many");
      logRefusal({ peer: dropped?.remoteAddress, sessions: limits.sessions }, "connection refused: too many");
    });
    return made;
  }

  let closing: Promise<void> | undefined;
  async function close(graceMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      server.close(() => resolve());
    });
    calls.drain();
    http.retire();
    await soonest(closed, graceMs);
    calls.endAll();
    http.retire();
    await soonest(closed, farewellMs);
    for (const socket of sockets) {
      socket.destroy();
    }
    http.close();
    await closed;
    log.info({ address }, "stopped listening");
  }

  return {
    address,
    reload,
    close({ graceMs }) {
      closing ??= close(graceMs);
      return closing;
    },
  };
}

function listenOnPort(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

function addressOf(server: Server): string {
  const address = server.address();
  if (address === null || typeof address === "string") {
    return `unix:${address}`;
  }
  return address.family === "IPv6"
    ? `[${address.address}]:${address.port}`
    : `${address.address}:${address.port}`;
}

async function soonest(closed: Promise<void>, timeoutMs: number): Promise<void> {
  const timer = new AbortController();
  const timeout = delay(timeoutMs, undefined, { signal: timer.signal }).catch(() => {
    // Aborted below: the listener has closed before.
  });
  await Promise.race([closed, timeout]);
  timer.abort();
}

/** At most one line a second, with how many were left out: a hostile peer must not fill the log. */
function throttledLog(log: Logger): (facts: object, message: string) => void {
  let loggedAtMs = Number.NEGATIVE_INFINITY;
  let suppressed = 0;
  return (facts, message) => {
    const nowMs = performance.now();
    if (nowMs - loggedAtMs < logIntervalMs) {
      suppressed += 1;
      return;
    }
    log.warn({ ...facts, suppressed }, message);
    loggedAtMs = nowMs;
    suppressed = 0;
  };
}
