// From Node's request to the protocol library's handler and back. In place of connect-node's own adapter, which throws
// outside of the handler on a malformed authority, cuts HTTP/1.1 connections under error answers, has no bound on
// how long a request may take, and tells errors of its own without details.
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import type { ConnectRouter } from "@connectrpc/connect";
import { createContextValues } from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerResponse } from "@connectrpc/connect/protocol";
import type { Logger } from "pino";
import { isAcceptableAuthority } from "./authority.ts";
import { gatheredBody } from "./bulk-body.ts";
import type { BulkHandlers } from "./bulk-handler.ts";
import { isBinaryGrpc, takesBytes } from "./bulk-handler.ts";
import type { Caller } from "./caller.ts";
import { callerKey } from "./caller.ts";
import type { Calls } from "./calls.ts";
import { callIsOver, callsKey } from "./calls.ts";
import { completeResponse } from "./error-completion.ts";
import { reasonOf, statusName } from "./error-encoding.ts";
import { translateProtocolError } from "./error-translation.ts";
import type { ApiLimits } from "./limits.ts";
import { isReadOnly, methodName } from "./method.ts";
import type { ApiMetrics } from "./ports.ts";
import { boundedBody, createReceiveBudget, streamedBody } from "./request-body.ts";
import { writeResponse } from "./response-writer.ts";

/** What a listener knows of the connection that a request came in on. */
interface RequestOrigin {
  readonly caller: Caller;
  readonly calls: Calls;
  /** Whether the authority must be a loopback name, so that a web page cannot reach the daemon by DNS rebinding. */
  readonly loopbackOnly: boolean;
}

export type NodeRequest = IncomingMessage | Http2ServerRequest;
export type NodeResponse = ServerResponse | Http2ServerResponse;

/** Answers one request. Never throws and never rejects. */
export type RequestHandler = (request: NodeRequest, response: NodeResponse, origin: RequestOrigin) => void;

/** Serves the router's methods, those in `direct` by what is there. */
export function createRequestHandler(
  router: ConnectRouter,
  direct: BulkHandlers,
  limits: ApiLimits,
  log: Logger,
  metrics: ApiMetrics,
): RequestHandler {
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  const budget = createReceiveBudget(limits.receiveBudgetBytes);

  async function serve(request: NodeRequest, response: NodeResponse, origin: RequestOrigin): Promise<void> {
    const path = request.url ?? "";
    const name = path.split("?", 1)[0] ?? "";
    const handler = handlers.get(name);
    if (!isAcceptableAuthority(authorityOf(request), origin.loopbackOnly)) {
      return refuse(request, response, 400, "The authority (host) of the request cannot be accepted.\n");
    }
    if (handler === undefined) {
      return refuse(request, response, 404, "There is no such method.\n");
    }
    const header = readableHeaders(request.headers, limits.readMaxBytes);
    const { methodKind } = handler.method;
    const single = methodKind === "unary" || methodKind === "server_streaming";
    const { method = "" } = request;
    const shorter = isBinaryGrpc({ method, header }) ? direct.get(name) : undefined;
    const receive = shorter !== undefined && takesBytes(handler.method) ? gatheredBody : streamedBody;
    const body = single ? boundedBody(request, budget, limits.requestTimeoutMs) : receive(request);
    const begun = performance.now();
    try {
      const asked = {
        httpVersion: request.httpVersion,
        method,
        url: `http://sandboxd${path}`,
        header,
        body: body.bytes,
        signal: closeSignal(response),
        contextValues: createContextValues().set(callerKey, origin.caller).set(callsKey, origin.calls),
      };
      const answer = await (shorter ?? handler)(asked);
      await writeResponse(
        request,
        response,
        await complete(answer, handler, origin, begun),
        origin.calls.draining,
      );
    } finally {
      body.close();
    }
  }

  function complete(
    answer: UniversalServerResponse,
    handler: UniversalHandler,
    origin: RequestOrigin,
    begun: number,
  ): Promise<UniversalServerResponse> {
    const method = methodName(handler.method);
    return completeResponse(answer, (bare) => {
      const error = translateProtocolError(bare, method, log);
      const code = statusName(error.code);
      metrics.callEnded(method, code, (performance.now() - begun) / 1000);
      const { identity, role } = origin.caller;
      const audit = !isReadOnly(handler.method);
      log[audit ? "info" : "debug"](
        { audit, method, caller: identity, role, code, reason: reasonOf(error) },
        "call refused unread",
      );
      return error;
    });
  }

  return (request, response, origin) => {
    response.on("error", (error) => log.debug({ err: error }, "answer could not be written"));
    serve(request, response, origin).catch((error: unknown) => {
      log.warn({ err: error }, "request failed outside of its call");
      response.destroy();
    });
  };
}

function authorityOf(request: NodeRequest): string | undefined {
  const authority = "authority" in request ? request.authority : undefined;
  return authority === undefined || authority === "" ? request.headers.host : authority;
}

/** Aborts when the caller has gone, and in any case when the answer is over. */
function closeSignal(response: NodeResponse): AbortSignal {
  const controller = new AbortController();
  response.once("close", () => controller.abort(callIsOver));
  return controller.signal;
}

async function refuse(
  request: NodeRequest,
  response: NodeResponse,
  status: number,
  text: string,
): Promise<void> {
  const header = new Headers({ "content-type": "text/plain; charset=utf-8" });
  const body = (async function* () {
    yield Buffer.from(text);
  })();
  await writeResponse(request, response, { status, header, body }, true);
}

const unsafeTimeoutMs = 2 ** 31 - 1;
const timeoutUnitsMs: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 0.001,
  n: 1e-6,
};

/** The headers, less what the protocol library would stumble over. */
function readableHeaders(headers: IncomingHttpHeaders, readMaxBytes: number): Headers {
  const readable = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && !name.startsWith(":")) {
      for (const item of Array.isArray(value) ? value : [value]) {
        readable.append(name, item);
      }
    }
  }
  // It would set aside what is only announced; Node itself checks that no more and no less arrives.
  if (!(Number(readable.get("content-length")) > readMaxBytes)) {
    readable.delete("content-length");
  }
  // Node's timers take no more than 24 days and fire at once beyond: such a deadline is none.
  const [, amount, unit = ""] = /^([0-9]{1,8})([HMSmun])$/.exec(readable.get("grpc-timeout") ?? "") ?? [];
  if (Number(amount) * (timeoutUnitsMs[unit] ?? 0) > unsafeTimeoutMs) {
    readable.delete("grpc-timeout");
  }
  const connectTimeout = readable.get("connect-timeout-ms") ?? "";
  if (/^[0-9]{1,10}$/.test(connectTimeout) && Number(connectTimeout) > unsafeTimeoutMs) {
    readable.delete("connect-timeout-ms");
  }
  return readable;
}
