// GET /metrics over HTTP/1.1, on a listener of its own: scrapers speak no HTTP/2, and the API's bounds are not theirs.

import { once } from "node:events";
import { chmodSync, lstatSync, unlinkSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { connect } from "node:net";
import { messageOf } from "../errors.ts";
import { createServer } from "../http.ts";

/** Structurally the configuration's `metrics.address`. */
export type MetricsAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

export interface MetricsListener {
  /** "127.0.0.1:9464", with the port that was found if 0 was asked for, or "unix:/path". */
  readonly address: string;
  /** Stops listening and cuts what is open. */
  close(): Promise<void>;
}

export interface MetricsListenerOptions {
  readonly address: MetricsAddress;
  /** The text exposition. What it throws is answered with 500. */
  render(): string;
  /** Ends the wait for the listener to be up. */
  readonly signal?: AbortSignal;
}

/** A scraper needs one. */
const maxConnections = 16;

/**
 * Listens. A socket file that nobody listens on is replaced; the new one is for its owner and group (0660).
 *
 * @throws what listening throws, such as `EADDRINUSE`; the signal's reason.
 */
export async function createMetricsListener(options: MetricsListenerOptions): Promise<MetricsListener> {
  const { address, signal } = options;
  signal?.throwIfAborted();
  const server = createServer({ headersTimeout: 5_000, requestTimeout: 10_000, maxHeaderSize: 8_192 });
  server.maxConnections = maxConnections;
  server.on("request", (request, response) => answer(request, response, options.render));
  const close = async () => {
    const closed = server.listening ? once(server, "close") : undefined;
    server.close();
    server.closeAllConnections();
    await closed;
  };
  try {
    if (address.kind === "unix") await removeStale(address.path, signal);
    const listening = once(server, "listening", signal === undefined ? {} : { signal });
    server.listen(
      address.kind === "unix" ? { path: address.path } : { host: address.host, port: address.port },
    );
    await listening;
    if (address.kind === "unix") chmodSync(address.path, 0o660);
  } catch (error) {
    await close();
    throw error;
  }
  const bound = server.address();
  if (bound === null || typeof bound === "string") return { address: `unix:${bound ?? ""}`, close };
  const host = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
  return { address: `${host}:${bound.port}`, close };
}

function answer(request: IncomingMessage, response: ServerResponse, render: () => string): void {
  const [path] = (request.url ?? "").split("?");
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.writeHead(405, { allow: "GET, HEAD" }).end();
  } else if (path !== "/metrics") {
    response.writeHead(404).end();
  } else {
    try {
      const text = render();
      response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(text);
    } catch (error) {
      // the scraper shows the target as down, and whoever looks sees why
      response.writeHead(500, { "content-type": "text/plain" }).end(messageOf(error));
    }
  }
}

/** Removes the socket file of a listener that is gone. Anything else there is left, and makes listening fail. */
async function removeStale(path: string, signal: AbortSignal | undefined): Promise<void> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return;
  const socket = connect(path);
  try {
    await once(socket, "connect", signal === undefined ? {} : { signal });
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ECONNREFUSED")) throw error;
    unlinkSync(path);
  } finally {
    socket.destroy();
  }
}
