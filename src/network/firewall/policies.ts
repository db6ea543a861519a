// Egress policies as the elements of sets: each distinct policy has a number, by which the rules find its ports and addresses. The number
// follows from what the policy says, so that connections that the kernel remembers by it outlive the daemon.

import { createHash } from "node:crypto";
import { isPatternWithin } from "../domains.ts";
import type { EffectiveEgress } from "../effective.ts";
import { canonicalPorts } from "../intersect.ts";
import { cidrsOf, setOf } from "../ranges.ts";

export interface Policy {
  /** Equal for those that allow the same. */
  readonly key: string;
  /** Without them: every address, except those that are not public. */
  readonly isPublic: boolean;
  /** Its one destination may be an address of the host itself. */
  readonly isProxied: boolean;
  /** "tcp . 443", "udp . 1000-2000". */
  readonly ports: readonly string[];
  readonly allowed: readonly string[];
  readonly refused: readonly string[];
  /** Whose addresses are learned. */
  readonly domains: readonly string[];
  /** Whether connections to those on TCP 443 are led to the daemon. Absent: no. */
  readonly isChecked?: true;
}

/** The number of those that reach nothing outside: no set has it. */
export const internalNumber = 255;
/** Lower ones have other meanings. */
const leastNumber = 256;

const known = new WeakMap<EffectiveEgress, Policy>();

export function policyOf(egress: EffectiveEgress): Policy {
  const before = known.get(egress);
  if (before !== undefined) return before;
  const policy = translate(egress);
  known.set(egress, policy);
  return policy;
}

function translate({ proxy, ...egress }: EffectiveEgress): Policy {
  const only = proxy && {
    isPublic: false,
    isProxied: true,
    ports: [`tcp . ${proxy.port}`],
    allowed: blocks([proxy.address]),
    refused: [],
    domains: [],
  };
  const content = only ?? {
    isPublic: egress.scope === "PUBLIC",
    isProxied: false,
    ports: canonicalPorts(egress.ports).map(
      ({ protocol, first, last }) =>
        `${protocol.toLowerCase()} . ${first === last ? first : `${first}-${last}`}`,
    ),
    allowed: blocks(egress.allowCidrs),
    refused: blocks(egress.denyCidrs),
    domains: egress.allowDomains.toSorted(),
    ...(egress.checkSni === true ? { isChecked: true as const } : {}),
  };
  return { key: JSON.stringify(content), ...content };
}

/** As nft prints them. */
export function blocks(cidrs: readonly string[]): readonly string[] {
  return cidrsOf(setOf(cidrs)).map((cidr) => cidr.replace(/\/32$/, ""));
}

/**
 * Connections have the number of the policy that let them out as their mark in the kernel. With these bits turned it was for their address itself, not for a name
 * that it was learned for: only the latter go on under another policy that allows the name.
 */
export const ofAddresses = 0xffffffff;

/** The marks of connections that a policy has let out and need not be judged under it again. */
export const currentMarks = (number: number): readonly number[] => [number, (number ^ ofAddresses) >>> 0];

/** The first of its numbers that is not another's, in any of their marks. */
export function numberOf({ key }: Policy, isOthers: (number: number) => boolean): number {
  for (let salt = 0; ; salt += 1) {
    const number = createHash("sha256").update(`${salt} ${key}`).digest().readUInt32BE(0);
    if (currentMarks(number).every((mark) => mark >= leastNumber && !isOthers(mark))) return number;
  }
}

/** Whether every name that `inner` allows is allowed by `outer`. */
export function isWithin(inner: Policy, outer: Policy): boolean {
  return inner.domains.every((pattern) => outer.domains.some((wider) => isPatternWithin(pattern, wider)));
}
