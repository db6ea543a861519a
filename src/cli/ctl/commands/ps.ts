// sandboxctl ps

import { type Sandbox, SandboxSchema, SandboxState } from "../../../../gen/sandboxd/v1/sandbox_pb.ts";
import { SandboxService } from "../../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { type Arguments, optionValue, pairsOf } from "../arguments.ts";
import type { Command } from "../context.ts";
import { allPages, printList } from "../output.ts";
import { statusText } from "../sandbox-text.ts";
import { shortened } from "../text.ts";
import { ageText } from "../units.ts";

/** All but those that have ended. */
const living = [
  SandboxState.PENDING,
  SandboxState.PULLING,
  SandboxState.CREATING,
  SandboxState.RUNNING,
  SandboxState.BACKING_OFF,
  SandboxState.PAUSING,
  SandboxState.PAUSED,
  SandboxState.RESUMING,
  SandboxState.STOPPING,
  SandboxState.DELETING,
];

const pageSize = 500;

export const ps: Command = async (context, args) => {
  const filter = {
    tenant: optionValue(args, "tenant") ?? "",
    labels: pairsOf(args, "label"),
    states: args.flags.has("all") ? [] : living,
  };
  const sandboxes = context.client(SandboxService);
  const items = await allPages(async (pageToken) => {
    const { sandboxes: page, nextPageToken } = await sandboxes.listSandboxes({ filter, pageSize, pageToken });
    return { items: page, nextPageToken };
  });
  printList(context, args, {
    schema: SandboxSchema,
    items,
    id: ({ sandboxId }) => sandboxId,
    titles: ["SANDBOX", "TENANT", "IMAGE", "COMMAND", "CREATED", "STATUS"],
    row: (sandbox) => rowOf(sandbox, args),
  });
  return 0;
};

function rowOf(sandbox: Sandbox, args: Arguments): readonly string[] {
  const { sandboxId, tenant, spec, createTime } = sandbox;
  const command = [...(spec?.command ?? []), ...(spec?.args ?? [])].join(" ");
  const fitted = (text: string, most: number) => (args.flags.has("no-trunc") ? text : shortened(text, most));
  return [
    sandboxId,
    tenant,
    fitted(spec?.image ?? "", 40),
    JSON.stringify(fitted(command, 30)),
    `${ageText(createTime)} ago`,
    statusText(sandbox),
  ];
}
