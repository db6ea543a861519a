// sandboxctl run: a sandbox as a command. Its output is followed until it has ended, and its exit code is told.

import type { Client } from "@connectrpc/connect";
import { EventService } from "../../../../gen/sandboxd/v1/event_service_pb.ts";
import { type Sandbox, SandboxState } from "../../../../gen/sandboxd/v1/sandbox_pb.ts";
import { SandboxService } from "../../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { type Command, CommandFailed, type Context } from "../context.ts";
import { creationRequest } from "../creation.ts";
import { metadataOf, reasonOf } from "../failure.ts";
import { createLogPrinter } from "../log-printer.ts";
import { withReconnection } from "../reconnect.ts";
import { unusableCode } from "../unusable.ts";

export const run: Command = async (context, args) => {
  const request = creationRequest(args, context.env);
  const sandboxes = context.client(SandboxService);
  const { sandbox } = await sandboxes.createSandbox(request).catch((error: unknown) => {
    if (reasonOf(error) !== "COMMAND_UNUSABLE") throw error;
    const exitCode = unusableCode(error instanceof Error ? error.message : "", metadataOf(error));
    throw new CommandFailed(error instanceof Error ? error.message : String(error), { exitCode });
  });
  if (sandbox === undefined) throw new CommandFailed("the daemon created nothing", { exitCode: 125 });
  const { sandboxId } = sandbox;
  if (args.flags.has("detach")) {
    context.print(`${sandboxId}\n`);
    return 0;
  }
  const unhook = stopOnSignal(context, sandboxes, sandboxId);
  try {
    const ended = await follow(context, sandboxes, sandbox);
    if (args.flags.has("rm")) await sandboxes.deleteSandbox({ sandboxId });
    return exitCodeOf(context, ended);
  } finally {
    unhook();
  }
};

const isIn = (sandbox: Sandbox | undefined, states: readonly SandboxState[]): boolean =>
  states.includes(sandbox?.status?.state ?? SandboxState.UNSPECIFIED);

const isGone = (sandbox: Sandbox | undefined): boolean =>
  isIn(sandbox, [SandboxState.DELETING, SandboxState.DELETED]);

const isOver = (sandbox: Sandbox | undefined): boolean =>
  isGone(sandbox) || isIn(sandbox, [SandboxState.STOPPED, SandboxState.FAILED]);

/** Prints its output until it has ended; resolves to how it then is. */
async function follow(
  context: Context,
  sandboxes: Client<typeof SandboxService>,
  begun: Sandbox,
): Promise<Sandbox> {
  const { sandboxId } = begun;
  const reading = new AbortController();
  const printer = createLogPrinter(context, { timestamps: false });
  const read = (follows: boolean) =>
    sandboxes.streamLogs(
      {
        sandboxId,
        follow: follows,
        ...(printer.sequence === undefined ? {} : { afterSequence: printer.sequence }),
      },
      follows ? { signal: reading.signal } : {},
    );
  const following = (async () => {
    const pieces = withReconnection(context, () => read(true), { signal: reading.signal });
    for await (const piece of pieces) await printer.print(piece);
  })().catch((error: unknown) => {
    if (!reading.signal.aborted) throw error;
  });
  const over = untilOver(context, begun);
  over.catch(() => {});
  const ended = await Promise.race([over, following.then(() => undefined)]);
  reading.abort();
  await following;
  // deleted meanwhile: its log is gone, too
  if (ended === undefined || isGone(ended)) return ended ?? begun;
  // what it wrote last may not have been followed yet
  for await (const piece of read(false)) await printer.print(piece);
  return ended;
}

async function untilOver(context: Context, begun: Sandbox): Promise<Sandbox> {
  if (isOver(begun)) return begun;
  const { sandboxId } = begun;
  const watching = new AbortController();
  const { signal } = watching;
  let last: bigint | undefined;
  try {
    const updates = withReconnection(
      context,
      () =>
        context
          .client(EventService)
          .watchEvents(
            { filter: { sandboxId }, ...(last === undefined ? {} : { afterSequence: last }) },
            { signal },
          ),
      { signal },
    );
    for await (const { update } of updates) {
      if (update.case === "event" && isOver(update.value.sandbox)) return update.value.sandbox ?? begun;
      if (update.case === "bookmark" && last === undefined) {
        // what is told from here on is new, so what was before is looked at once
        const { sandbox } = await context.client(SandboxService).getSandbox({ sandboxId });
        if (sandbox !== undefined && isOver(sandbox)) return sandbox;
      }
      if (update.case !== undefined) last = update.value.sequence;
    }
    throw new CommandFailed(`it is not known how sandbox ${sandboxId} ended`, { exitCode: 125 });
  } finally {
    watching.abort();
  }
}

function exitCodeOf(context: Context, { sandboxId, status }: Sandbox): number {
  if (status?.exit !== undefined) return status.exit.code;
  context.warn(`sandboxctl: sandbox ${sandboxId} ended without an exit code`);
  return 125;
}

/** The first signal stops the sandbox, the second one ends this program. */
function stopOnSignal(
  context: Context,
  sandboxes: Client<typeof SandboxService>,
  sandboxId: string,
): () => void {
  let asked = false;
  const onSignal = (_: NodeJS.Signals, number: number) => {
    if (asked) process.exit(128 + number);
    asked = true;
    sandboxes.stopSandbox({ sandboxId }).catch((error: unknown) => {
      context.warn(`sandboxctl: sandbox ${sandboxId} was not stopped: ${String(error)}`);
    });
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, onSignal);
  return () => {
    for (const signal of signals) process.off(signal, onSignal);
  };
}
