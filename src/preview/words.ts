// What the preview itself says to a browser: text that none takes for anything else.

import type { IncomingMessage, ServerResponse } from "node:http";
import { SandboxdError } from "../errors.ts";

/** Breaks the answer off if it was begun. */
export function say(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  message: string,
): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  // what is left of the request is not read
  if (!request.complete) response.shouldKeepAlive = false;
  const body = `${message}\n`;
  response.writeHead(status, {
    "content-type": "text/plain; charset=utf-8",
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    ...(status === 401 ? { "www-authenticate": "Bearer" } : {}),
  });
  response.end(body);
}

export function sayError(request: IncomingMessage, response: ServerResponse, error: unknown): void {
  if (error instanceof SandboxdError) {
    const { hint } = error.details;
    const message = hint === undefined ? error.message : `${error.message}\n${hint}`;
    say(request, response, statusOf(error), message);
  } else {
    const why = error instanceof Error && "code" in error ? ` (${error.code})` : "";
    say(request, response, 502, `what answers on this port does not speak HTTP${why}`);
  }
}

function statusOf({ reason }: SandboxdError): number {
  switch (reason) {
    case "PORT_NOT_ALLOWED":
      return 403;
    case "SANDBOX_NOT_FOUND":
      return 404;
    case "PORT_UNREACHABLE":
      return 502;
    default:
      return 503;
  }
}
