// What must hold between the keys of networks, and between them and those of tenants and templates.

import { type Cidr, contains, overlaps, parseCidr } from "../network/addresses.ts";
import { intersection, publicAddresses, setOf } from "../network/ranges.ts";
import { egressViolations, tenantNetworkViolations, unreachable } from "../network/violations.ts";
import type { Violation } from "./check.ts";
import type { Config } from "./config.ts";
import { egressOfKeys, hostRulesOf, limitsOfKeys, tenantNetworkOf } from "./network-values.ts";

/** Every rule between them that is broken. */
export function networksHold(config: Config): readonly Violation[] {
  return [
    ...poolsHold(config),
    ...allowPrivateHolds(config),
    ...Object.entries(config.proxies).flatMap(([name, { address }]) =>
      proxyHolds(`proxies.${name}.address`, address?.address, config),
    ),
    ...tenantsHold(config),
    ...Object.entries(config.templates).flatMap(([name, template]) =>
      templateHolds(`templates.${name}`, template, config),
    ),
  ];
}

const poolBlocks = ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15"];

function poolsHold({ network: { pools, subnetPrefix } }: Config): readonly Violation[] {
  const key = "network.pools";
  if (pools.length === 0) {
    return [
      { keys: [key], problem: "names no block: no sandbox could have a network", hint: "leave it out" },
    ];
  }
  return pools.flatMap((text, index): readonly Violation[] => {
    const pool = blockOf(text);
    if (!poolBlocks.some((outer) => contains(blockOf(outer), pool))) {
      const problem = `${text} is not private, shared (CGNAT) or for benchmarks`;
      return [{ keys: [key], problem, hint: `choose within ${poolBlocks.join(", ")}` }];
    }
    if (pool.prefix > subnetPrefix) {
      const problem = `${text} is smaller than one subnet, network.subnet_prefix ${subnetPrefix}`;
      return [{ keys: [key, "network.subnet_prefix"], problem }];
    }
    const other = pools.slice(0, index).find((before) => overlaps(blockOf(before), pool));
    return other === undefined ? [] : [{ keys: [key], problem: `${text} overlaps ${other}` }];
  });
}

function allowPrivateHolds({ network: { allowPrivate, pools } }: Config): readonly Violation[] {
  const key = "network.allow_private";
  return allowPrivate.flatMap((text): readonly Violation[] => {
    const forbidden = unreachable.find(({ block }) => overlaps(blockOf(block), blockOf(text)));
    if (forbidden !== undefined) {
      const problem = `${text} has addresses that no sandbox may reach: ${forbidden.block}, ${forbidden.why}`;
      return [{ keys: [key], problem }];
    }
    const pool = pools.find((one) => overlaps(blockOf(one), blockOf(text)));
    if (pool !== undefined)
      return [{ keys: [key, "network.pools"], problem: `${text} overlaps network.pools, ${pool}` }];
    return intersection(setOf([text]), publicAddresses).length > 0
      ? [{ keys: [key], problem: `${text} has addresses that are public, which need no leave` }]
      : [];
  });
}

function proxyHolds(
  key: string,
  address: string | undefined,
  { network: { pools } }: Config,
): readonly Violation[] {
  if (address === undefined) return [{ keys: [key], problem: "is missing" }];
  const at = blockOf(address);
  const forbidden = unreachable.find(({ block }) => overlaps(blockOf(block), at));
  if (forbidden !== undefined)
    return [{ keys: [key], problem: `${address} is where no sandbox gets to: ${forbidden.why}` }];
  const pool = pools.find((one) => overlaps(blockOf(one), at));
  return pool === undefined
    ? []
    : [{ keys: [key, "network.pools"], problem: `${address} is in network.pools, ${pool}` }];
}

/** Else what tenants have by default, nobody could put. */
function tenantsHold(config: Config): readonly Violation[] {
  const network = tenantNetworkOf(config.tenants.default.network);
  return tenantNetworkViolations(network, "tenants.default.network", hostRulesOf(config)).map(told);
}

/** Else every request of the template would be refused for what its caller did not say. */
function templateHolds(
  at: string,
  { networkMode, egress: egressKeys, networkLimits }: Config["templates"][string],
  config: Config,
): readonly Violation[] {
  const egress = egressOfKeys(egressKeys);
  const names = Object.keys(egressKeys) as readonly (keyof typeof egressKeys)[];
  const given = names.find((name) => egressKeys[name] !== undefined);
  const limit = Object.keys(limitsOfKeys(networkLimits) ?? {})[0];
  return [
    ...(egress === undefined ? [] : egressViolations(egress, `${at}.egress`, hostRulesOf(config)).map(told)),
    ...(given !== undefined && networkMode !== "egress"
      ? [meansNothing(`${at}.egress.${snakeCase(given)}`, at, `"${networkMode}"`)]
      : []),
    ...(limit !== undefined && networkMode === "none"
      ? [meansNothing(`${at}.network_limits.${snakeCase(limit)}`, at, '"none"')]
      : []),
  ];
}

function meansNothing(key: string, at: string, mode: string): Violation {
  return { keys: [key, `${at}.network_mode`], problem: `means nothing with network_mode ${mode}` };
}

/** A field of a list is the list's key, and the description names the entry. */
function told({ field, description }: { readonly field: string; readonly description: string }): Violation {
  const key = field.replace(/\[\d+\].*$/, "");
  return { keys: [key], problem: description.replaceAll("EGRESS_SCOPE_LISTED", '"listed"') };
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Of a text that its own rule has read. */
function blockOf(text: string): Cidr {
  return parseCidr(text) ?? { base: 0, prefix: 32 };
}
