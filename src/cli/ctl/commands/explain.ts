// sandboxctl explain

import {
  ExplainSandboxResponseSchema,
  SandboxService,
} from "../../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import type { Command } from "../context.ts";
import { isJson, jsonLine } from "../output.ts";
import { printable } from "../text.ts";

export const explain: Command = async (context, args) => {
  const [sandboxId = ""] = args.words;
  const asJson = isJson(args);
  const answer = await context.client(SandboxService).explainSandbox({ sandboxId });
  if (asJson) {
    context.print(jsonLine(ExplainSandboxResponseSchema, answer));
    return 0;
  }
  context.print(`${printable(answer.summary)}\n`);
  for (const { message, hint } of answer.findings) {
    context.print(`- ${printable(message)}\n`);
    if (hint !== "") context.print(`  hint: ${printable(hint)}\n`);
  }
  return 0;
};
