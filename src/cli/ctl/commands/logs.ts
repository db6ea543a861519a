// sandboxctl logs

import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { SandboxService } from "../../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { optionValue } from "../arguments.ts";
import type { Command } from "../context.ts";
import { createLogPrinter } from "../log-printer.ts";
import { withReconnection } from "../reconnect.ts";
import { parseCount, parseTimeMs } from "../units.ts";

export const logs: Command = async (context, args) => {
  const [sandboxId = ""] = args.words;
  const tail = optionValue(args, "tail");
  const since = optionValue(args, "since");
  const printer = createLogPrinter(context, { timestamps: args.flags.has("timestamps") });
  const begin = {
    ...(tail === undefined || tail === "all" ? {} : { tailLines: parseCount(tail, "--tail") }),
    ...(since === undefined ? {} : { since: timestampFromMs(parseTimeMs(since, "--since", Date.now())) }),
  };
  const pieces = withReconnection(context, () =>
    context.client(SandboxService).streamLogs({
      sandboxId,
      follow: args.flags.has("follow"),
      ...(printer.sequence === undefined ? begin : { afterSequence: printer.sequence }),
    }),
  );
  for await (const piece of pieces) await printer.print(piece);
  return 0;
};
