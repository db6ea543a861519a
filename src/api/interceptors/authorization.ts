// Who may call what: viewers whatever has no side effects, schedulers and operators everything.
import type { Interceptor } from "@connectrpc/connect";
import { SandboxdError } from "../../errors.ts";
import { assertAuthenticated, callerKey } from "../caller.ts";
import { isReadOnly, methodName } from "../method.ts";

/** Refuses callers that are unknown (UNAUTHENTICATED) or whose role does not allow the method (ROLE_NOT_ALLOWED). */
export function createAuthorizationInterceptor(): Interceptor {
  return (next) => async (request) => {
    const caller = request.contextValues.get(callerKey);
    assertAuthenticated(caller, Date.now());
    if (caller.role === undefined) {
      throw new SandboxdError("ROLE_NOT_ALLOWED", `The certificate of "${caller.identity}" grants no role.`, {
        hint: "Name one role in it: a URI sandboxd://role/scheduler, operator or viewer, or that word as its OU.",
      });
    }
    if (caller.role === "viewer" && !isReadOnly(request.method)) {
      throw new SandboxdError(
        "ROLE_NOT_ALLOWED",
        `The role viewer of "${caller.identity}" does not allow ${methodName(request.method)}.`,
        { hint: "Call as scheduler or operator." },
      );
    }
    return next(request);
  };
}
