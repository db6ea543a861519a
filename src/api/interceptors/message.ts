// What a request says must be in the contract and within its bounds before a handler sees it.
import type { Message } from "@bufbuild/protobuf";
import type { Interceptor } from "@connectrpc/connect";
import { checked } from "../iterable.ts";
import { isReadOnly } from "../method.ts";
import { assertNoUnknownFields, type MessageCheck } from "../validation.ts";

/** Refuses INVALID_FIELD, and on calls that change something MALFORMED_MESSAGE for fields that are not in the contract. */
export function createMessageInterceptor(checkRules: MessageCheck): Interceptor {
  return (next) => async (request) => {
    const { input } = request.method;
    const strict = !isReadOnly(request.method);
    function check(message: Message): void {
      if (strict) {
        assertNoUnknownFields(input, message);
      }
      checkRules(input, message);
    }
    if (request.stream) {
      return next({ ...request, message: checked(request.message, check) });
    }
    check(request.message);
    return next(request);
  };
}
