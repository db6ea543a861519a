// What the tests of policies share: a model of what a policy allows, written apart from the program's sets, and policies to try.

import fc from "fast-check";
import { addressText, isPublic, parseAddress, parseCidr } from "../../../src/network/addresses.ts";
import type { EgressPolicy, PortRange } from "../../../src/network/policy.ts";

/** A try to connect. `names`: those by which the address was just found. */
export interface Attempt {
  readonly address: string;
  readonly port: number;
  readonly protocol: PortRange["protocol"];
  readonly names: readonly string[];
}

/** As the contract's comments say it, in the simplest words that there are. */
export function allows(policy: EgressPolicy, { address, port, protocol, names }: Attempt): boolean {
  const isOpen = policy.ports.some(
    (range) => range.protocol === protocol && range.first <= port && port <= range.last,
  );
  const isNamed = isPublic(address) && names.some((name) => resolves(policy, name));
  const isListed = policy.allowCidrs.some((cidr) => isIn(cidr, address));
  const isAllowed = policy.scope === "PUBLIC" ? isPublic(address) || isListed : isListed || isNamed;
  return isOpen && isAllowed && !policy.denyCidrs.some((cidr) => isIn(cidr, address));
}

/** Whether a name may be looked up. */
export function resolves({ scope, allowDomains }: EgressPolicy, name: string): boolean {
  return (
    scope === "PUBLIC" ||
    allowDomains.some((pattern) =>
      pattern.startsWith("*.")
        ? name.endsWith(pattern.slice(1)) && name !== pattern.slice(2)
        : name === pattern,
    )
  );
}

function isIn(cidr: string, address: string): boolean {
  const block = parseCidr(cidr);
  const number = parseAddress(address);
  if (block === undefined || number === undefined) throw new Error(`${cidr}, ${address}`);
  const mask = (value: number) => (block.prefix === 0 ? 0 : value >>> (32 - block.prefix));
  return mask(block.base) === mask(number);
}

/** Close to each other, and on both sides of where what is public ends. */
const bases = ["9.255.254.0", "10.0.0.0", "10.0.1.0", "11.0.0.0", "203.0.112.0", "203.0.113.0", "8.8.8.0"];

const cidr = fc
  .tuple(fc.constantFrom(...bases), fc.integer({ min: 0, max: 255 }), fc.integer({ min: 5, max: 32 }))
  .map(([base, offset, prefix]) => {
    const number = (parseAddress(base) ?? 0) + offset;
    const size = 2 ** (32 - prefix);
    return `${addressText(number - (number % size))}/${prefix}`;
  });

const cidrs = fc.array(cidr, { maxLength: 4 });

const name = fc.constantFrom(
  "example.com",
  "a.example.com",
  "b.a.example.com",
  "example.org",
  "ample.com",
  "com",
);
const pattern = fc.tuple(fc.boolean(), name).map(([isWild, text]) => (isWild ? `*.${text}` : text));

const port = fc.integer({ min: 1, max: 4 });
const range = fc
  .tuple(fc.constantFrom<PortRange["protocol"]>("TCP", "UDP"), port, fc.integer({ min: 0, max: 3 }))
  .map(([protocol, first, more]) => ({ protocol, first, last: first + more }));

/** Valid by itself: names only where a list is asked for. */
export const policy: fc.Arbitrary<EgressPolicy> = fc
  .record({
    scope: fc.constantFrom<EgressPolicy["scope"]>("PUBLIC", "LISTED"),
    ports: fc.array(range, { minLength: 1, maxLength: 4 }),
    allowCidrs: cidrs,
    denyCidrs: fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, cidrs),
    allowDomains: fc.array(pattern, { maxLength: 4 }),
  })
  .map((one) => (one.scope === "PUBLIC" ? { ...one, allowDomains: [] } : one));

export const attempt: fc.Arbitrary<Attempt> = fc.record({
  address: fc
    .tuple(fc.constantFrom(...bases), fc.integer({ min: -2, max: 600 }))
    .map(([base, offset]) => addressText((parseAddress(base) ?? 0) + offset)),
  port: fc.integer({ min: 1, max: 8 }),
  protocol: fc.constantFrom<PortRange["protocol"]>("TCP", "UDP"),
  names: fc.array(name, { maxLength: 2 }),
});

export const anyName = name;
