// IPv4 addresses and CIDR blocks as texts and as numbers, and which of them are public.

import { BlockList, isIPv4 } from "node:net";

/** A block of addresses, canonical: no bit is set outside of the prefix. */
export interface Cidr {
  /** Of its first address. */
  readonly base: number;
  /** 0 to 32. */
  readonly prefix: number;
}

/**
 * Every IPv4 block that is not globally reachable, and multicast: IANA IPv4 Special-Purpose Address Registry
 * (https://www.iana.org/assignments/iana-ipv4-special-registry), read 2026-11, and RFC 5771.
 */
export const specialCidrs = [
  "0.0.0.0/8", // this network
  "10.0.0.0/8", // private
  "100.64.0.0/10", // shared: carrier-grade NAT
  "127.0.0.0/8", // loopback
  "169.254.0.0/16", // link-local: metadata services
  "172.16.0.0/12", // private
  "192.0.0.0/24", // protocol assignments, DS-Lite and NAT64 discovery among them
  "192.0.2.0/24", // documentation
  "192.88.99.0/24", // 6to4 relays
  "192.168.0.0/16", // private
  "198.18.0.0/15", // benchmarking
  "198.51.100.0/24", // documentation
  "203.0.113.0/24", // documentation
  "224.0.0.0/4", // multicast
  "240.0.0.0/4", // reserved, broadcast
] as const;

const special = new BlockList();
for (const block of specialCidrs) {
  const [base = "", prefix = ""] = block.split("/");
  special.addSubnet(base, Number(prefix), "ipv4");
}

/** Whether an IPv4 address is one of the public internet. What is no IPv4 address is not. */
export function isPublic(address: string): boolean {
  return isIPv4(address) && !special.check(address, "ipv4");
}

/** Undefined for what is no IPv4 address in dotted form. */
export function parseAddress(text: string): number | undefined {
  if (!isIPv4(text)) return undefined;
  return text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

export function addressText(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}

/** A block, or a single address. Undefined for what is neither, or has bits set outside of its prefix. */
export function parseCidr(text: string): Cidr | undefined {
  const [address = "", prefixText, ...rest] = text.split("/");
  const base = parseAddress(address);
  if (base === undefined || rest.length > 0) return undefined;
  if (prefixText === undefined) return { base, prefix: 32 };
  if (!/^(0|[1-9]\d?)$/.test(prefixText)) return undefined;
  const prefix = Number(prefixText);
  if (prefix > 32 || base % sizeOf(prefix) !== 0) return undefined;
  return { base, prefix };
}

export function cidrText({ base, prefix }: Cidr): string {
  return `${addressText(base)}/${prefix}`;
}

/** How many addresses a block of this prefix has. */
export function sizeOf(prefix: number): number {
  return 2 ** (32 - prefix);
}

/** Whether all of `inner` is in `outer`. */
export function contains(outer: Cidr, inner: Cidr): boolean {
  return (
    inner.prefix >= outer.prefix && inner.base >= outer.base && inner.base < outer.base + sizeOf(outer.prefix)
  );
}

/** Blocks are equal, one in the other, or apart. */
export function overlaps(one: Cidr, other: Cidr): boolean {
  return contains(one, other) || contains(other, one);
}
