// The keys that say who the owners of sandboxes are, and what those may have that were never put.

import { choice, integer, ratio, section, size, text } from "./field.ts";
import { tenantNetworkSection } from "./network.ts";
import { mapValues, optional, resourceBounds, tebibyte } from "./resource.ts";
import * as rule from "./rule.ts";

export const tenantsSection = () =>
  section("Owners of sandboxes.", {
    uid_range: text(rule.uidRange, {
      default: "300000-399999",
      meaning: "User and group ids given to tenants, one each. No user of the host may have one of them.",
    }),
    unknown: choice({
      of: ["accept", "refuse"],
      default: "accept",
      meaning: "Whether a tenant that was never put is made for its first sandbox, or that is refused.",
    }),
    default: section("What a tenant may have that was never put. A bound that is left out is none.", {
      quota: quotaSection("All of its sandboxes and workspaces together."),
      limit_range: limitRangeSection("Each of its sandboxes."),
      network: tenantNetworkSection(),
    }),
  });

const requestMeanings = {
  cpu_request_millis: {
    max: resourceBounds.cpu_millis.max,
    meaning: "CPU that admission sets aside. Millicores.",
  },
  memory_request_bytes: {
    max: resourceBounds.memory_bytes.max,
    meaning: "Memory that admission sets aside.",
  },
} as const;

/** The resources of one part of a limit range: all may be left out. */
function rangeFields() {
  return {
    ...mapValues(resourceBounds, optional),
    ...mapValues(requestMeanings, (key, { max, meaning }) => optional(key, { min: 1, max, meaning })),
  };
}

/** Kept equal to `sandboxd.v1.LimitRange`; a test compares them. */
function limitRangeSection(meaning: string) {
  return section(meaning, {
    min: section("The least of each that is named.", rangeFields()),
    max: section("The most of each that is named. Defaults above it are lowered to it.", rangeFields()),
    default: section("Of what neither the request nor its template names.", rangeFields()),
    max_limit_request_ratio: section("How many times its request a limit may be.", {
      cpu: ratio({ min: 1, max: 100_000, meaning: "Of CPU. Left out: unbounded." }),
      memory: ratio({ min: 1, max: 100_000, meaning: "Of memory. Left out: unbounded." }),
    }),
  });
}

const mostSandboxes = 100_000;

/** Kept equal to `sandboxd.v1.TenantQuota`; a test compares them. */
export function quotaSection(meaning: string) {
  return section(meaning, {
    sandboxes: integer({ min: 0, max: mostSandboxes, meaning: "Most sandboxes, stopped ones included." }),
    running_sandboxes: integer({
      min: 0,
      max: mostSandboxes,
      meaning: "Most sandboxes that run or are to run.",
    }),
    cpu_request_millis: integer({
      min: 0,
      max: resourceBounds.cpu_millis.max,
      meaning: "Most CPU set aside for those that run. Millicores.",
    }),
    cpu_millis: integer({
      min: 0,
      max: 1_000 * resourceBounds.cpu_millis.max,
      meaning: "Most CPU that those that run may use together. Millicores.",
    }),
    memory_request_bytes: size({
      min: 0,
      max: 1024 * tebibyte,
      meaning: "Most memory set aside for those that run.",
    }),
    memory_bytes: size({
      min: 0,
      max: 1024 * tebibyte,
      meaning: "Most memory that those that run may use together.",
    }),
    pids: integer({
      min: 0,
      max: resourceBounds.pids.max,
      meaning: "Most processes and threads of those that run.",
    }),
    workspaces: integer({ min: 0, max: mostSandboxes, meaning: "Most workspaces." }),
    disk_bytes: size({
      min: 0,
      max: 1024 * tebibyte,
      meaning: "Most bytes on disk: the sizes of its workspaces, and its snapshots.",
    }),
    inodes: integer({
      min: 0,
      max: 1_000_000_000_000,
      meaning: "Most files, directories and links on disk, likewise.",
    }),
  });
}
