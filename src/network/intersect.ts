// What two policies have in common, exact where the contract can say it and narrower where it cannot. In one canonical form, so that
// policies that allow the same are equal values.

import { canonicalDomains, commonDomains, matchesDomain } from "./domains.ts";
import { type EgressPolicy, limitKeys, type NetworkLimits, type PortRange } from "./policy.ts";
import {
  type AddressSet,
  cidrsOf,
  difference,
  intersection,
  publicAddresses,
  setOf,
  specialAddresses,
  union,
} from "./ranges.ts";

/** The same in canonical form. */
export function canonicalEgress(policy: EgressPolicy): EgressPolicy {
  return canonical(policy, setOf(policy.allowCidrs), setOf(policy.denyCidrs));
}

/**
 * Allows nothing that either refuses. What one allows by address and the other by name is not in it: no policy can say so.
 */
export function intersectEgress(one: EgressPolicy, other: EgressPolicy): EgressPolicy {
  const common = {
    scope: one.scope === "PUBLIC" && other.scope === "PUBLIC" ? "PUBLIC" : "LISTED",
    ports: commonPorts(one.ports, other.ports),
    allowDomains: domainsOfBoth(one, other),
    ...(one.checkSni === true || other.checkSni === true ? { checkSni: true as const } : {}),
  } as const;
  const allowed = intersection(allowedByAddress(one), allowedByAddress(other));
  return canonical(common, allowed, union(setOf(one.denyCidrs), setOf(other.denyCidrs)));
}

/** What may be reached whatever its name is, before anything is denied. */
export function allowedByAddress({ scope, allowCidrs }: EgressPolicy): AddressSet {
  const listed = setOf(allowCidrs);
  return scope === "PUBLIC" ? union(publicAddresses, listed) : listed;
}

/** The same without what is denied. */
export function reachableByAddress(policy: EgressPolicy): AddressSet {
  return difference(allowedByAddress(policy), setOf(policy.denyCidrs));
}

/** A policy without addresses that are neither public nor allowed by the host. */
export function withinHost(policy: EgressPolicy, allowPrivate: readonly string[]): EgressPolicy {
  const host = union(publicAddresses, setOf(allowPrivate));
  return canonical(policy, intersection(setOf(policy.allowCidrs), host), setOf(policy.denyCidrs));
}

/**
 * Whether a name, in lower case and without a final dot, may be looked up. Where only addresses are listed, names are not needed: they
 * would be nothing but a way to talk to whom they belong to.
 */
export function mayResolve({ scope, allowDomains }: EgressPolicy, name: string): boolean {
  return scope === "PUBLIC" || allowDomains.some((pattern) => matchesDomain(pattern, name));
}

/** Of each bound the lower one. */
export function leastLimits(one: NetworkLimits, other: NetworkLimits): NetworkLimits {
  return Object.fromEntries(
    limitKeys.flatMap((key) => {
      const values = [one[key], other[key]].filter((value) => value !== undefined);
      return values.length === 0 ? [] : [[key, Math.min(...values)]];
    }),
  );
}

/** In order of protocol and port, none twice and none adjacent to another. */
export function canonicalPorts(ports: readonly PortRange[]): readonly PortRange[] {
  const result: PortRange[] = [];
  const inOrder = ports.toSorted((a, b) =>
    a.protocol === b.protocol ? a.first - b.first : a.protocol < b.protocol ? -1 : 1,
  );
  for (const { protocol, first, last } of inOrder) {
    const before = result.at(-1);
    if (before === undefined || before.protocol !== protocol || first > before.last + 1) {
      result.push({ protocol, first, last });
    } else {
      result[result.length - 1] = { protocol, first: before.first, last: Math.max(before.last, last) };
    }
  }
  return result;
}

function canonical(
  {
    scope,
    ports,
    allowDomains,
    checkSni,
  }: Pick<EgressPolicy, "scope" | "ports" | "allowDomains" | "checkSni">,
  allowed: AddressSet,
  denied: AddressSet,
): EgressPolicy {
  const isPublic = scope === "PUBLIC";
  const domains = isPublic ? [] : canonicalDomains(allowDomains);
  return {
    scope,
    ports: canonicalPorts(ports),
    // what is public is allowed without being named
    allowCidrs: cidrsOf(isPublic ? intersection(allowed, specialAddresses) : allowed),
    denyCidrs: cidrsOf(denied),
    allowDomains: domains,
    // without names there is nothing to check
    ...(checkSni === true && domains.length > 0 ? { checkSni } : {}),
  };
}

function commonPorts(one: readonly PortRange[], other: readonly PortRange[]): readonly PortRange[] {
  return one.flatMap((a) =>
    other
      .filter(({ protocol }) => protocol === a.protocol)
      .map((b) => ({
        protocol: a.protocol,
        first: Math.max(a.first, b.first),
        last: Math.min(a.last, b.last),
      }))
      .filter(({ first, last }) => first <= last),
  );
}

/** A policy of public scope says nothing of names, so the other's hold. */
function domainsOfBoth(one: EgressPolicy, other: EgressPolicy): readonly string[] {
  if (one.scope === "PUBLIC") return other.allowDomains;
  return other.scope === "PUBLIC" ? one.allowDomains : commonDomains(one.allowDomains, other.allowDomains);
}
