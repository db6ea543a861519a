// sandboxctl open: where a browser finds a port of a sandbox.

import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { CreatePreviewResponseSchema, PortService } from "../../../../gen/sandboxd/v1/port_service_pb.ts";
import { optionValue, UsageError } from "../arguments.ts";
import type { Command } from "../context.ts";
import { isJson, jsonLine } from "../output.ts";
import { printable } from "../text.ts";
import { parseDurationMs } from "../units.ts";

export const open: Command = async (context, args) => {
  const [sandboxId = "", word = ""] = args.words;
  const port = /^\d{1,5}$/.test(word) ? Number(word) : 0;
  if (port < 1 || port > 65_535) throw new UsageError(`${JSON.stringify(word)}: expected a port, as 8080`);
  const asJson = isJson(args);
  const ttl = optionValue(args, "ttl");
  const preview = await context.client(PortService).createPreview({
    sandboxId,
    port,
    ...(ttl === undefined ? {} : { ttl: durationFromMs(parseDurationMs(ttl, "--ttl")) }),
  });
  context.print(asJson ? jsonLine(CreatePreviewResponseSchema, preview) : `${printable(preview.url)}\n`);
  return 0;
};
