// What is in the sets of the tables: one element or a few for each bridge, sandbox and policy, so that the number of rules stays the same.

import { parseAddress, parseCidr, sizeOf, specialCidrs } from "../addresses.ts";
import type { NetworkLimits } from "../policy.ts";
import { blocks, currentMarks } from "./policies.ts";
import type { BridgeRules } from "./rules.ts";
import type { HeldPolicy, HeldSandbox, State } from "./state.ts";

/** An element of a set. */
export interface Element {
  /** Family and name: "inet sandboxes". */
  readonly set: string;
  /** As nft reads it. */
  readonly key: string;
  /** What follows the key: a bound, or the value in a map. */
  readonly rest: string;
}

/** One element of a set is told from another by it. */
export const elementId = ({ key, rest }: Element): string => `${key}${rest}`.replaceAll('"', "");

const element = (set: string, key: string, rest = ""): Element => ({ set, key, rest });

/** Everything that is held, in no particular order. */
export function elementsOf(state: State, pools: readonly string[]): readonly Element[] {
  return [
    ...standing(pools),
    ...[...state.bridges.values()].flatMap(ofBridge),
    ...[...state.sandboxes.values()].flatMap(ofSandbox),
    ...[...state.policies.values()].flatMap(ofPolicy),
  ];
}

/** What goes and what comes, in that order. */
export function difference(
  before: State,
  after: State,
): { readonly gone: readonly Element[]; readonly come: readonly Element[] } {
  const gone = new Map<string, Element>();
  const come = new Map<string, Element>();
  const compare = <T>(
    old: ReadonlyMap<unknown, T>,
    now: ReadonlyMap<unknown, T>,
    of: (held: T) => readonly Element[],
  ) => {
    const id = (one: Element) => `${one.set} ${elementId(one)}`;
    for (const [key, held] of old)
      if (now.get(key) !== held) for (const one of of(held)) gone.set(id(one), one);
    for (const [key, held] of now)
      if (old.get(key) !== held) for (const one of of(held)) come.set(id(one), one);
  };
  compare(before.bridges, after.bridges, ofBridge);
  compare(before.sandboxes, after.sandboxes, ofSandbox);
  compare(before.policies, after.policies, ofPolicy);
  const staying = [...gone.keys()].filter((id) => come.has(id));
  for (const id of staying) {
    gone.delete(id);
    come.delete(id);
  }
  return { gone: [...gone.values()], come: [...come.values()] };
}

function standing(pools: readonly string[]): readonly Element[] {
  return [
    ...blocks(pools).map((block) => element("inet pools", block)),
    ...blocks([...specialCidrs, ...pools]).map((block) => element("inet reserved", block)),
  ];
}

function ofBridge({ bridge, subnet, gateway, peers }: BridgeRules): readonly Element[] {
  const name = `"${bridge}"`;
  return [
    element("inet bridges", name),
    element("inet gateways", `${name} . ${gateway}`),
    element("bridge gateways", gateway),
    element("bridge macs", macsOf(subnet)),
    ...(peers ? [element("inet peers", `${name} . ${name}`), element("bridge peers", macsOf(subnet))] : []),
  ];
}

function ofSandbox({ rules, policy }: HeldSandbox): readonly Element[] {
  const key = `"${rules.bridge}" . ${rules.address}`;
  return [
    element("inet sandboxes", key, ` : ${policy}`),
    element("bridge places", `${macOf(rules.address)} . ${rules.address}`),
    ...boundsOf(rules.limits).map(([set, bound]) => element(set, key, ` ${bound}`)),
  ];
}

/** A quarter of a second's packets may come at once, and all of a second's connections: programs do not space them out. */
function boundsOf(limits: NetworkLimits): readonly (readonly [string, string])[] {
  const { packetsPerSecond, newConnectionsPerSecond, connections } = limits;
  return [
    packetsPerSecond && ["inet packets", rateOver(packetsPerSecond, Math.max(5, packetsPerSecond / 4))],
    newConnectionsPerSecond && ["inet rates", rateOver(newConnectionsPerSecond, newConnectionsPerSecond)],
    connections && ["inet connections", `ct count over ${connections}`],
  ].filter((bound): bound is [string, string] => Array.isArray(bound));
}

function rateOver(perSecond: number, burst: number): string {
  return `limit rate over ${perSecond}/second burst ${Math.floor(burst)} packets`;
}

function ofPolicy({ number, policy, heirOf }: HeldPolicy): readonly Element[] {
  const of = (set: string, values: readonly string[]) =>
    values.map((value) => element(set, `${number} . ${value}`));
  return [
    ...of("inet ports", policy.ports),
    ...of("inet allowed", policy.allowed),
    ...of("inet refused", policy.refused),
    ...(policy.isPublic ? [element("inet public", String(number))] : []),
    ...(policy.isProxied ? [element("inet proxied", String(number))] : []),
    ...(policy.isChecked === true ? [element("inet checked", String(number))] : []),
    ...currentMarks(number).map((mark) => element("inet current", `${mark} . ${number}`)),
    ...[...heirOf].map((ancestor) => element("inet heirs", `${ancestor} . ${number}`)),
  ];
}

/** All hardware addresses of sandboxes begin with it; see `NetworkPlace`. */
const macPrefix = "06:73";

export function macOf(address: string): string {
  return macText(parseAddress(address) ?? 0);
}

/** The address that a sandbox's hardware address stands for; undefined if it is not one of a sandbox. */
export function addressOfMac(mac: string): string | undefined {
  if (!mac.startsWith(`${macPrefix}:`)) return undefined;
  return mac
    .slice(macPrefix.length + 1)
    .split(":")
    .map((byte) => Number.parseInt(byte, 16))
    .join(".");
}

function macsOf(subnet: string): string {
  const { base, prefix } = parseCidr(subnet) ?? { base: 0, prefix: 32 };
  if (prefix === 32) return macText(base);
  return `${macText(base)}-${macText(base + sizeOf(prefix) - 1)}`;
}

function macText(address: number): string {
  const bytes = [24, 16, 8, 0].map((shift) => ((address >>> shift) & 255).toString(16).padStart(2, "0"));
  return `${macPrefix}:${bytes.join(":")}`;
}
