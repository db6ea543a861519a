// One process and this program's standard streams, from its start, or from where it is, until it ends or is left.

import type { Client } from "@connectrpc/connect";
import type { Process, ProcessEvent, ProcessExit } from "../../../../gen/sandboxd/v1/process_pb.ts";
import type { ProcessService } from "../../../../gen/sandboxd/v1/process_service_pb.ts";
import { OutputClosed } from "../byte-output.ts";
import type { Context } from "../context.ts";
import { failureLines, reasonOf } from "../failure.ts";
import { createRetry } from "../reconnect.ts";
import { createDetachFilter } from "./detach-keys.ts";
import { processEvents } from "./events.ts";
import { sendInput } from "./input.ts";
import { passSignals } from "./signals.ts";
import { makeRaw, onResize, type RawTerminal, resetModes, type TerminalSize } from "./terminal.ts";

export interface SessionOptions {
  readonly client: Client<typeof ProcessService>;
  readonly sandboxId: string;
  readonly processId: string;
  /** See EventsOptions. */
  readonly open: (
    after: bigint | undefined,
    signal: AbortSignal,
  ) => AsyncIterable<{ readonly event?: ProcessEvent }>;
  /** Whether standard input is passed on, from this offset. Undefined: it is not read. */
  readonly input: { readonly offset: bigint } | undefined;
  /** Whether the process has a terminal. */
  readonly tty: boolean;
  readonly detachKeys: Uint8Array;
  /**
   * Whether this session starts the process: then nothing is sent to it before it is told to have started, and it is told by SIGPIPE when
   * nobody reads its output any more.
   */
  readonly isOwn: boolean;
  /** What the terminal is painted with first. */
  readonly screen?: string;
}

/** How a session ended. */
export type SessionEnd =
  | { readonly kind: "exited"; readonly exit: ProcessExit | undefined }
  | { readonly kind: "detached" };

/** Throws what the start, or the connection, failed with; OutputClosed when the reader of standard output is gone. */
export async function runSession(context: Context, options: SessionOptions): Promise<SessionEnd> {
  const ending = new AbortController();
  const { signal } = ending;
  let raw: RawTerminal | undefined;
  // in a raw terminal a line begins where the one above ended
  const told = {
    ...context,
    warn: (line: string) => context.warn(raw === undefined ? line : `\r\n${line}\r`),
  };
  const detached = Promise.withResolvers<SessionEnd>();
  const parts = partsOf(told, options, signal, () => detached.resolve({ kind: "detached" }));
  const begin = () => {
    // not before: until the process is there, Ctrl-C is for this program
    if (options.tty && options.input !== undefined && process.stdin.isTTY) raw ??= makeRaw();
    parts.begin();
  };
  if (!options.isOwn) begin();
  const output = (async (): Promise<SessionEnd> => {
    if (options.screen !== undefined) await context.stdout.write(options.screen);
    const events = processEvents(told, { open: (after) => options.open(after, signal), signal });
    for await (const event of events) {
      begin();
      await writeEvent(told, event);
      if (event.event.case === "exited") return { kind: "exited", exit: event.event.value.exit };
    }
    throw new Error("a process without an end");
  })();
  try {
    return await Promise.race([output, detached.promise]);
  } catch (error) {
    // as a local program that writes to nobody
    if (options.isOwn && error instanceof OutputClosed) await parts.signalProcess("SIGPIPE");
    throw error;
  } finally {
    output.catch(() => {});
    ending.abort();
    if (raw !== undefined) {
      raw.restore();
      if (process.stdout.isTTY) await context.stdout.write(resetModes).catch(() => {});
    }
  }
}

async function writeEvent(context: Context, { event }: ProcessEvent): Promise<void> {
  switch (event.case) {
    case "stdout":
    case "terminal":
      return await context.stdout.write(event.value);
    case "stderr":
      return await context.stderr.write(event.value);
    case "gap":
      return context.warn(`sandboxctl: ${event.value.droppedBytes} bytes of output are missing here`);
    case "started":
    case "keepalive":
    case "exited":
    case undefined:
      return;
    default:
      return event satisfies never;
  }
}

interface Parts {
  /** Once the process is known to be there. Further calls do nothing. */
  begin(): void;
  signalProcess(name: string): Promise<void>;
}

/** Input, signals and sizes: everything that goes to the process. */
function partsOf(context: Context, options: SessionOptions, signal: AbortSignal, detach: () => void): Parts {
  const { client, sandboxId, processId, input, tty, detachKeys } = options;
  const ids = { sandboxId, processId };
  const started = Promise.withResolvers<void>();
  const warnOf = (error: unknown) => {
    if (signal.aborted || isTooLate(error)) return;
    for (const line of failureLines(error, context.host)) context.warn(line);
  };

  /** Again while the daemon is away. */
  async function call(ask: () => Promise<unknown>): Promise<void> {
    const retry = createRetry({ signal, everReached: true });
    await started.promise;
    while (!signal.aborted) {
      try {
        await ask();
        return;
      } catch (error) {
        if (!(await retry.after(error))) return warnOf(error);
      }
    }
  }

  const signalProcess = (name: string) =>
    call(() => client.signalProcess({ ...ids, signal: name }, { signal }));
  if (tty)
    onResize(
      latestOnly((size) => call(() => client.resizeTerminal({ ...ids, size }, { signal }))),
      signal,
    );
  else passSignals((name) => void signalProcess(name), signal);

  let hasBegun = false;
  return {
    begin() {
      if (hasBegun) return;
      hasBegun = true;
      started.resolve();
      if (input === undefined) return;
      const source = tty ? withoutDetachKeys(process.stdin, detachKeys, detach) : process.stdin;
      sendInput({ client, ...ids, ...input, source, closes: !tty, signal }).catch(warnOf);
    },
    signalProcess,
  };
}

/** What was to be told to a process that ended meanwhile. */
function isTooLate(error: unknown): boolean {
  return ["INVALID_STATE", "PROCESS_NOT_FOUND", "SANDBOX_NOT_FOUND"].includes(reasonOf(error) ?? "");
}

async function* withoutDetachKeys(
  source: AsyncIterable<Uint8Array>,
  keys: Uint8Array,
  detach: () => void,
): AsyncGenerator<Uint8Array> {
  const filter = createDetachFilter(keys);
  for await (const chunk of source) {
    const { passed, detached } = filter.push(chunk);
    if (passed.length > 0) yield passed;
    if (detached) return detach();
  }
}

/** One call at a time; of what comes meanwhile, the newest. */
function latestOnly(call: (size: TerminalSize) => Promise<void>): (size: TerminalSize) => void {
  let next: TerminalSize | undefined;
  let isCalling = false;
  return (size) => {
    next = size;
    if (isCalling) return;
    isCalling = true;
    void (async () => {
      while (next !== undefined) {
        const one = next;
        next = undefined;
        await call(one);
      }
      isCalling = false;
    })();
  };
}

/** Whether its input can be taken up, and from where. */
export function inputOf(found: Process): { readonly offset: bigint } | undefined {
  return found.inputOpen ? { offset: found.inputOffset } : undefined;
}
