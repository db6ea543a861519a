// Which subnet a tenant gets, and which address a sandbox: pure, from the places that are given already. A tenant keeps its
// subnet while any of its sandboxes has a place.

import { createHash } from "node:crypto";
import { SandboxdError } from "../errors.ts";
import { addressText, type Cidr, cidrText, overlaps, parseAddress, parseCidr, sizeOf } from "./addresses.ts";
import type { NetworkPlace } from "./policy.ts";

/** A tenant's network: what the places of its sandboxes have in common. */
export type TenantNet = Pick<NetworkPlace, "network" | "bridge" | "subnet" | "gateway">;

export interface AddressRules {
  readonly hostId: string;
  /** Blocks that subnets are cut from, in order. */
  readonly pools: readonly string[];
  readonly subnetPrefix: number;
}

const bridgePrefix = "sbx";

/** The engine's network of a tenant. `_` is in none of the names, so that no two of them make one. */
function networkName(hostId: string, tenant: string): string {
  return `sandboxd-${hostId.slice(0, 32)}_net_${tenant}`;
}

/** Tells the interfaces and rules of one daemon from those of another: 8 hexadecimal digits. */
export function hostTag(hostId: string): string {
  return digest(hostId);
}

/**
 * A subnet that overlaps none of `others` and none of `avoid`.
 *
 * @throws SandboxdError ADDRESS_EXHAUSTED.
 */
export function chooseNet(
  tenant: string,
  rules: AddressRules,
  others: readonly TenantNet[],
  avoid: readonly Cidr[],
): TenantNet {
  const used = [...others.flatMap(({ subnet }) => parseCidr(subnet) ?? []), ...avoid];
  const subnet = firstFree(rules, used);
  if (subnet === undefined) {
    throw new SandboxdError(
      "ADDRESS_EXHAUSTED",
      `no subnet is left for tenant "${tenant}": [network] pools ${rules.pools.join(", ")} have ${others.length} in use`,
      { hint: "widen [network] pools, or delete the sandboxes of other tenants", metadata: { tenant } },
    );
  }
  return {
    network: networkName(rules.hostId, tenant),
    bridge: bridgeName(rules.hostId, tenant, new Set(others.map(({ bridge }) => bridge))),
    subnet: cidrText(subnet),
    gateway: addressText(subnet.base + 1),
  };
}

/**
 * A place in a tenant's network: the first free address after the one given last, so that one is not used again while the
 * kernel may still remember connections of whoever had it.
 *
 * @throws SandboxdError ADDRESS_EXHAUSTED.
 */
export function choosePlace(
  net: TenantNet,
  taken: ReadonlySet<string>,
  after: string | undefined,
): NetworkPlace {
  const subnet = parseCidr(net.subnet);
  if (subnet === undefined) throw new Error(`subnet ${net.subnet} is none`);
  // the first is the network's own, then the gateway's; the last is for broadcasts
  const [first, count] = [subnet.base + 2, sizeOf(subnet.prefix) - 3];
  const last = after === undefined ? undefined : parseAddress(after);
  const begin = last === undefined ? 0 : last - first + 1;
  for (let step = 0; step < count; step += 1) {
    const address = first + ((begin + step) % count);
    const text = addressText(address);
    if (!taken.has(text)) return { ...net, address: text, mac: macOf(address) };
  }
  throw new SandboxdError(
    "ADDRESS_EXHAUSTED",
    `subnet ${net.subnet} has room for ${count} sandboxes with a network, and all are taken`,
    {
      hint: "delete sandboxes that are no longer needed, or give tenants larger subnets ([network] subnet_prefix)",
    },
  );
}

function firstFree({ pools, subnetPrefix }: AddressRules, used: readonly Cidr[]): Cidr | undefined {
  for (const text of pools) {
    const pool = parseCidr(text);
    if (pool === undefined) continue;
    const end = pool.base + sizeOf(pool.prefix);
    let base = pool.base;
    while (base + sizeOf(subnetPrefix) <= end) {
      const subnet = { base, prefix: subnetPrefix };
      const blocking = used.filter((other) => overlaps(other, subnet));
      if (blocking.length === 0) return subnet;
      // on to the first subnet behind all that is in the way
      const behind = Math.max(...blocking.map((other) => other.base + sizeOf(other.prefix)));
      base = Math.max(base + sizeOf(subnetPrefix), behind);
    }
  }
  return undefined;
}

/** At most 15 characters, the kernel's bound. */
function bridgeName(hostId: string, tenant: string, taken: ReadonlySet<string>): string {
  for (let salt = 0; ; salt += 1) {
    const name = `${bridgePrefix}${digest(`${hostId}\n${tenant}\n${salt}`)}`;
    if (!taken.has(name)) return name;
  }
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 8);
}

/** Locally administered, 06:73, and the address. */
export function macOf(address: number): string {
  const bytes = [0x06, 0x73, ...[24, 16, 8, 0].map((shift) => (address >>> shift) & 255)];
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
