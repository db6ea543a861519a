// sandboxctl create

import { SandboxService } from "../../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import type { Command } from "../context.ts";
import { creationRequest } from "../creation.ts";

export const createSandbox: Command = async (context, args) => {
  const request = creationRequest(args, context.env);
  const { sandbox } = await context.client(SandboxService).createSandbox(request);
  context.print(`${sandbox?.sandboxId ?? ""}\n`);
  return 0;
};
