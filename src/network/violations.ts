// What is wrong with a policy by itself, whoever's it is: what it says cannot be kept on this host. Fields are named as the contract
// names them, below a path that the caller gives.

import type { FieldViolation } from "../errors.ts";
import { addressText, parseAddress, parseCidr } from "./addresses.ts";
import { domainProblem } from "./domains.ts";
import type { EgressPolicy, PortRange, TenantNetwork } from "./policy.ts";
import { portsText } from "./ports.ts";
import { difference, firstOf, intersection, setOf, specialAddresses } from "./ranges.ts";

/** What of a host policies are held against. */
export interface HostRules {
  /** Blocks that are not public and may be allowed all the same. */
  readonly allowPrivate: readonly string[];
  /** Where the subnets of tenants are cut from. */
  readonly pools: readonly string[];
  /** Names of the proxies that it has. */
  readonly proxies: readonly string[];
}

/** Where server names are checked. */
const tlsPort = 443;

/** Never reached, whatever a host allows. */
export const unreachable = [
  { block: "0.0.0.0/8", why: "the host itself" },
  { block: "127.0.0.0/8", why: "loopback" },
  { block: "169.254.0.0/16", why: "link-local addresses, metadata services among them" },
  { block: "224.0.0.0/4", why: "multicast" },
  { block: "240.0.0.0/4", why: "reserved" },
] as const;

/** `at` is the path of the policy: "spec.egress". */
export function egressViolations(
  policy: EgressPolicy,
  at: string,
  host: Pick<HostRules, "allowPrivate" | "pools">,
): readonly FieldViolation[] {
  const { scope, ports, allowCidrs, denyCidrs, allowDomains, checkSni } = policy;
  return [
    ...portViolations(ports, `${at}.ports`),
    ...allowCidrs.flatMap((text, index) =>
      violation(`${at}.allow_cidrs[${index}]`, cidrProblem(text) ?? allowedProblem(text, host)),
    ),
    ...denyCidrs.flatMap((text, index) => violation(`${at}.deny_cidrs[${index}]`, cidrProblem(text))),
    ...allowDomains.flatMap((text, index) => {
      const found = domainProblem(text);
      const words = found && `${JSON.stringify(text)} ${found.problem}: ${found.hint}`;
      return violation(`${at}.allow_domains[${index}]`, words);
    }),
    ...(scope === "PUBLIC" && allowDomains.length > 0
      ? [
          {
            field: `${at}.allow_domains`,
            description:
              "must be empty where the scope is every public address: for these names only, set scope to EGRESS_SCOPE_LISTED",
          },
        ]
      : []),
    ...(checkSni === true ? violation(`${at}.check_sni`, uncheckable(policy)) : []),
  ];
}

/** Why there is nothing whose server names could be checked. */
function uncheckable({ ports, allowDomains }: EgressPolicy): string | undefined {
  if (allowDomains.length === 0)
    return "means nothing without allow_domains: it is their names that are checked";
  const hasTls = ports.some(
    ({ protocol, first, last }) => protocol === "TCP" && first <= tlsPort && tlsPort <= last,
  );
  return hasTls ? undefined : `means nothing without TCP ${tlsPort} among the ports: names are checked there`;
}

/** Of a tenant's whole policy. */
export function tenantNetworkViolations(
  network: TenantNetwork,
  at: string,
  host: HostRules,
): readonly FieldViolation[] {
  const { proxy, forwardPorts } = network;
  return [
    ...egressViolations(network.egress, `${at}.egress`, host),
    ...portViolations(forwardPorts, `${at}.forward_ports`),
    ...forwardPorts.flatMap((range, index) =>
      violation(
        `${at}.forward_ports[${index}]`,
        range.protocol === "TCP" ? undefined : `${portsText(range)}: only ports of TCP can be reached`,
      ),
    ),
    ...violation(
      `${at}.proxy`,
      proxy === undefined || host.proxies.includes(proxy)
        ? undefined
        : `this host has no proxy ${JSON.stringify(proxy)}; it has: ${host.proxies.join(", ") || "none"} ([proxies.NAME] of its configuration)`,
    ),
  ];
}

/** Why an address or block is none; undefined for one that is. */
function cidrProblem(text: string): string | undefined {
  if (parseCidr(text) !== undefined) return undefined;
  const shown = JSON.stringify(text);
  if (text.includes(":")) return `${shown} is IPv6, which is not available on this host's networks`;
  const [address = "", prefix = ""] = text.split("/");
  const number = parseAddress(address);
  if (number === undefined || !/^\d{1,2}$/.test(prefix) || Number(prefix) > 32) {
    return `${shown} is no block of IPv4 addresses: write 192.0.2.0/24, or 192.0.2.1 for one`;
  }
  const size = 2 ** (32 - Number(prefix));
  const base = addressText(number - (number % size));
  return `${shown} has bits set behind its prefix: write ${base}/${Number(prefix)}`;
}

/** Why a block may not be allowed on this host. */
function allowedProblem(
  text: string,
  { allowPrivate, pools }: Pick<HostRules, "allowPrivate" | "pools">,
): string | undefined {
  const set = setOf([text]);
  const shown = JSON.stringify(text);
  const forbidden = [
    ...unreachable,
    ...pools.map((block) => ({ block, why: "addresses of sandboxes ([network] pools)" })),
  ].find(({ block }) => intersection(set, setOf([block])).length > 0);
  if (forbidden !== undefined) {
    return `${shown} has addresses that no sandbox may reach: ${forbidden.block}, ${forbidden.why}`;
  }
  const beyond = firstOf(difference(intersection(set, specialAddresses), setOf(allowPrivate)));
  if (beyond === undefined) return undefined;
  const allowed = allowPrivate.length === 0 ? "is empty" : `is ${allowPrivate.join(", ")}`;
  return `${shown} has addresses that are not public, as ${beyond}: this host's [network] allow_private ${allowed}`;
}

function portViolations(ports: readonly PortRange[], at: string): readonly FieldViolation[] {
  return ports.flatMap(({ first, last }, index) =>
    violation(`${at}[${index}].last`, last < first ? `${last} is less than first, ${first}` : undefined),
  );
}

function violation(field: string, description: string | undefined): readonly FieldViolation[] {
  return description === undefined ? [] : [{ field, description }];
}
