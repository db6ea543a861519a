// How a container is connected, and what the engine's network is that it is connected to: complete and bounded.

import { type Cidr, contains, parseAddress, parseCidr, sizeOf } from "../network/addresses.ts";

/** What the container may reach. */
export type ContainerNetwork =
  | { readonly mode: "none" }
  | {
      readonly mode: "bridge";
      /** Of the engine; there before the container is started. */
      readonly network: string;
      /** Its own for as long as the container exists; IPv4. */
      readonly address: string;
      /** Locally administered, in lower case, as 06:73:0a:d5:00:02. */
      readonly mac: string;
      /** The gateway of the network: nobody else is asked for names. */
      readonly dns: string;
    };

/** A bridge network of the engine: IPv4 alone, not masqueraded, open among its ports. Who may reach what, our rules say. */
export interface NetworkPlan {
  readonly name: string;
  /** The interface on the host, at most 15 characters. */
  readonly bridge: string;
  /** Canonical, as 10.213.0.0/26; prefix 8 to 29. */
  readonly subnet: string;
  /** An address of the subnet, which the bridge has on the host. */
  readonly gateway: string;
  readonly labels: Readonly<Record<string, string>>;
  /** The label of this prefix and `host` tells whose a network is: another's is never touched. */
  readonly labelPrefix: string;
}

/** Those that the engine has by itself are not among them. */
const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{7,127}$/;
/** The kernel's names have at most 15 characters. */
const bridgePattern = /^[a-z][a-z0-9]{1,14}$/;
/** Of one station, and locally administered. */
const macPattern = /^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/;

const [leastPrefix, mostPrefix] = [8, 29];

/** @throws RangeError naming the field and its value. */
export function checkContainerNetwork(network: ContainerNetwork): void {
  if (network.mode === "none") return;
  checkNetworkName("network.network", network.network);
  checkAddress("network.address", network.address);
  checkAddress("network.dns", network.dns);
  if (!macPattern.test(network.mac)) throw wrong("network.mac", network.mac, `not of the form ${macPattern}`);
}

/** @throws RangeError naming the field and its value. */
export function checkNetworkPlan(plan: NetworkPlan): void {
  checkNetworkName("name", plan.name);
  if (!bridgePattern.test(plan.bridge))
    throw wrong("bridge", plan.bridge, `not of the form ${bridgePattern}`);
  const subnet = parseCidr(plan.subnet);
  if (subnet === undefined || subnet.prefix < leastPrefix || subnet.prefix > mostPrefix)
    throw wrong("subnet", plan.subnet, `no block of IPv4 with a prefix from ${leastPrefix} to ${mostPrefix}`);
  const gateway = checkAddress("gateway", plan.gateway);
  if (!isHostIn(subnet, gateway))
    throw wrong("gateway", plan.gateway, `no address of a host in ${plan.subnet}`);
}

/** @throws RangeError. A name ends up in the path of a call. */
export function checkNetworkName(field: string, name: string): void {
  if (!namePattern.test(name)) throw wrong(field, name, `not of the form ${namePattern}`);
}

/** Neither the network's own address nor that for broadcasts. */
function isHostIn(subnet: Cidr, address: number): boolean {
  const last = subnet.base + sizeOf(subnet.prefix) - 1;
  return contains(subnet, { base: address, prefix: 32 }) && address !== subnet.base && address !== last;
}

function checkAddress(field: string, text: string): number {
  const address = parseAddress(text);
  if (address === undefined) throw wrong(field, text, "no IPv4 address");
  return address;
}

function wrong(field: string, value: string, what: string): RangeError {
  return new RangeError(`${field}: ${JSON.stringify(value)} is ${what}`);
}
