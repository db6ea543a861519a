// Whether a sandbox may have what it asks for: its mode, its egress policy and its bounds, held against its tenant's.

import { type FieldViolation, SandboxdError } from "../errors.ts";
import { isPatternWithin } from "./domains.ts";
import { type Proxies, proxyOf, tenantEgress } from "./effective.ts";
import { allowedByAddress, canonicalPorts } from "./intersect.ts";
import {
  type EgressPolicy,
  limitKeys,
  limitNames,
  type NetworkLimits,
  type NetworkMode,
  type PortRange,
  type SandboxNetworkSpec,
  type TenantNetwork,
} from "./policy.ts";
import { portsText } from "./ports.ts";
import { difference, firstOf, setOf } from "./ranges.ts";

/** Who asks. */
export interface NetworkAsker {
  readonly tenant: string;
  readonly network: TenantNetwork;
}

/**
 * At a create, and at a start, where the tenant's policy may have changed since.
 *
 * @throws SandboxdError NETWORK_NOT_ALLOWED.
 */
export function checkMode(mode: NetworkMode, { tenant, network }: NetworkAsker): void {
  if (mode === "NONE" || network.modes.includes(mode)) return;
  const modes = ["NONE", ...network.modes.filter((one) => one !== "NONE")].join(", ");
  throw refused(tenant, [
    { field: "spec.network_mode", description: `${mode} is none of the tenant's modes, ${modes}` },
  ]);
}

/**
 * At a create, and where the spec of a sandbox changes. `at` is the path of the spec: "spec.", or nothing in a request that has its
 * fields.
 *
 * @throws SandboxdError NETWORK_NOT_ALLOWED naming everything that is wider than the tenant's; NETWORK_UNAVAILABLE if the tenant's
 * proxy is not in the host's configuration.
 */
export function checkAllowed(
  { networkMode, egress, networkLimits = {} }: SandboxNetworkSpec,
  asker: NetworkAsker,
  proxies: Proxies,
  at: "spec." | "" = "spec.",
): void {
  const { tenant, network } = asker;
  if (networkMode === "EGRESS" && network.proxy !== undefined && proxyOf(network, proxies) === undefined) {
    throw new SandboxdError(
      "NETWORK_UNAVAILABLE",
      `tenant "${tenant}" is to use proxy "${network.proxy}", which this host does not have`,
      {
        hint: `put [proxies.${network.proxy}] into the configuration, or the tenant without it`,
        metadata: { tenant },
      },
    );
  }
  const found = [
    ...(egress === undefined ? [] : beyondEgress(egress, tenantEgress(network, proxies), `${at}egress`)),
    ...beyondLimits(networkLimits, network.limits, `${at}network_limits`),
  ];
  if (found.length === 0) return;
  throw refused(tenant, found, egress === undefined ? undefined : network.proxy);
}

/** What of a policy a tenant's does not allow. */
function beyondEgress(asked: EgressPolicy, own: EgressPolicy, at: string): readonly FieldViolation[] {
  const reachable = allowedByAddress(own);
  const denied = setOf(own.denyCidrs);
  const tenantPorts = own.ports.map(portsText).join(", ") || "no port";
  return [
    ...asked.ports.flatMap((range, index) =>
      isCovered(range, own.ports)
        ? []
        : [
            {
              field: `${at}.ports[${index}]`,
              description: `${portsText(range)} is not in the tenant's ${tenantPorts}`,
            },
          ],
    ),
    ...(asked.scope === "PUBLIC" && own.scope === "LISTED"
      ? [
          {
            field: `${at}.scope`,
            description: "every public address is more than what the tenant's policy lists",
          },
        ]
      : []),
    ...asked.allowCidrs.flatMap((text, index) => {
      const field = `${at}.allow_cidrs[${index}]`;
      const set = setOf([text]);
      const beyond = firstOf(difference(set, reachable));
      if (beyond !== undefined)
        return [
          {
            field,
            description: `${text} has addresses that the tenant's policy does not allow by CIDR, as ${beyond}`,
          },
        ];
      return difference(set, denied).length === 0
        ? [{ field, description: `${text} is in the tenant's deny_cidrs` }]
        : [];
    }),
    ...asked.allowDomains.flatMap((pattern, index) =>
      own.scope === "PUBLIC" || own.allowDomains.some((wider) => isPatternWithin(pattern, wider))
        ? []
        : [
            {
              field: `${at}.allow_domains[${index}]`,
              description: `${pattern} is not in the tenant's allow_domains`,
            },
          ],
    ),
  ];
}

function beyondLimits(asked: NetworkLimits, own: NetworkLimits, at: string): readonly FieldViolation[] {
  return limitKeys.flatMap((key) => {
    const [value, most] = [asked[key], own[key]];
    if (value === undefined || most === undefined || value <= most) return [];
    return [{ field: `${at}.${limitNames[key]}`, description: `${value} is more than the tenant's ${most}` }];
  });
}

function isCovered({ protocol, first, last }: PortRange, by: readonly PortRange[]): boolean {
  return canonicalPorts(by).some(
    (range) => range.protocol === protocol && range.first <= first && last <= range.last,
  );
}

function refused(tenant: string, fields: readonly FieldViolation[], proxy?: string): SandboxdError {
  const words = fields.map(({ field, description }) => `${field}: ${description}`).join("; ");
  return new SandboxdError("NETWORK_NOT_ALLOWED", `the network policy of tenant "${tenant}": ${words}`, {
    hint:
      proxy === undefined
        ? "GetTenant shows the policy; PutTenant changes it"
        : `the egress of this tenant is proxy "${proxy}" and nothing else: ask without an egress policy`,
    fields,
    metadata: { tenant },
  });
}
