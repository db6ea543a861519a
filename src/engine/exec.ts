// Runs a command inside a container: no stdin, bounded output, a time after which everything that it started is killed.

import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type Docker from "dockerode";
import type { ExecInspectInfo } from "dockerode";
import { SandboxdError } from "../errors.ts";
import { type Attempt, engineError } from "./calls.ts";
import { readFrames } from "./log-stream.ts";
import type { ExecRequest, ExecResult, Waiting } from "./runtime.ts";
import { killStartedBy } from "./started-by.ts";

export interface ExecClients {
  /** For calls. */
  readonly docker: Docker;
  /** For the output, which holds a connection as long as the command runs. */
  readonly streaming: Docker;
  readonly attempt: Attempt;
}

/** A command that writes more is ended: reading on would be work for nothing, and not reading would hang it. */
const mostReadBytes = 1_024 * 1_024;

/** How long the engine may take to know of a command's beginning, or of its end: 1 s, and its answers' time. */
const mostLooks = 100;
const lookEveryMs = 10;

/** See `Runtime.exec`. */
export async function runExec(
  { docker, streaming, attempt }: ExecClients,
  containerId: string,
  request: ExecRequest,
  options: Waiting = {},
): Promise<ExecResult> {
  try {
    const { id } = await attempt(
      "exec",
      (abortSignal) =>
        docker.getContainer(containerId).exec({
          Cmd: [...request.command],
          User: request.user,
          WorkingDir: request.workingDir,
          Env: [],
          AttachStdin: false,
          AttachStdout: true,
          AttachStderr: true,
          Tty: false,
          Privileged: false,
          abortSignal,
        }),
      options,
    );
    // from here on no signal is heeded but by killing: the engine forgets an exec only after it ended
    const exec = streaming.getExec(id);
    const stream: Readable = await attempt("exec", (abortSignal) =>
      exec.start({ Detach: false, Tty: false, abortSignal }),
    );
    const read = await readWithin(stream, request, options.signal);
    if (read.end !== "complete") {
      await endExec({ docker, attempt }, containerId, id);
      options.signal?.throwIfAborted();
      return { kind: read.end, output: read.output };
    }
    return { kind: "ended", exitCode: await exitCodeOf({ docker, attempt }, id), output: read.output };
  } catch (error) {
    options.signal?.throwIfAborted();
    throw engineError("exec", error);
  }
}

interface Read {
  readonly end: "complete" | "timeout" | "excess";
  readonly output: Buffer;
}

/** Reads until the end, the timeout, the signal (told as a timeout), or the most that is read. Closes the stream. */
async function readWithin(
  stream: Readable,
  { maxOutputBytes, timeoutMs }: ExecRequest,
  signal: AbortSignal | undefined,
): Promise<Read> {
  let end: Read["end"] = "complete";
  const stop = () => {
    end = "timeout";
    stream.destroy();
  };
  const timer = setTimeout(stop, timeoutMs);
  signal?.addEventListener("abort", stop, { once: true });
  if (signal?.aborted) stop();
  const kept: Buffer[] = [];
  let keptBytes = 0;
  let readBytes = 0;
  try {
    for await (const { payload } of readFrames(stream)) {
      const part = payload.subarray(0, maxOutputBytes - keptBytes);
      if (part.length > 0) kept.push(Buffer.from(part));
      keptBytes += part.length;
      readBytes += payload.length;
      if (readBytes > mostReadBytes) {
        end = "excess";
        break;
      }
    }
  } catch (error) {
    if (end === "complete") throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    stream.destroy();
  }
  return { end, output: Buffer.concat(kept) };
}

type Asking = Pick<ExecClients, "docker" | "attempt">;

const inspectExec = ({ docker, attempt }: Asking, id: string) =>
  attempt("inspect", (abortSignal) => docker.getExec(id).inspect({ abortSignal }));

/** The engine knows of the end a moment after the output's. */
async function exitCodeOf(asking: Asking, id: string): Promise<number> {
  for (let look = 0; look < mostLooks; look++) {
    const { Running: isRunning, ExitCode: code } = await inspectExec(asking, id);
    if (!isRunning && code !== null) return code;
    await sleep(lookEveryMs);
  }
  throw new SandboxdError("ENGINE_FAILED", `engine exec: ${id} closed its output, and did not end`);
}

/**
 * Kills what the exec started; the engine has no verb for it. An engine that is slow may begin it only now.
 *
 * @throws SandboxdError ENGINE_TIMEOUT if it had not begun yet.
 */
async function endExec(asking: Asking, containerId: string, id: string): Promise<void> {
  const first = await inspectExec(asking, id);
  let now = first;
  for (let look = 0; look < mostLooks && isYetToBegin(now); look++) {
    await sleep(lookEveryMs);
    now = await inspectExec(asking, id);
  }
  const { State: state } = await asking.attempt("inspect", (abortSignal) =>
    asking.docker.getContainer(containerId).inspect({ abortSignal }),
  );
  const { Pid: leader } = now;
  if (leader > 0 && state.Pid > 0) await killStartedBy({ leader, containerPid: state.Pid, containerId });
  if (isYetToBegin(first)) {
    throw new SandboxdError("ENGINE_TIMEOUT", "engine exec: the command did not begin within its own time");
  }
}

const isYetToBegin = ({ Pid: pid, ExitCode: code }: ExecInspectInfo): boolean => pid === 0 && code === null;
