// What is believed of a nameserver's response, and what of it a sandbox may see.

import { isIPv4 } from "node:net";
import { isPublic } from "../addresses.ts";
import type { EffectiveEgress } from "../effective.ts";
import { hasAddress, setOf } from "../ranges.ts";
import { codes, type Question, type ResourceRecord, type Response } from "./message.ts";
import { isSound } from "./question.ts";

export interface Answer {
  readonly code: "NOERROR" | "NXDOMAIN" | "SERVFAIL";
  /** Aliases from the name on, then what they lead to. */
  readonly records: readonly ResourceRecord[];
  /** How long it holds; 0: for whoever waits for it now, and nobody after. */
  readonly ttlMs: number;
}

/** Nothing could be found out. Held for a moment, so that whoever tries again at once asks nobody (RFC 9520). */
export const failure: Answer = { code: "SERVFAIL", records: [], ttlMs: 1_000 };

const minTtlSeconds = 1;
const maxTtlSeconds = 3_600;
/** That something is not there is believed for a shorter time (RFC 2308, 5): it may be on its way. */
const maxNegativeTtlSeconds = 300;
/** Longer chains are loops, or somebody's game. */
const mostAliases = 16;
/** So many addresses one answer may open. */
const mostRecords = 64;

/** Undefined for a response that says nothing of the name: another nameserver may know. Only what follows from the name is believed. */
export function answerOf(question: Question, { code, answers, authorities }: Response): Answer | undefined {
  if (code !== codes.NOERROR && code !== codes.NXDOMAIN) return undefined;
  const aliases: ResourceRecord[] = [];
  let name = question.name;
  while (question.type !== "CNAME" && aliases.length < mostAliases) {
    const alias = answers.find((record) => record.type === "CNAME" && isOf(record, name));
    if (alias?.type !== "CNAME" || !isUsable(alias)) break;
    aliases.push(alias);
    name = alias.data.toLowerCase();
  }
  const found = answers
    .filter((record) => record.type === question.type && isOf(record, name) && isUsable(record))
    .slice(0, mostRecords);
  const records = [...aliases, ...found];
  if (found.length > 0) return { code: "NOERROR", records, ttlMs: lifetimeMs(records) };
  return {
    code: code === codes.NXDOMAIN ? "NXDOMAIN" : "NOERROR",
    records: aliases,
    ttlMs: negativeLifetimeMs(aliases, authorities),
  };
}

/** Without addresses that are not public, unless the policy names them: a name must not lead into the host's network (rebinding). */
export function withoutInside(
  records: readonly ResourceRecord[],
  { allowCidrs }: EffectiveEgress,
): readonly ResourceRecord[] {
  const isInside = (record: ResourceRecord) => record.type === "A" && !isPublic(record.data);
  if (!records.some(isInside)) return records;
  const listed = setOf(allowCidrs);
  return records.filter((record) => !isInside(record) || hasAddress(listed, String(record.data)));
}

/** The public addresses among them. */
export function addressesOf(records: readonly ResourceRecord[]): readonly string[] {
  return records.flatMap(({ type, data }) => (type === "A" && isPublic(String(data)) ? [String(data)] : []));
}

function isOf(record: ResourceRecord, name: string): boolean {
  return record.name.toLowerCase() === name;
}

/** Whether it can be written again as it was meant. */
function isUsable(record: ResourceRecord): boolean {
  switch (record.type) {
    case "A":
      return isIPv4(record.data);
    case "CNAME":
    case "PTR":
      return isSound(record.data.toLowerCase());
    case "MX":
      // "." says that there is no mail (RFC 7505)
      return record.data.exchange === "." || isSound(record.data.exchange.toLowerCase());
    case "SRV":
      return record.data.target === "." || isSound(record.data.target.toLowerCase());
    default:
      return record.type === "TXT";
  }
}

function lifetimeMs(records: readonly ResourceRecord[]): number {
  const least = Math.min(maxTtlSeconds, ...records.map(ttlOf));
  return Math.max(minTtlSeconds, least) * 1_000;
}

/** RFC 2308, 5: as the zone says, and not at all where it says nothing. */
function negativeLifetimeMs(
  aliases: readonly ResourceRecord[],
  authorities: readonly ResourceRecord[],
): number {
  const zone = authorities.find((record) => record.type === "SOA");
  if (zone?.type !== "SOA") return 0;
  const { minimum = 0 } = zone.data;
  return Math.min(maxNegativeTtlSeconds, minimum, ttlOf(zone), ...aliases.map(ttlOf)) * 1_000;
}

/** One with the first bit set is none (RFC 2181, 8). */
function ttlOf({ ttl = 0 }: ResourceRecord): number {
  return ttl >= 2 ** 31 ? 0 : ttl;
}
