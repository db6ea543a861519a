// How many streaming calls one caller may have open at once, over all its sessions.
import type { Interceptor } from "@connectrpc/connect";
import { SandboxdError } from "../../errors.ts";
import { callerKey } from "../caller.ts";
import { observed } from "../iterable.ts";
import type { ApiMetrics } from "../ports.ts";

/** Refuses one stream too many with TOO_MANY_STREAMS. */
export function createStreamLimitInterceptor(streamsPerCaller: number, metrics: ApiMetrics): Interceptor {
  const open = new Map<string, number>();
  function enter(identity: string): () => void {
    const count = open.get(identity) ?? 0;
    if (count >= streamsPerCaller) {
      throw new SandboxdError(
        "TOO_MANY_STREAMS",
        `"${identity}" has ${count} streams open, the most allowed.`,
        {
          hint: "End streams that nobody reads.",
          metadata: { limit: String(streamsPerCaller) },
        },
      );
    }
    open.set(identity, count + 1);
    metrics.streamsChanged(1);
    return () => {
      const left = (open.get(identity) ?? 1) - 1;
      if (left > 0) {
        open.set(identity, left);
      } else {
        open.delete(identity);
      }
      metrics.streamsChanged(-1);
    };
  }
  return (next) => async (request) => {
    if (!request.stream) {
      return next(request);
    }
    const leave = once(enter(request.contextValues.get(callerKey)?.identity ?? ""));
    request.signal.addEventListener("abort", leave, { once: true });
    try {
      const response = await next(request);
      return response.stream ? { ...response, message: observed(response.message, leave) } : response;
    } catch (error) {
      leave();
      throw error;
    }
  };
}

function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (!done) {
      done = true;
      action();
    }
  };
}
