// The bytes of a request as the protocol handlers read them: bounded in time and in total, and never cutting the
// connection under an answer that still has to be sent.
import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import { SandboxdError } from "../errors.ts";
import { callIsOver } from "./calls.ts";
import { transferred } from "./collection-pace.ts";
import { encodeError } from "./error-encoding.ts";
import { checked } from "./iterable.ts";

/** Request bytes held by all calls that are being received. */
export interface ReceiveBudget {
  /** Takes bytes; throws RESOURCE_EXHAUSTED (MESSAGE_TOO_LARGE) where that is more than there are. */
  take(bytes: number): void;
  give(bytes: number): void;
}

/** A budget of this many bytes. */
export function createReceiveBudget(limitBytes: number): ReceiveBudget {
  let taken = 0;
  return {
    take(bytes) {
      if (taken + bytes > limitBytes) {
        throw encodeError(
          new SandboxdError("MESSAGE_TOO_LARGE", "Too many requests are being received at once.", {
            hint: "Send fewer large requests at a time.",
            metadata: { limit_bytes: String(limitBytes) },
            retryDelayMs: 1000,
          }),
        );
      }
      taken += bytes;
    },
    give(bytes) {
      taken -= bytes;
    },
  };
}

/** A request's body, and what frees its share of the budget. */
export interface RequestBody {
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Gives its bytes back and stops its clock. */
  close(): void;
}

/** The body of a request that is a stream of messages: bounded by its messages' size and flow control. */
export function streamedBody(request: IncomingMessage | Http2ServerRequest): RequestBody {
  return { bytes: checked(kept(request), (chunk) => transferred(chunk.byteLength)), close() {} };
}

/** The body of a request that is one message, which must be received whole within `timeoutMs`. */
export function boundedBody(
  request: IncomingMessage | Http2ServerRequest,
  budget: ReceiveBudget,
  timeoutMs: number,
): RequestBody {
  let held = 0;
  const chunks: Uint8Array[] = [];
  let unreadBytes = 0;
  let end: { readonly error?: Error } | undefined;
  let wake = () => {};
  const ended = (error?: Error) => {
    clearTimeout(timer);
    end ??= error === undefined ? {} : { error };
    if (error !== undefined) leave();
    wake();
  };
  /** Takes no more of it. */
  const leave = () => {
    request.off("data", receive);
    request.pause();
  };
  const timer = setTimeout(
    () =>
      ended(
        encodeError(
          new SandboxdError("DEADLINE_EXCEEDED", `The request was not received within ${timeoutMs} ms.`),
        ),
      ),
    timeoutMs,
  );
  const receive = (chunk: Uint8Array) => {
    try {
      budget.take(chunk.byteLength);
    } catch (error) {
      return ended(error as Error);
    }
    held += chunk.byteLength;
    chunks.push(chunk);
    unreadBytes += chunk.byteLength;
    if (unreadBytes > mostUnreadBytes) request.pause();
    wake();
  };
  // the request's own iterator costs more than all else that is done to receive a short message
  request.on("data", receive);
  request.on("end", () => ended());
  const cut = () => ended(encodeError(callIsOver));
  request.on("error", cut);
  request.on("close", () => {
    if (end === undefined) cut();
  });

  async function next(): Promise<IteratorResult<Uint8Array>> {
    while (chunks.length === 0 && end === undefined) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    if (end?.error !== undefined) throw end.error;
    const value = chunks.shift();
    if (value === undefined) return { done: true, value };
    unreadBytes -= value.byteLength;
    if (end === undefined && request.isPaused()) request.resume();
    return { done: false, value };
  }
  return {
    bytes: { [Symbol.asyncIterator]: () => ({ next }) },
    close() {
      clearTimeout(timer);
      if (end === undefined) leave();
      budget.give(held);
      held = 0;
    },
  };
}

/** Of a body that was not asked for yet; then no more is read. */
const mostUnreadBytes = 65_536;

/**
 * An ordinary loop over the request destroys it when it is left early, and over HTTP/1.1 with it the connection, so
 * that the caller would see a reset instead of the error.
 */
function kept(request: IncomingMessage | Http2ServerRequest): AsyncIterable<Uint8Array> {
  return { [Symbol.asyncIterator]: () => request.iterator({ destroyOnReturn: false }) };
}
