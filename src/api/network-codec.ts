// Between the contract's networks and the domain's: policies, bounds, and what is seen of them.

import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type EgressPolicy as EgressMessage,
  type EgressPolicySchema,
  EgressScope,
  type NetworkLimits as LimitsMessage,
  type NetworkDenialSchema,
  type NetworkLimitsSchema,
  NetworkProtocol,
  type PortRange as PortRangeMessage,
  type PortRangeSchema,
  type SandboxNetworkSchema,
} from "../../gen/sandboxd/v1/network_pb.ts";
import { NetworkMode, type SandboxSpec, type SandboxSpecSchema } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type {
  TenantNetwork as TenantNetworkMessage,
  TenantNetworkSchema,
} from "../../gen/sandboxd/v1/tenant_pb.ts";
import { cidrText, parseCidr } from "../network/addresses.ts";
import type { NetworkDenial } from "../network/denials.ts";
import { canonicalDomain } from "../network/domains.ts";
import type { EffectiveNetwork } from "../network/effective.ts";
import {
  defaultEgress,
  type EgressPolicy,
  limitKeys,
  type NetworkLimits,
  type NetworkPlace,
  networkModes,
  noNetwork,
  type PortRange,
  type SandboxNetworkSpec,
  type TenantNetwork,
} from "../network/policy.ts";
import type { NetworkRequest } from "../sandbox/network-spec.ts";
import { timestampOf } from "./time-codec.ts";

/** A message that has yet to be made; its parts are plain values. */
type Init<T> = Exclude<T, { readonly $typeName: string }>;
type SpecInit = Init<MessageInitShape<typeof SandboxSpecSchema>>;

/** What is seen of a sandbox's network now, besides its place. */
export interface NetworkView {
  readonly effective: EffectiveNetwork;
  /** Whether the kernel holds its rules. */
  readonly enforced: boolean;
  readonly denials: {
    readonly policy: number;
    readonly host: number;
    readonly peer: number;
    readonly spoofed: number;
    readonly connections: number;
    readonly packets: number;
    readonly queries: number;
    readonly queriesRefused: number;
    readonly sni: number;
  };
}

/** What a caller's spec asks for. Only what is set: requests that mean the same must stay equal over releases. */
export function networkRequestOf(spec: SandboxSpec | undefined): NetworkRequest {
  if (spec === undefined) return {};
  const { networkMode, egress, networkLimits } = spec;
  const mode = modeOf(networkMode);
  return {
    ...(mode === undefined ? {} : { networkMode: mode }),
    ...(egress === undefined ? {} : { egress: egressOf(egress) }),
    ...(networkLimits === undefined ? {} : { networkLimits: networkLimitsOf(networkLimits) }),
  };
}

/** The effective spec's part, as it is told. */
export function networkSpecOf({ networkMode, egress, networkLimits }: SandboxNetworkSpec): SpecInit {
  return {
    networkMode: NetworkMode[networkMode],
    ...(egress === undefined ? {} : { egress: egressMessageOf(egress) }),
    ...(networkLimits === undefined ? {} : { networkLimits: networkLimitsMessageOf(networkLimits) }),
  };
}

/** Complete. What is no address and no name stays as it is, to be refused by that text. */
export function egressOf(message: EgressMessage): EgressPolicy {
  const { scope, ports, allowCidrs, denyCidrs, allowDomains, checkSni } = message;
  return {
    scope: scope === EgressScope.LISTED ? "LISTED" : "PUBLIC",
    ports: ports.length === 0 ? defaultEgress.ports : ports.map(portRangeOf),
    allowCidrs: allowCidrs.map(canonicalCidr),
    denyCidrs: denyCidrs.map(canonicalCidr),
    allowDomains: allowDomains.map(canonicalDomain),
    ...(checkSni ? { checkSni } : {}),
  };
}

export function networkLimitsOf(message: LimitsMessage): NetworkLimits {
  return Object.fromEntries(
    limitKeys.flatMap((key) => (message[key] === undefined ? [] : [[key, Number(message[key])]])),
  );
}

