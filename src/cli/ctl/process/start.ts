// Starts a process for exec and shell, and stays with it.

import { randomBytes } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  OutputMode,
  ProcessService,
  type StartProcessRequestSchema,
} from "../../../../gen/sandboxd/v1/process_service_pb.ts";
import { type Arguments, optionValue, pairsOf } from "../arguments.ts";
import { CommandFailed, type Context } from "../context.ts";
import { metadataOf, reasonOf } from "../failure.ts";
import { printable } from "../text.ts";
import { parseDurationMs } from "../units.ts";
import { unusableCode } from "../unusable.ts";
import { defaultDetachKeys, parseDetachKeys } from "./detach-keys.ts";
import { runSession, type SessionEnd } from "./session.ts";
import { terminalSize } from "./terminal.ts";

/** For a program whose output is piped, as long as the contract allows: it waits as it would for a pipe. */
const longestWait = { seconds: 3_600n };

export interface StartOptions {
  readonly sandboxId: string;
  readonly command: readonly string[];
  readonly interactive: boolean;
  readonly tty: boolean;
}

type Request = MessageInitShape<typeof StartProcessRequestSchema>;

/** From the options that exec and shell share. The id is the caller's in any case, so that a start can be asked for again. */
export function startRequest(
  context: Context,
  args: Arguments,
  options: StartOptions,
): Request & { processId: string } {
  const { sandboxId, command, interactive, tty } = options;
  const timeout = optionValue(args, "timeout");
  return {
    sandboxId,
    processId: optionValue(args, "id") ?? `ctl-${randomBytes(6).toString("hex")}`,
    command: [...command],
    env: pairsOf(args, "env", (key) => context.env[key]),
    workingDir: optionValue(args, "workdir") ?? "",
    input: interactive,
    outputMode: OutputMode.WAIT,
    ...(timeout === undefined ? {} : { timeout: durationFromMs(parseDurationMs(timeout, "--timeout")) }),
    ...(tty ? { terminal: terminalSize() ?? {} } : { maxWait: longestWait }),
  };
}

/** Runs it to its end, or until it is left; resolves to the exit code. @throws CommandFailed 126 or 127 if it cannot be started. */
export async function runProcess(
  context: Context,
  args: Arguments,
  request: ReturnType<typeof startRequest>,
  { interactive, tty }: Pick<StartOptions, "interactive" | "tty">,
): Promise<number> {
  const client = context.client(ProcessService);
  const { sandboxId = "", processId } = request;
  const detachKeys = parseDetachKeys(optionValue(args, "detach-keys") ?? defaultDetachKeys);
  try {
    const end = await runSession(context, {
      client,
      sandboxId,
      processId,
      input: interactive ? { offset: 0n } : undefined,
      tty,
      detachKeys,
      isOwn: true,
      open: (after, signal) =>
        after === undefined
          ? client.startProcess(request, { signal })
          : client.connectProcess({ sandboxId, processId, afterSequence: after }, { signal }),
    });
    return exitCodeOf(context, end, processId);
  } catch (error) {
    throw startFailure(error);
  }
}

/** Starts it and leaves it. @throws CommandFailed as runProcess */
export async function startDetached(
  context: Context,
  request: ReturnType<typeof startRequest>,
): Promise<void> {
  const leaving = new AbortController();
  try {
    const stream = context.client(ProcessService).startProcess(request, { signal: leaving.signal });
    for await (const { event } of stream) if (event?.event.case === "started") break;
  } catch (error) {
    throw startFailure(error);
  } finally {
    leaving.abort();
  }
}

export function exitCodeOf(context: Context, end: SessionEnd, processId: string): number {
  switch (end.kind) {
    case "exited":
      if (end.exit?.oomKilled === true) context.warn("sandboxctl: killed at the sandbox's memory limit");
      return end.exit?.exitCode ?? 255;
    case "detached":
      context.warn(`sandboxctl: left running as ${printable(processId)}`);
      return 0;
    default:
      return end satisfies never;
  }
}

function startFailure(error: unknown): unknown {
  if (!isUnusable(error)) return error;
  const message = error instanceof Error && "rawMessage" in error ? String(error.rawMessage) : String(error);
  const said = message.replace(/\.?\nHint: [\s\S]*$/, "");
  return new CommandFailed(`${said} (COMMAND_UNUSABLE)`, { exitCode: unusableCode(said, metadataOf(error)) });
}

/** Whether there is no such command, or it is none. */
export function isUnusable(error: unknown): boolean {
  return error instanceof CommandFailed
    ? [126, 127].includes(error.exitCode)
    : reasonOf(error) === "COMMAND_UNUSABLE";
}
