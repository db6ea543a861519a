// sandboxctl attach: takes up a process where it is.

import { type Process, ProcessState } from "../../../../gen/sandboxd/v1/process_pb.ts";
import { ProcessService } from "../../../../gen/sandboxd/v1/process_service_pb.ts";
import { type Arguments, optionValue } from "../arguments.ts";
import { type Command, CommandFailed, type Context } from "../context.ts";
import { defaultDetachKeys, parseDetachKeys } from "../process/detach-keys.ts";
import { replay, screenText } from "../process/screen.ts";
import { inputOf, runSession } from "../process/session.ts";
import { exitCodeOf } from "../process/start.ts";
import { type TerminalSize, terminalSize } from "../process/terminal.ts";
import { printable } from "../text.ts";

export const attach: Command = async (context, args) => {
  const [sandboxId = "", processId = ""] = args.words;
  const { process: found } = await context.client(ProcessService).getProcess({ sandboxId, processId });
  if (found === undefined) throw new CommandFailed("there is no answer about the process", { exitCode: 125 });
  if (found.state === ProcessState.LOST)
    throw new CommandFailed(`it is not known how process ${printable(processId)} ended`, { exitCode: 125 });
  return await takeUp(context, args, found);
};

const sized = (size: TerminalSize | undefined) => (size === undefined ? {} : { terminal: size });

async function takeUp(context: Context, args: Arguments, found: Process): Promise<number> {
  const { sandboxId, processId, terminal } = found;
  const client = context.client(ProcessService);
  let position = 0n;
  let screen: string | undefined;
  if (terminal !== undefined && process.stdout.isTTY) {
    const before = await replay(client, found);
    screen = await screenText(before.output, terminal);
    position = before.sequence;
    if (before.exit !== undefined) {
      await context.stdout.write(screen);
      return exitCodeOf(context, { kind: "exited", exit: before.exit }, processId);
    }
  }
  const size = () => (terminal === undefined ? undefined : terminalSize());
  const end = await runSession(context, {
    client,
    sandboxId,
    processId,
    input: args.flags.has("no-stdin") ? undefined : inputOf(found),
    tty: terminal !== undefined,
    detachKeys: parseDetachKeys(optionValue(args, "detach-keys") ?? defaultDetachKeys),
    isOwn: false,
    ...(screen === undefined ? {} : { screen }),
    open: (after, signal) =>
      client.connectProcess(
        {
          sandboxId,
          processId,
          afterSequence: after ?? position,
          ...sized(size()),
        },
        { signal },
      ),
  });
  return exitCodeOf(context, end, processId);
}
