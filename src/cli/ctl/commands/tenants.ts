// sandboxctl tenants

import { NetworkMode } from "../../../../gen/sandboxd/v1/sandbox_pb.ts";
import {
  type Tenant,
  type TenantNetwork,
  type TenantQuota,
  TenantSchema,
} from "../../../../gen/sandboxd/v1/tenant_pb.ts";
import { TenantService } from "../../../../gen/sandboxd/v1/tenant_service_pb.ts";
import { type Command, CommandFailed } from "../context.ts";
import { forEach } from "../each.ts";
import { askedFor } from "../get.ts";
import { allPages, jsonArray, printList, wordsOf } from "../output.ts";
import { bytesText, cpusText } from "../units.ts";

const pageSize = 500;

export const tenants: Command = async (context, args) => {
  const service = context.client(TenantService);
  const names = askedFor("tenants", args);
  if (names !== undefined) {
    const { found, exitCode } = await forEach(context, names, async (name) => {
      const { tenant } = await service.getTenant({ tenant: name });
      if (tenant === undefined) throw new CommandFailed(`there is no answer about tenant ${name}`);
      return tenant;
    });
    context.print(jsonArray(TenantSchema, found));
    return exitCode;
  }
  const items = await allPages(async (pageToken) => {
    const { tenants: page, nextPageToken } = await service.listTenants({ pageSize, pageToken });
    return { items: page, nextPageToken };
  });
  printList(context, args, {
    schema: TenantSchema,
    items,
    id: ({ tenant }) => tenant,
    titles: ["TENANT", "UID", "SANDBOXES", "RUNNING", "CPUS", "MEMORY", "WORKSPACES", "DISK", "NETWORK"],
    row: rowOf,
  });
  return 0;
};

function rowOf({ tenant, quota, status, network }: Tenant): readonly string[] {
  const promised = status?.promised;
  const of = (field: keyof TenantQuota & ("sandboxes" | "runningSandboxes" | "workspaces")) =>
    share(promised?.[field], quota?.[field], String);
  return [
    tenant,
    String(status?.uid ?? ""),
    of("sandboxes"),
    of("runningSandboxes"),
    share(promised?.cpuMillis, quota?.cpuMillis, cpusText),
    share(promised?.memoryBytes, quota?.memoryBytes, bytesText),
    of("workspaces"),
    share(promised?.diskBytes, quota?.diskBytes, bytesText),
    networkText(network),
  ];
}

/** "none", "internal, egress, peers", "egress by proxy web". */
function networkText(network: TenantNetwork | undefined): string {
  const { modes = [], allowPeers = false, proxy = "" } = network ?? {};
  const connected = modes.filter((mode) => mode !== NetworkMode.NONE);
  if (connected.length === 0) return "none";
  const words = connected.map((mode) =>
    mode === NetworkMode.EGRESS && proxy !== "" ? `egress by proxy ${proxy}` : wordsOf(NetworkMode[mode]),
  );
  return [...words, ...(allowPeers ? ["peers"] : [])].join(", ");
}

/** What is promised, and of how much where that is bounded. */
function share(
  promised: bigint | undefined,
  quota: bigint | undefined,
  text: (value: bigint) => string,
): string {
  const used = text(promised ?? 0n);
  return quota === undefined ? used : `${used} / ${text(quota)}`;
}
