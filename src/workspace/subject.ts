// What all verbs of workspaces share: refusing what a workspace's state, owner or generation forbids, and waiting no longer than the caller does.

import { SandboxdError } from "../errors.ts";
import type { WorkspaceRecord } from "./record.ts";

/** @throws SandboxdError INVALID_STATE or WORKSPACE_UNAVAILABLE unless it is READY. */
export function assertUsable({ id, state, message }: WorkspaceRecord): void {
  if (state === "READY") return;
  const reason = state === "UNAVAILABLE" ? "WORKSPACE_UNAVAILABLE" : "INVALID_STATE";
  const why = message === "" ? "" : `: ${message}`;
  throw new SandboxdError(reason, `workspace "${id}" is ${state}${why}`, { metadata: { state } });
}

/** Waits no longer than its caller does. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

export function checkGeneration(
  { id, generation: present }: WorkspaceRecord,
  given: number | undefined,
): void {
  if (given === undefined || given === present) return;
  throw new SandboxdError(
    "GENERATION_MISMATCH",
    `workspace "${id}" has generation ${present}, not ${given}`,
    {
      hint: "get it again and decide anew",
      metadata: { workspace_id: id, generation: String(present) },
    },
  );
}

export function notFound(id: string): SandboxdError {
  return new SandboxdError("WORKSPACE_NOT_FOUND", `there is no workspace "${id}"`, {
    metadata: { workspace_id: id },
  });
}

export function taken(id: string): SandboxdError {
  return new SandboxdError("WORKSPACE_ALREADY_EXISTS", `workspace_id "${id}" is in use by another request`, {
    hint: "use another id, or delete that workspace first",
    metadata: { workspace_id: id },
  });
}

/** Whether a step of a backend failed with nothing changed. */
export function isRefusal(error: unknown): boolean {
  if (!(error instanceof SandboxdError)) return false;
  return error.reason === "LIMIT_UNENFORCEABLE" || error.reason === "WORKSPACE_IN_USE";
}
