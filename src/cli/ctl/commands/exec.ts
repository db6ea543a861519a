// sandboxctl exec

import { type Command, CommandFailed } from "../context.ts";
import { runProcess, startDetached, startRequest } from "../process/start.ts";

export const exec: Command = async (context, args) => {
  const [sandboxId = "", ...command] = args.words;
  const [interactive, tty, detach] = ["interactive", "tty", "detach"].map((name) => args.flags.has(name));
  const options = { sandboxId, command, interactive: interactive === true, tty: tty === true };
  if (detach === true) {
    const request = startRequest(context, args, options);
    await startDetached(context, request);
    context.print(`${request.processId}\n`);
    return 0;
  }
  if (options.interactive && options.tty && !process.stdin.isTTY)
    throw new CommandFailed("standard input is no terminal: leave out --tty", { exitCode: 1 });
  return await runProcess(context, args, startRequest(context, args, options), options);
};
