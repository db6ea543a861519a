// How processes are refused: the words of each error, and what those of the kernel inside mean to a caller.

import { constants } from "node:os";
import { SandboxdError } from "../errors.ts";
import { garbled } from "../toolbox/protocol.ts";
import { printable } from "../workspace/archive/names.ts";
import type { ProcessRecord } from "./record.ts";

/** Where two names have one number, the first is the usual one: EAGAIN is EWOULDBLOCK too. */
const names = new Map(
  Object.entries(constants.errno)
    .reverse()
    .map(([name, number]) => [number, name]),
);

export const errnoName = (errno: number): string => names.get(errno) ?? `errno ${errno}`;

export function processNotFound(sandboxId: string, processId: string): SandboxdError {
  return new SandboxdError("PROCESS_NOT_FOUND", `sandbox "${sandboxId}" has no process "${processId}"`, {
    hint: "ListProcesses tells which there are; ends are retained for [processes] exit_retention",
    metadata: { sandbox_id: sandboxId, process_id: processId },
  });
}

export function processExists(sandboxId: string, processId: string): SandboxdError {
  return new SandboxdError(
    "PROCESS_ALREADY_EXISTS",
    `sandbox "${sandboxId}" has a process "${processId}" of another request`,
    { hint: "use another process_id", metadata: { sandbox_id: sandboxId, process_id: processId } },
  );
}

export function processEnded({ id, sandboxId }: Pick<ProcessRecord, "id" | "sandboxId">): SandboxdError {
  return new SandboxdError("INVALID_STATE", `process "${id}" of sandbox "${sandboxId}" has ended`, {
    hint: "GetProcess tells how",
    metadata: { sandbox_id: sandboxId, process_id: id, state: "EXITED" },
  });
}

export function sandboxNotRunning(sandboxId: string, state: string): SandboxdError {
  return new SandboxdError("INVALID_STATE", `sandbox "${sandboxId}" is ${state}`, {
    hint: "processes can be started in one that is RUNNING",
    metadata: { sandbox_id: sandboxId, state },
  });
}

/** What the sandbox allows itself, in processes and threads. */
function outOfPids(sandboxId: string, limit: number): SandboxdError {
  return new SandboxdError(
    "PROCESS_LIMIT_REACHED",
    `sandbox "${sandboxId}" is at its limit of ${limit} processes and threads (resources.pids)`,
    {
      hint: "end some of its processes, or raise resources.pids by UpdateSandbox",
      quotas: [{ level: "SANDBOX", resource: "pids", limit, promised: limit, asked: 1, free: 0 }],
    },
  );
}

export function tooManyRunning(sandboxId: string, limit: number): SandboxdError {
  return new SandboxdError(
    "PROCESS_LIMIT_REACHED",
    `${limit} processes run in sandbox "${sandboxId}", the most that [processes] max_running allows`,
    {
      hint: "wait for some to end, or end them by SignalProcess",
      quotas: [{ level: "SANDBOX", resource: "processes", limit, promised: limit, asked: 1, free: 0 }],
    },
  );
}

export interface KeeperRefusal {
  readonly errno: number;
  readonly operation: string;
}

export interface Refused {
  readonly sandboxId: string;
  readonly processId: string;
  readonly executable: string;
  readonly workingDir: string;
  /** Of the sandbox. */
  readonly pidsLimit: number;
}

/** Why a process did not start. */
export function startRefusal({ errno, operation }: KeeperRefusal, asked: Refused): SandboxdError {
  const why = errnoName(errno);
  if (operation === "directory") return directoryRefusal(why, asked.workingDir);
  if (why === "EAGAIN" || why === "ENOMEM") return outOfPids(asked.sandboxId, asked.pidsLimit);
  if (operation === "exec") return commandRefusal(why, asked);
  if (why === "EEXIST") return processExists(asked.sandboxId, asked.processId);
  if (operation === "terminal") {
    return new SandboxdError("TOOLBOX_UNAVAILABLE", `no terminal can be had inside of the sandbox: ${why}`, {
      metadata: { errno: why },
    });
  }
  return garbled(`it refuses with ${why} of "${printable(operation, 32)}"`);
}

function commandRefusal(why: string, { executable, sandboxId }: Refused): SandboxdError {
  const meaning =
    why === "ENOENT"
      ? "there is no such executable"
      : why === "EACCES" || why === "EPERM"
        ? "it is not to be executed"
        : "it cannot be executed";
  return new SandboxdError(
    "COMMAND_UNUSABLE",
    `command "${executable.slice(0, 256)}" in sandbox "${sandboxId}": ${meaning} (${why})`,
    {
      hint: "the image must have it, executable by the sandbox's user; PATH is that of the sandbox unless env says otherwise",
      metadata: { errno: why },
    },
  );
}

function directoryRefusal(why: string, workingDir: string): SandboxdError {
  const field = "working_dir";
  const told = (description: string) => ({
    fields: [{ field, description }],
    metadata: { errno: why, path: workingDir.slice(0, 1_024) },
  });
  const text = `${field}: "${workingDir.slice(0, 256)}"`;
  switch (why) {
    case "ENOENT":
      return new SandboxdError("FILE_NOT_FOUND", `${text} does not exist`, told("does not exist"));
    case "EACCES":
    case "EPERM":
      return new SandboxdError(
        "FILE_NOT_ALLOWED",
        `${text} may not be entered by the sandbox's user`,
        told("may not be entered"),
      );
    case "ENOTDIR":
    case "ELOOP":
      return new SandboxdError("FILE_WRONG_TYPE", `${text} is no directory`, told("is no directory"));
    default:
      return new SandboxdError("FILE_FAILED", `${text} cannot be entered: ${why}`, told("cannot be entered"));
  }
}

export function inputClosed({ id, sandboxId }: ProcessRecord): SandboxdError {
  return new SandboxdError(
    "INVALID_STATE",
    `the input of process "${id}" of sandbox "${sandboxId}" is closed, or was never asked for`,
    { hint: "start it with input or with a terminal", metadata: { sandbox_id: sandboxId, process_id: id } },
  );
}
