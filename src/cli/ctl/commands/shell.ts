// sandboxctl shell: the user's own shell where the sandbox names one, else bash, else sh.

import { SandboxService } from "../../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { type Command, CommandFailed } from "../context.ts";
import { isUnusable, runProcess, startRequest } from "../process/start.ts";

const usualShells = ["bash", "sh"];

export const shell: Command = async (context, args) => {
  const [sandboxId = ""] = args.words;
  if (!process.stdin.isTTY)
    throw new CommandFailed("standard input is no terminal: use exec -i for a script", { exitCode: 1 });
  const { sandbox } = await context.client(SandboxService).getSandbox({ sandboxId });
  const own = sandbox?.spec?.env["SHELL"];
  const shells = own === undefined || own === "" ? usualShells : [own, ...usualShells];
  let failure: unknown;
  for (const command of shells) {
    const options = { sandboxId, command: [command], interactive: true, tty: true };
    try {
      return await runProcess(context, args, startRequest(context, args, options), options);
    } catch (error) {
      if (!isUnusable(error)) throw error;
      failure = error;
    }
  }
  throw failure;
};
