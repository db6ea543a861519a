// Every call ends by its deadline, when its caller goes, and when the listener stops, even if its handler does not
// listen. Only the answer is given up: a handler decides for itself what its signal stops.
import type { Interceptor } from "@connectrpc/connect";
import type { SandboxdError } from "../../errors.ts";
import type { Calls } from "../calls.ts";
import { callIsOver, callsKey, createCalls } from "../calls.ts";
import { encodeError } from "../error-encoding.ts";
import { interruption } from "../error-translation.ts";
import { passedOn } from "../iterable.ts";

/**
 * Gives handlers a signal that aborts with a SandboxdError: DEADLINE_EXCEEDED, CANCELED, or SHUTTING_DOWN (streams as
 * soon as the listener stops, other calls when its grace has run out).
 */
export function createDeadlineInterceptor(): Interceptor {
  const detached = createCalls();
  return (next) => async (request) => {
    const call = beginCall(
      request.signal,
      request.contextValues.get(callsKey) ?? detached,
      request.method.methodKind !== "unary",
    );
    try {
      const response = await call.orInterrupted(next({ ...request, signal: call.signal }));
      if (response.stream) {
        return { ...response, message: guarded(response.message, call) };
      }
      call.leave();
      return response;
    } catch (error) {
      call.leave();
      throw error;
    }
  };
}

interface InterruptibleCall {
  readonly signal: AbortSignal;
  /** The promise's outcome, or the error of an interruption that comes first. */
  orInterrupted<T>(promise: Promise<T>): Promise<T>;
  /** The call is over: nothing interrupts it any more. */
  leave(): void;
  /** The caller takes no more: the handler is told, and the call is over. */
  abandon(): void;
}

function beginCall(requestSignal: AbortSignal, calls: Calls, stream: boolean): InterruptibleCall {
  const controller = new AbortController();
  let rejectPending: ((error: unknown) => void) | undefined;
  let failure: Error | undefined;
  const end = (error: SandboxdError): void => {
    leave();
    failure = encodeError(error);
    controller.abort(error);
    rejectPending?.(failure);
  };
  const onAbort = (): void => end(interruption(requestSignal.reason));
  let leaveCalls: () => void;
  try {
    leaveCalls = calls.enter({ stream, end });
  } catch (error) {
    throw encodeError(error as SandboxdError);
  }
  function leave(): void {
    leaveCalls();
    requestSignal.removeEventListener("abort", onAbort);
  }
  requestSignal.addEventListener("abort", onAbort);
  if (requestSignal.aborted) {
    onAbort();
  }
  return {
    signal: controller.signal,
    orInterrupted: (promise) =>
      new Promise((resolve, reject) => {
        rejectPending = reject;
        promise.then(resolve, reject);
        if (failure !== undefined) {
          reject(failure);
        }
      }),
    leave,
    abandon() {
      leave();
      controller.abort(callIsOver);
    },
  };
}

function guarded<T>(source: AsyncIterable<T>, call: InterruptibleCall): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = source[Symbol.asyncIterator]();
      const { return: passReturn, throw: passThrow } = passedOn(iterator);
      return {
        async next() {
          try {
            const result = await call.orInterrupted(iterator.next());
            if (result.done === true) {
              call.leave();
            }
            return result;
          } catch (error) {
            call.leave();
            throw error;
          }
        },
        return(value) {
          call.abandon();
          return passReturn(value);
        },
        throw(error) {
          call.abandon();
          return passThrow(error);
        },
      };
    },
  };
}
