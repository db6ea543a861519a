// Every error leaves a call in the form of the contract, wherever in the call it was thrown.
import type { Interceptor } from "@connectrpc/connect";
import type { Logger } from "pino";
import { translateError } from "../error-translation.ts";
import { observed } from "../iterable.ts";
import { methodName } from "../method.ts";

/** Translates what handlers and the interceptors inside of this one throw. */
export function createErrorInterceptor(log: Logger): Interceptor {
  return (next) => async (request) => {
    const translate = (thrown: unknown) =>
      translateError(thrown, request.signal, methodName(request.method), log);
    try {
      const response = await next(request);
      return response.stream
        ? { ...response, message: observed(response.message, () => {}, translate) }
        : response;
    } catch (thrown) {
      throw translate(thrown);
    }
  };
}
