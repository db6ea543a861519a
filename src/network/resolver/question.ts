// Which questions of a sandbox are asked outside, and what the others are told.

import { isPublic } from "../addresses.ts";
import type { EffectiveEgress } from "../effective.ts";
import { mayResolve } from "../intersect.ts";
import type { Query } from "./message.ts";

export type Verdict =
  /** Another nameserver is asked. */
  | "ASK"
  /** The name may exist, and has nothing of this type that a sandbox could use. */
  | "EMPTY"
  /** No name of the outside: there is nothing behind it, for whomever. */
  | "ABSENT"
  /** A name that the policy does not allow. */
  | "DENIED"
  /** Not a question about data of the internet. */
  | "REFUSED";

/** What is asked outside. AAAA, HTTPS and SVCB are not: they would name addresses that are never learnt, or no sandbox has a way to. */
const askedTypes: ReadonlySet<string> = new Set(["A", "CNAME", "MX", "TXT", "SRV", "PTR"]);
/** About more than one name or type. */
const metaTypes: ReadonlySet<string> = new Set(["ANY", "AXFR", "IXFR"]);

/** Zones that are never asked outside: RFC 6761, 6762, 7686; and those of IPv6 addresses, which no sandbox has. */
const insideZones = ["localhost", "local", "invalid", "onion", "ip6.arpa"];

/** Labels of letters, digits, "-", "_" and, for RFC 2317, "/". */
const sound = /^(?=.{1,253}$)[a-z0-9_/-]{1,63}(\.[a-z0-9_/-]{1,63})*$/;

/** `egress`: of a sandbox that may reach the outside. */
export function judge(query: Query, egress: EffectiveEgress | undefined): Verdict {
  const { name, type } = query;
  if (!query.isInternet || metaTypes.has(type)) return "REFUSED";
  if (name === ".") return "EMPTY";
  if (!isOutside(name)) return "ABSENT";
  if (egress === undefined || egress.proxy !== undefined || !mayResolve(egress, name)) return "DENIED";
  return askedTypes.has(type) ? "ASK" : "EMPTY";
}

/** Whether the name can be written and logged as it is. In lower case. */
export function isSound(name: string): boolean {
  return sound.test(name);
}

/** Whether addresses are reachable only once they were found by an allowed name. */
export function isByName({ allowDomains }: EffectiveEgress): boolean {
  return allowDomains.length > 0;
}

/** Names without a dot are peers, which the engine knows, or typing errors. */
function isOutside(name: string): boolean {
  if (!isSound(name) || !name.includes(".")) return false;
  if (insideZones.some((zone) => isBelow(name, zone))) return false;
  return !isBelow(name, "in-addr.arpa") || isPublic(addressOf(name));
}

/** Of a name below in-addr.arpa, which may name a block by fewer than four numbers: its first address. */
function addressOf(name: string): string {
  const labels = name.split(".").slice(0, -2).reverse().slice(0, 4);
  return [...labels, "0", "0", "0"].slice(0, 4).map(numberOf).join(".");
}

/** A block that is no multiple of eight bits ends with its first number and its length (RFC 2317). */
function numberOf(label: string): string {
  return label.replace(/[/-]\d+$/, "");
}

function isBelow(name: string, zone: string): boolean {
  return name.endsWith(`.${zone}`);
}
