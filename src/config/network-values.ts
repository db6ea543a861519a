// From the keys of networks to the values that the rest of the program knows.

import { cidrText, parseCidr } from "../network/addresses.ts";
import { canonicalDomain } from "../network/domains.ts";
import {
  defaultEgress,
  type EgressPolicy,
  limitKeys,
  type NetworkLimits,
  networkModes,
  type PortRange,
  type TenantNetwork,
} from "../network/policy.ts";
import { parsePorts } from "../network/ports.ts";
import type { EgressProxy } from "../network/proxy.ts";
import type { HostRules } from "../network/violations.ts";
import type { Config } from "./config.ts";
import { type Endpoint, parseResolver } from "./network.ts";

type TenantKeys = Config["tenants"]["default"]["network"];
type EgressKeys = Config["templates"][string]["egress"];

/** One value for one configuration: what follows from it is kept by it. */
const known = new WeakMap<TenantKeys, TenantNetwork>();

/** What tenants have that were never put. */
export function tenantNetworkOf(keys: TenantKeys): TenantNetwork {
  const network = known.get(keys) ?? readTenantNetwork(keys);
  known.set(keys, network);
  return network;
}

function readTenantNetwork({
  modes,
  allowPeers,
  forwardPorts,
  proxy,
  egress,
  limits,
}: TenantKeys): TenantNetwork {
  const names = new Set(["none", ...modes]);
  return {
    modes: networkModes.filter((mode) => names.has(mode.toLowerCase())),
    allowPeers,
    egress: egressOfKeys(egress) ?? defaultEgress,
    forwardPorts: portsOf(forwardPorts),
    limits: limitsOfKeys(limits) ?? {},
    ...(proxy === undefined ? {} : { proxy }),
  };
}

/** Undefined without any of the keys. */
export function egressOfKeys({
  scope,
  ports,
  allowCidrs,
  denyCidrs,
  allowDomains,
  checkSni,
}: EgressKeys): EgressPolicy | undefined {
  if ([scope, ports, allowCidrs, denyCidrs, allowDomains, checkSni].every((value) => value === undefined))
    return undefined;
  return {
    scope: scope === "listed" ? "LISTED" : "PUBLIC",
    ports: ports === undefined ? defaultEgress.ports : portsOf(ports),
    allowCidrs: blocksOf(allowCidrs),
    denyCidrs: blocksOf(denyCidrs),
    allowDomains: (allowDomains ?? []).map(canonicalDomain),
    ...(checkSni === true ? { checkSni } : {}),
  };
}

/** Undefined without any of the keys. */
export function limitsOfKeys(
  limits: Config["templates"][string]["networkLimits"],
): NetworkLimits | undefined {
  const given = limitKeys.flatMap((key) => (limits[key] === undefined ? [] : [[key, limits[key]] as const]));
  return given.length === 0 ? undefined : Object.fromEntries(given);
}

export function proxiesOf({ proxies }: Pick<Config, "proxies">): Readonly<Record<string, EgressProxy>> {
  return Object.fromEntries(
    Object.entries(proxies).flatMap(([name, { address: endpoint, noProxy }]) =>
      endpoint === undefined ? [] : [[name, { name, ...endpoint, noProxy }]],
    ),
  );
}

/** What policies are held against. */
export function hostRulesOf({ network, proxies }: Pick<Config, "network" | "proxies">): HostRules {
  return { allowPrivate: network.allowPrivate, pools: network.pools, proxies: Object.keys(proxies) };
}

/** Empty: those of the host. */
export function resolversOf({ network }: Pick<Config, "network">): readonly Endpoint[] {
  return network.resolvers.flatMap((text) => parseResolver(text) ?? []);
}

function portsOf(texts: readonly string[]): readonly PortRange[] {
  return texts.flatMap((text) => parsePorts(text) ?? []);
}

function blocksOf(texts: readonly string[] = []): readonly string[] {
  return texts.flatMap((text) => {
    const block = parseCidr(text);
    return block === undefined ? [] : [cidrText(block)];
  });
}
