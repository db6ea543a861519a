// Carries a request to the program inside and its answer back, as they come; WebSockets too.

import type { ClientRequest, IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { request as requestOf } from "../http.ts";
import { type Header, outwardHeaders } from "./headers.ts";
import { largeBody, pass } from "./large-body.ts";
import type { PortAgent, PortOptions } from "./port-agent.ts";
import type { Grant } from "./token.ts";

export interface Agents {
  /** Its connections are kept for the next request. */
  readonly keeping: PortAgent;
  readonly once: PortAgent;
}

export interface Call {
  readonly grant: Grant;
  readonly agents: Agents;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Path and query. */
  readonly target: string;
  readonly headers: readonly Header[];
  readonly ownCookies: readonly string[];
  /** Of a request that is to become a WebSocket: its connection, and what came of it by now. */
  readonly upgrade?: { readonly socket: Duplex; readonly head: Buffer };
}

/** Resolves when it is over, however it ended. @throws what kept it from an answer, while none was begun. */
export function carry(call: Call): Promise<void> {
  const { request, response, agents } = call;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let outgoing: ClientRequest;

  function ask(agent: PortAgent): void {
    let hasAnswer = false;
    outgoing = begin(call, agent);
    outgoing.on("response", (answer) => {
      hasAnswer = true;
      relay(call, answer);
    });
    outgoing.on("upgrade", (answer, inside, head) => {
      hasAnswer = true;
      join(call, { answer, inside, head }, resolve);
    });
    outgoing.on("error", (error) => {
      if (hasAnswer || response.closed) response.destroy();
      // the program may have closed the one that was kept, just as it was used
      else if (outgoing.reusedSocket) ask(agents.once);
      else reject(error);
    });
  }

  // the browser has all of it, or has gone
  response.once("close", () => {
    outgoing.destroy();
    resolve();
  });
  const isRepeatable = call.upgrade === undefined && !hasBody(request) && isSafe(request.method);
  ask(isRepeatable ? agents.keeping : agents.once);
  return promise;
}

/** Of an answer. */
const mostHeaderBytes = 32 * 1_024;

/** Safe methods change nothing, so they can be asked twice (RFC 9110, 9.2.1). */
const isSafe = (method: string | undefined): boolean =>
  method === "GET" || method === "HEAD" || method === "OPTIONS";

function hasBody({ headers }: IncomingMessage): boolean {
  return (
    headers["transfer-encoding"] !== undefined ||
    (headers["content-length"] !== undefined && headers["content-length"] !== "0")
  );
}

function begin({ request, grant, target, headers, upgrade }: Call, agent: PortAgent): ClientRequest {
  const framing: Header[] =
    request.headers["transfer-encoding"] === undefined ? [] : [["Transfer-Encoding", "chunked"]];
  const upgrading: Header[] =
    upgrade === undefined
      ? []
      : [
          ["Connection", "Upgrade"],
          ["Upgrade", "websocket"],
        ];
  const options: PortOptions = {
    agent,
    grant,
    method: request.method ?? "GET",
    path: target,
    maxHeaderSize: mostHeaderBytes,
    headers: [...headers, ...framing, ...upgrading].flat(),
  };
  const outgoing = requestOf(options);
  if (hasBody(request) && upgrade === undefined) request.pipe(outgoing);
  else outgoing.end();
  return outgoing;
}

function relay({ request, response, ownCookies }: Call, answer: IncomingMessage): void {
  try {
    response.writeHead(answer.statusCode ?? 502, outwardHeaders(answer.rawHeaders, ownCookies).flat());
  } catch {
    // a status that is none
    response.destroy();
    answer.destroy();
    return;
  }
  const past = largeBody(request, answer);
  if (past !== undefined) return void pass(past, answer, response);
  answer.on("error", () => response.destroy());
  // one that breaks off must not look whole
  answer.once("close", () => {
    if (!answer.complete) response.destroy();
  });
  answer.pipe(response);
}

interface Joining {
  readonly answer: IncomingMessage;
  readonly inside: Duplex;
  /** What came behind the answer. */
  readonly head: Buffer;
}

function join(
  { response, upgrade, ownCookies }: Call,
  { answer, inside, head }: Joining,
  over: () => void,
): void {
  if (upgrade === undefined || answer.headers.upgrade?.toLowerCase() !== "websocket") {
    inside.destroy();
    response.destroy();
    return;
  }
  const { socket, head: sent } = upgrade;
  response.detachSocket(socket as Parameters<ServerResponse["detachSocket"]>[0]);
  const lines = outwardHeaders(answer.rawHeaders, ownCookies).map(([name, value]) => `${name}: ${value}\r\n`);
  const begun = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
  socket.write(`${begun}${lines.join("")}\r\n`, "latin1");
  socket.write(head);
  inside.write(sent);
  for (const [one, other] of [
    [socket, inside],
    [inside, socket],
  ] as const) {
    one.on("error", () => other.destroy());
    one.on("close", () => other.destroy());
    one.pipe(other);
  }
  socket.once("close", over);
}
