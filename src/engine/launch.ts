// Starts a program inside a container that goes on by itself, and says why it could not.

import type { Readable } from "node:stream";
import { messageOf, SandboxdError } from "../errors.ts";
import { engineError, statusOf } from "./calls.ts";
import type { ExecClients } from "./exec.ts";
import type { LaunchRequest, Waiting } from "./runtime.ts";

/** See `Runtime.launch`. */
export async function launchExec(
  { docker, attempt }: Pick<ExecClients, "docker" | "attempt">,
  containerId: string,
  { command, user, workingDir }: LaunchRequest,
  options: Waiting = {},
): Promise<void> {
  const wanted = {
    Cmd: [...command],
    User: user,
    WorkingDir: workingDir,
    Env: [],
    AttachStdin: false,
    AttachStdout: false,
    AttachStderr: false,
    Tty: false,
    Privileged: false,
  };
  try {
    const { id } = await attempt(
      "exec",
      (abortSignal) => docker.getContainer(containerId).exec({ ...wanted, abortSignal }),
      options,
    );
    // not to be given up half-way: the engine keeps what was created until it has ended
    const answer: Readable = await attempt("exec", (abortSignal) =>
      docker.getExec(id).start({ Detach: true, Tty: false, abortSignal }),
    );
    // it is empty, and the connection is free once it was read
    answer.resume();
  } catch (error) {
    options.signal?.throwIfAborted();
    throw launchFailure(containerId, error);
  }
}

/** What the runtime says when it cannot fork in the container, or its own process there cannot go on. */
const outOfProcesses =
  /resource temporarily unavailable|procReady|cannot fork|can't fork|fork\/exec|read init-p|pthread_create|newosproc/i;
const notRunning =
  /is not running|is paused|is restarting|container stopped|cannot exec in a (stopped|paused)/i;

export function launchFailure(containerId: string, error: unknown): SandboxdError {
  if (statusOf(error) === undefined) return engineError("exec", error);
  // the client puts its own guess at what a status means before the engine's words
  const message = messageOf(error).replace(/^\(HTTP code \d+\) .*? - /, "");
  if (statusOf(error) === 404 || notRunning.test(message)) {
    const state = /is paused|a paused/.test(message) ? "PAUSED" : "STOPPED";
    return new SandboxdError("INVALID_STATE", `container ${containerId} does not run: ${message}`, {
      hint: "start or resume the sandbox first",
      metadata: { state },
      cause: error,
    });
  }
  if (outOfProcesses.test(message)) {
    return new SandboxdError("PROCESS_LIMIT_REACHED", `no process can be started inside: ${message}`, {
      hint: "end some of the sandbox's processes, or raise its pids limit",
      cause: error,
    });
  }
  return new SandboxdError("TOOLBOX_UNAVAILABLE", `the toolbox cannot be started inside: ${message}`, {
    hint: "see whether the state directory is on a file system that is mounted noexec, and CheckHost",
    cause: error,
  });
}
