// From an UpdateSandbox request to what changes: the fields of its mask, or those that are set.

import type { UpdateSandboxRequest } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { invalidField } from "../errors.ts";
import type { UpdateRequest } from "../sandbox/manager.ts";
import type { NetworkChange } from "../sandbox/network-spec.ts";
import type { Resources } from "../sandbox/record.ts";
import { egressOf, networkLimitsOf } from "./network-codec.ts";
import { askedResources } from "./sandbox-codec.ts";

const changeable = {
  "resources.cpu_millis": "cpuMillis",
  "resources.cpu_request_millis": "cpuRequestMillis",
  "resources.memory_bytes": "memoryBytes",
  "resources.memory_request_bytes": "memoryRequestBytes",
  "resources.pids": "pids",
} as const satisfies Record<string, keyof Resources>;

/** What can change as a whole. */
const others: readonly string[] = ["labels", "egress", "network_limits"];

/** What an update asks to change: the mask's fields, or those that are set. */
export function changeOf(request: UpdateSandboxRequest): Omit<UpdateRequest, "actor"> {
  const asked = askedResources(request.resources);
  const given = Object.entries(changeable).filter(([, key]) => asked[key] !== undefined);
  const paths = request.updateMask?.paths ?? [
    ...given.map(([path]) => path),
    ...(Object.keys(request.labels).length > 0 ? ["labels"] : []),
    ...(request.egress === undefined ? [] : ["egress"]),
    ...(request.networkLimits === undefined ? [] : ["network_limits"]),
  ];
  const resources: Record<string, number> = {};
  for (const path of paths) {
    if (others.includes(path)) continue;
    const key = path in changeable ? changeable[path as keyof typeof changeable] : undefined;
    if (key === undefined) {
      throw invalidField(
        "update_mask",
        `"${path}" cannot change`,
        `these can: ${[...others, ...Object.keys(changeable)].join(", ")}`,
      );
    }
    const value = asked[key];
    if (value === undefined) throw invalidField(path, "is in update_mask but not set");
    resources[key] = value;
  }
  const fixed = Object.keys(asked).filter((key) => !Object.values<string>(changeable).includes(key));
  if (request.updateMask === undefined && fixed.length > 0) {
    throw invalidField(
      `resources.${fixed[0]}`,
      "cannot change after the creation",
      `these can: ${Object.keys(changeable).join(", ")}`,
    );
  }
  return {
    id: request.sandboxId,
    resources,
    ...(paths.includes("labels") ? { labels: request.labels } : {}),
    ...networkChangeOf(request, paths),
    ...(request.generation === undefined ? {} : { generation: Number(request.generation) }),
  };
}

/** In the mask without a value it is the tenant's again. */
function networkChangeOf(
  { egress, networkLimits }: UpdateSandboxRequest,
  paths: readonly string[],
): NetworkChange {
  return {
    ...(paths.includes("egress") ? { egress: egress === undefined ? "tenant's" : egressOf(egress) } : {}),
    ...(paths.includes("network_limits")
      ? { networkLimits: networkLimits === undefined ? "tenant's" : networkLimitsOf(networkLimits) }
      : {}),
  };
}
