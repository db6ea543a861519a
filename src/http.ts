// node:http as Node itself uses it. An import would read each of its exports, WebSocket among them, for which Node then loads
// its whole implementation of fetch: 4 MB of memory that nothing here has a use for.

import type { Server as TlsServer, ServerOptions as TlsServerOptions } from "node:https";

export const { Agent, createServer, request, ServerResponse } = process.getBuiltinModule("node:http");

/** Loaded where it is used. */
export function createTlsServer(options: TlsServerOptions): TlsServer {
  return process.getBuiltinModule("node:https").createServer(options);
}
