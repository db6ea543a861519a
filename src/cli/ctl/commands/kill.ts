// sandboxctl kill

import { ProcessService, SignalScope } from "../../../../gen/sandboxd/v1/process_service_pb.ts";
import { optionValue, UsageError } from "../arguments.ts";
import type { Command } from "../context.ts";

const scopes: Readonly<Record<string, SignalScope>> = {
  process: SignalScope.PROCESS,
  group: SignalScope.GROUP,
  tree: SignalScope.TREE,
};

export const kill: Command = async (context, args) => {
  const [sandboxId = "", processId = ""] = args.words;
  const word = optionValue(args, "scope") ?? "group";
  const scope = Object.hasOwn(scopes, word) ? scopes[word] : undefined;
  if (scope === undefined)
    throw new UsageError(`--scope ${JSON.stringify(word)}: expected process, group or tree`);
  const signal = optionValue(args, "signal") ?? "KILL";
  await context.client(ProcessService).signalProcess({ sandboxId, processId, signal, scope });
  return 0;
};
