// sandboxctl workspaces

import {
  type Workspace,
  WorkspaceBackend,
  WorkspaceSchema,
  WorkspaceState,
} from "../../../../gen/sandboxd/v1/workspace_pb.ts";
import { WorkspaceService } from "../../../../gen/sandboxd/v1/workspace_service_pb.ts";
import { optionValue } from "../arguments.ts";
import { type Command, CommandFailed } from "../context.ts";
import { forEach } from "../each.ts";
import { askedFor } from "../get.ts";
import { allPages, jsonArray, printList, wordsOf } from "../output.ts";
import { ageText, bytesText } from "../units.ts";

const pageSize = 500;

export const workspaces: Command = async (context, args) => {
  const service = context.client(WorkspaceService);
  const ids = askedFor("workspaces", args);
  if (ids !== undefined) {
    const { found, exitCode } = await forEach(context, ids, async (workspaceId) => {
      const { workspace } = await service.getWorkspace({ workspaceId });
      if (workspace === undefined)
        throw new CommandFailed(`there is no answer about workspace ${workspaceId}`);
      return workspace;
    });
    context.print(jsonArray(WorkspaceSchema, found));
    return exitCode;
  }
  const tenant = optionValue(args, "tenant") ?? "";
  const items = await allPages(async (pageToken) => {
    const { workspaces: page, nextPageToken } = await service.listWorkspaces({ tenant, pageSize, pageToken });
    return { items: page, nextPageToken };
  });
  printList(context, args, {
    schema: WorkspaceSchema,
    items,
    id: ({ workspaceId }) => workspaceId,
    titles: ["WORKSPACE", "TENANT", "STATE", "BACKEND", "USED / SIZE", "SNAPSHOTS", "SANDBOXES", "CREATED"],
    row: rowOf,
  });
  return 0;
};

function rowOf({ workspaceId, tenant, createTime, limits, status }: Workspace): readonly string[] {
  const used = status?.usage === undefined ? "?" : bytesText(status.usage.bytes);
  return [
    workspaceId,
    tenant,
    wordsOf(WorkspaceState[status?.state ?? WorkspaceState.UNSPECIFIED]),
    wordsOf(WorkspaceBackend[status?.backend ?? WorkspaceBackend.UNSPECIFIED]),
    `${used} / ${bytesText(limits?.sizeBytes ?? 0n)}`,
    String(status?.snapshots ?? 0),
    status?.sandboxIds.join(",") ?? "",
    `${ageText(createTime)} ago`,
  ];
}
