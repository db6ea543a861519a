// The bytes of a request as the protocol handlers read them: bounded in time and in total, and never cutting the
// connection under an answer that still has to be sent.
import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import { SandboxdError } from "../errors.ts";
import { transferred } from "./collection-pace.ts";
import { encodeError } from "./error-encoding.ts";
import { checked, passedOn } from "./iterable.ts";

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
  let fail: ((error: Error) => void) | undefined;
  let late: Error | undefined;
  const timer = setTimeout(() => {
    late = encodeError(
      new SandboxdError("DEADLINE_EXCEEDED", `The request was not received within ${timeoutMs} ms.`),
    );
    fail?.(late);
  }, timeoutMs);
  const source = kept(request)[Symbol.asyncIterator]();
  async function next(): Promise<IteratorResult<Uint8Array>> {
    if (late !== undefined) {
      throw late;
    }
    const result = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
      fail = reject;
      source.next().then(resolve, reject);
    });
    if (result.done === true) {
      clearTimeout(timer);
    } else {
      budget.take(result.value.byteLength);
      held += result.value.byteLength;
    }
    return result;
  }
  return {
    bytes: { [Symbol.asyncIterator]: () => ({ next, ...passedOn(source) }) },
    close() {
      clearTimeout(timer);
      budget.give(held);
      held = 0;
    },
  };
}

/**
 * An ordinary loop over the request destroys it when it is left early, and over HTTP/1.1 with it the connection, so
 * that the caller would see a reset instead of the error.
 */
function kept(request: IncomingMessage | Http2ServerRequest): AsyncIterable<Uint8Array> {
  return { [Symbol.asyncIterator]: () => request.iterator({ destroyOnReturn: false }) };
}
