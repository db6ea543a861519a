// sandboxctl version

import { HostService } from "../../../../gen/sandboxd/v1/host_service_pb.ts";
import { version } from "../../../version.ts";
import type { Command } from "../context.ts";
import { printable } from "../text.ts";

export const printVersion: Command = async (context, args) => {
  context.print(`sandboxctl ${version}\n`);
  if (args.flags.has("client")) return 0;
  const { host } = await context.client(HostService).getHost({});
  context.print(
    `sandboxd   ${printable(host?.daemonVersion ?? "unknown")} on ${printable(host?.hostId ?? "?")}\n`,
  );
  return 0;
};