/** What a caller puts; complete. */
export function tenantNetworkOf(message: TenantNetworkMessage | undefined): TenantNetwork {
  if (message === undefined) return noNetwork;
  const { modes, allowPeers, egress, forwardPorts, limits, proxy } = message;
  const named = new Set(modes.map(modeOf));
  return {
    modes: networkModes.filter((mode) => mode === "NONE" || named.has(mode)),
    allowPeers,
    egress: egress === undefined ? defaultEgress : egressOf(egress),
    forwardPorts: forwardPorts.length === 0 ? noNetwork.forwardPorts : forwardPorts.map(portRangeOf),
    limits: limits === undefined ? {} : networkLimitsOf(limits),
    ...(proxy === "" ? {} : { proxy }),
  };
}

/** A tenant's policy, as it is told. */
export function tenantNetworkMessageOf(
  network: TenantNetwork,
): Init<MessageInitShape<typeof TenantNetworkSchema>> {
  const { modes, allowPeers, egress, forwardPorts, limits, proxy = "" } = network;
  return {
    modes: modes.map((mode) => NetworkMode[mode]),
    allowPeers,
    egress: egressMessageOf(egress),
    forwardPorts: forwardPorts.map(portRangeMessageOf),
    limits: networkLimitsMessageOf(limits),
    proxy,
  };
}

/** A sandbox's place, and what is seen there. */
export function networkStatusOf(
  { bridge, address, gateway }: NetworkPlace,
  { effective: { egress }, enforced, denials }: NetworkView,
): Init<MessageInitShape<typeof SandboxNetworkSchema>> {
  return {
    bridge,
    address,
    gateway,
    ...(egress === undefined ? {} : { egress: egressMessageOf(egress) }),
    enforced,
    denials: {
      policy: BigInt(denials.policy),
      host: BigInt(denials.host),
      peer: BigInt(denials.peer),
      spoofed: BigInt(denials.spoofed),
      connections: BigInt(denials.connections),
      packets: BigInt(denials.packets),
      queries: BigInt(denials.queries),
      queriesRefused: BigInt(denials.queriesRefused),
      sni: BigInt(denials.sni),
    },
  };
}

export function denialOf(denial: NetworkDenial): Init<MessageInitShape<typeof NetworkDenialSchema>> {
  const { reason, destination, protocol, count, timeMs } = denial;
  return {
    reason,
    destination,
    ...(protocol === undefined ? {} : { protocol: NetworkProtocol[protocol] }),
    count: BigInt(count),
    time: timestampOf(timeMs),
  };
}

function egressMessageOf(policy: EgressPolicy): Init<MessageInitShape<typeof EgressPolicySchema>> {
  return {
    scope: EgressScope[policy.scope],
    ports: policy.ports.map(portRangeMessageOf),
    allowCidrs: [...policy.allowCidrs],
    denyCidrs: [...policy.denyCidrs],
    allowDomains: [...policy.allowDomains],
    checkSni: policy.checkSni === true,
  };
}

function networkLimitsMessageOf(limits: NetworkLimits): Init<MessageInitShape<typeof NetworkLimitsSchema>> {
  return Object.fromEntries(
    limitKeys.flatMap((key) => (limits[key] === undefined ? [] : [[key, BigInt(limits[key])]])),
  );
}

function portRangeOf({ protocol, first, last }: PortRangeMessage): PortRange {
  return { protocol: protocol === NetworkProtocol.UDP ? "UDP" : "TCP", first, last: last || first };
}

function portRangeMessageOf({
  protocol,
  first,
  last,
}: PortRange): Init<MessageInitShape<typeof PortRangeSchema>> {
  return { protocol: NetworkProtocol[protocol], first, last };
}

/** Undefined for UNSPECIFIED, and for numbers that the contract does not know. */
function modeOf(mode: NetworkMode): TenantNetwork["modes"][number] | undefined {
  return networkModes.find((name) => NetworkMode[name] === mode);
}

function canonicalCidr(text: string): string {
  const block = parseCidr(text);
  return block === undefined ? text : cidrText(block);
}
