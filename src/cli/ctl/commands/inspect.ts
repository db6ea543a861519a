// sandboxctl inspect

import { SandboxSchema } from "../../../../gen/sandboxd/v1/sandbox_pb.ts";
import { SandboxService } from "../../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import type { Command } from "../context.ts";
import { forEach } from "../each.ts";
import { jsonArray } from "../output.ts";

export const inspect: Command = async (context, { words }) => {
  const sandboxes = context.client(SandboxService);
  const { found, exitCode } = await forEach(context, words, async (sandboxId) => {
    const { sandbox } = await sandboxes.getSandbox({ sandboxId });
    return sandbox;
  });
  context.print(
    jsonArray(
      SandboxSchema,
      found.filter((sandbox) => sandbox !== undefined),
    ),
  );
  return exitCode;
};
