// What goes wrong in a step of a backend, in the catalogue's words.

import { SandboxdError } from "../../errors.ts";
import { spaceFailed, ToolError } from "./tool.ts";

/** Runs a step. What it rejects with becomes an error of the catalogue: no room on the host is a limit that cannot be held. */
export async function failing<T>(what: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    throw isNoRoom(error)
      ? unenforceable(`${what}: ${error.message}`, noRoomHint, error)
      : spaceFailed(what, error);
  }
}

/** A limit that cannot be held. */
export function unenforceable(message: string, hint: string, cause?: unknown): SandboxdError {
  return new SandboxdError("LIMIT_UNENFORCEABLE", message, { hint, cause });
}

/** A space that is there, and cannot be used. */
export function unavailable(what: string, cause?: unknown): SandboxdError {
  return new SandboxdError("WORKSPACE_UNAVAILABLE", what, { hint: unavailableHint, cause });
}

/** Whether something is not there. */
export function isGone(error: unknown): boolean {
  return codeOf(error) === "ENOENT";
}

export function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

const noRoomHint =
  "the host's file system for workspaces is full, or has no inodes left: free some of it, or ask for less";

const unavailableHint =
  "its snapshots may still be whole; what is left of it can be looked at on the host, or removed with it";

function isNoRoom(error: unknown): error is Error {
  if (error instanceof ToolError) return /No space left on device|Disk quota exceeded/.test(error.said);
  return ["ENOSPC", "EDQUOT"].includes(String(codeOf(error)));
}
