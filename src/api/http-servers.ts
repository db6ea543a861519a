// HTTP/1.1 and HTTP/2 on connections that a listener hands over. Neither listens on its own.
import type { Http2Session } from "node:http2";
import { createServer as createHttp2Server } from "node:http2";
import type { Socket } from "node:net";
import { createServer as createHttp1Server } from "../http.ts";
import type { ApiLimits } from "./limits.ts";
import type { ConnectionRefusal } from "./ports.ts";
import type { NodeRequest, NodeResponse } from "./request-handler.ts";
import { tendSession } from "./sessions.ts";

/** The two protocols of one listener. */
export interface HttpServers {
  /** Serves a connection. The socket may hold bytes already read; it is resumed. */
  serve(protocol: "h1" | "h2", socket: Socket): void;
  /** Tells callers to come back on another connection; connections without calls close at once. */
  retire(): void;
  /** Stops the timers. Connections are their listener's to destroy. */
  close(): void;
}

/**
 * What a caller may send on a stream, and on all streams of a session, before it hears that it was taken. With the 64 KiB that are usual both sides wait for
 * each other most of the time; with more a call that takes nothing holds more. Unit: bytes.
 */
const windowBytes = 256 * 1024;

/** `handle` gets each request with the connection that it came in on. */
export function createHttpServers(
  limits: ApiLimits,
  handle: (request: NodeRequest, response: NodeResponse, socket: Socket) => void,
  refused: (why: ConnectionRefusal) => void,
): HttpServers {
  const sessions = new Set<Http2Session>();
  const socketOf = new WeakMap<Http2Session, Socket>();
  let arriving: Socket | undefined;

  const http1 = createHttp1Server({
    maxHeaderSize: limits.headerBytes,
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: Math.max(limits.requestTimeoutMs, limits.headersTimeoutMs),
    keepAliveTimeout: limits.idleTimeoutMs,
    connectionsCheckingInterval: Math.min(1000, limits.headersTimeoutMs),
  });
  http1.maxHeadersCount = limits.headers;
  http1.on("request", (request, response) => handle(request, response, request.socket));
  // Node starts the clock of headersTimeout and requestTimeout only when a server listens.
  http1.emit("listening");

  const http2 = createHttp2Server({
    settings: {
      maxConcurrentStreams: limits.streamsPerSession,
      maxHeaderListSize: limits.headerBytes,
      initialWindowSize: windowBytes,
    },
    maxHeaderListPairs: limits.headers,
    maxSessionInvalidFrames: limits.invalidFrames,
    streamResetBurst: limits.resetBurst,
    streamResetRate: limits.resetsPerSecond,
  });
  http2.on("session", (session) => {
    if (arriving !== undefined) {
      socketOf.set(session, arriving);
    }
    session.setLocalWindowSize(windowBytes);
    sessions.add(session);
    session.once("close", () => sessions.delete(session));
    tendSession(session, limits, refused);
  });
  http2.on("request", (request, response) => {
    const { session } = request.stream;
    const socket = session === undefined ? undefined : socketOf.get(session);
    if (socket === undefined) {
      response.stream.close();
    } else {
      handle(request, response, socket);
    }
  });

  return {
    serve(protocol, socket) {
      if (protocol === "h2") {
        arriving = socket;
        http2.emit("connection", socket);
        arriving = undefined;
      } else {
        http1.emit("connection", socket);
      }
      process.nextTick(() => socket.resume());
    },
    retire() {
      for (const session of sessions) {
        session.close();
      }
      http1.closeIdleConnections();
    },
    close() {
      http1.close();
      http2.close();
    },
  };
}
