// Who called what, how it ended, how long it took: a metric for every call, an audit line for every mutating one, or one for several
// where they come by the hundred. Never bodies: a request's environment and arguments may be secrets.

import type { Interceptor } from "@connectrpc/connect";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Logger } from "pino";
import { callerKey } from "../caller.ts";
import { reasonOf, shortened, statusName } from "../error-encoding.ts";
import type { StreamEnd } from "../iterable.ts";
import { observed, withFirst } from "../iterable.ts";
import { isReadOnly, methodName } from "../method.ts";
import type { ApiMetrics } from "../ports.ts";
import { isOften, type RepeatedCalls } from "./repeated-calls.ts";

const idMaxLength = 64;

/** Outermost: sees every call that reaches the interceptors, and the error as the caller gets it. */
export function createAccessInterceptor(
  log: Logger,
  metrics: ApiMetrics,
  repeated: RepeatedCalls,
): Interceptor {
  return (next) => async (request) => {
    const begun = performance.now();
    const method = methodName(request.method);
    const audited = !isReadOnly(request.method);
    /** What is asked; of a stream, its first message, which says about what it is. */
    let asked: unknown = request.stream ? undefined : request.message;
    const passed = request.stream
      ? { ...request, message: withFirst(request.message, (first) => (asked = first)) }
      : request;
    function ended(end: StreamEnd, response?: unknown): void {
      const durationMs = performance.now() - begun;
      const { code, reason } = outcome(end);
      metrics.callEnded(method, code, durationMs / 1000);
      if (!audited && !log.isLevelEnabled("debug")) {
        return;
      }
      const caller = request.contextValues.get(callerKey);
      const sandboxId = idOf(asked, "sandbox") ?? idOf(response, "sandbox");
      const processId = idOf(asked, "process") ?? idOf(response, "process");
      const workspaceId = idOf(asked, "workspace") ?? idOf(response, "workspace");
      const tenant = tenantOf(asked);
      const line = {
        audit: audited,
        method,
        caller: caller?.identity,
        role: caller?.role,
        code,
        ...(reason === undefined ? {} : { reason }),
        ...(sandboxId === undefined ? {} : { sandbox_id: sandboxId }),
        ...(processId === undefined ? {} : { process_id: processId }),
        ...(workspaceId === undefined ? {} : { workspace_id: workspaceId }),
        ...(tenant === undefined ? {} : { tenant }),
        duration_ms: Math.round(durationMs * 1000) / 1000,
      };
      if (isOften(request.method) && end.kind === "done") {
        repeated.add(JSON.stringify([method, line.caller, line.role, sandboxId, processId]), line);
      } else {
        log[audited ? "info" : "debug"](line, "call");
      }
    }
    try {
      const response = await next(passed);
      if (response.stream) {
        return { ...response, message: observed(response.message, (end) => ended(end)) };
      }
      ended({ kind: "done" }, response.message);
      return response;
    } catch (error) {
      ended({ kind: "failed", error });
      throw error;
    }
  };
}

function outcome(end: StreamEnd): { readonly code: string; readonly reason: string | undefined } {
  switch (end.kind) {
    case "done":
      return { code: "ok", reason: undefined };
    case "returned":
      return { code: "canceled", reason: "CANCELED" };
    case "failed": {
      const error = ConnectError.from(end.error, Code.Internal);
      return { code: statusName(error.code), reason: reasonOf(error) };
    }
  }
}

/** The tenant that a request names. */
function tenantOf(message: unknown): string | undefined {
  if (typeof message !== "object" || message === null || !("tenant" in message)) return undefined;
  const { tenant } = message;
  return typeof tenant === "string" && tenant !== "" ? shortened(tenant, idMaxLength) : undefined;
}

/** What a message is about: its own `sandbox_id`, `process_id` or `workspace_id`, or that of the one in it. */
function idOf(message: unknown, kind: "sandbox" | "process" | "workspace"): string | undefined {
  if (typeof message !== "object" || message === null) return undefined;
  const fields = message as Readonly<Record<string, unknown>>;
  const { part } = fields as { readonly part?: { readonly value?: unknown } };
  if (part !== undefined) return idOf(part.value, kind);
  const id = fields[`${kind}Id`];
  if (typeof id === "string" && id !== "") return shortened(id, idMaxLength);
  return fields[kind] === undefined ? undefined : idOf(fields[kind], kind);
}
