// sandboxctl processes and top

import { type Process, ProcessSchema, ProcessState } from "../../../../gen/sandboxd/v1/process_pb.ts";
import { ProcessService } from "../../../../gen/sandboxd/v1/process_service_pb.ts";
import type { Arguments } from "../arguments.ts";
import type { Command, Context } from "../context.ts";
import { allPages, printList, wordsOf } from "../output.ts";
import { shortened } from "../text.ts";
import { ageText, bytesText, cpuTimeText } from "../units.ts";

const pageSize = 500;

export const processes: Command = async (context, args) => {
  const items = await listed(context, args, false);
  printList(context, args, {
    schema: ProcessSchema,
    items,
    id: ({ processId }) => processId,
    titles: ["PROCESS", "PID", "STARTED", "STATE", "OUTPUT", "WATCHERS", "COMMAND"],
    row: (one) => [
      one.processId,
      one.pid === 0 ? "-" : String(one.pid),
      `${ageText(one.startedAt)} ago`,
      stateText(one),
      bytesText(one.outputBytes),
      String(one.watchers),
      commandText(one, args),
    ],
  });
  return 0;
};

export const top: Command = async (context, args) => {
  const items = await listed(context, args, true);
  printList(context, args, {
    schema: ProcessSchema,
    // the kernel's view: what has ended is not in it
    items: items.filter(({ pid }) => pid !== 0).sort((a, b) => a.pid - b.pid),
    id: ({ pid }) => String(pid),
    titles: ["PID", "PPID", "CPU", "RSS", "PROCESS", "COMMAND"],
    row: (one) => [
      String(one.pid),
      String(one.usage?.parentPid ?? ""),
      cpuTimeText(one.usage?.cpu),
      one.usage === undefined ? "" : bytesText(one.usage.residentBytes),
      one.processId === "" ? "-" : one.processId,
      commandText(one, args),
    ],
  });
  return 0;
};

function listed(context: Context, { words }: Arguments, includeOthers: boolean): Promise<readonly Process[]> {
  const [sandboxId = ""] = words;
  const service = context.client(ProcessService);
  return allPages(async (pageToken) => {
    const page = await service.listProcesses({ sandboxId, includeOthers, pageSize, pageToken });
    return { items: page.processes, nextPageToken: page.nextPageToken };
  });
}

function stateText({ state, exit }: Process): string {
  const name = wordsOf(ProcessState[state]);
  if (state !== ProcessState.EXITED || exit === undefined) return name;
  return `${name} ${exit.exitCode}, ${ageText(exit.exitedAt)} ago${exit.oomKilled ? " (oom)" : ""}`;
}

function commandText({ command }: Process, { flags }: Arguments): string {
  const text = command.join(" ");
  return flags.has("no-trunc") ? text : shortened(text, 60);
}
