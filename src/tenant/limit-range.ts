// What a tenant lets one sandbox ask for: the defaults of what nobody named, and the bounds of what is.

import type { FieldViolation, QuotaViolation } from "../errors.ts";
import { SandboxdError } from "../errors.ts";
import type { Resources } from "../sandbox/record.ts";
import type { LimitRange, RangeAmounts } from "./record.ts";

/** What a limit range can name, under the contract's names. */
export const rangeNames = {
  cpuMillis: "cpu_millis",
  cpuRequestMillis: "cpu_request_millis",
  memoryBytes: "memory_bytes",
  memoryRequestBytes: "memory_request_bytes",
  pids: "pids",
  openFiles: "open_files",
  tmpfsBytes: "tmpfs_bytes",
  tmpfsInodes: "tmpfs_inodes",
  shmBytes: "shm_bytes",
  logBytes: "log_bytes",
} as const satisfies Record<keyof RangeAmounts, string>;

type RangeKey = keyof typeof rangeNames;

const rangeKeys = Object.keys(rangeNames) as readonly RangeKey[];

/** Bounds nothing. */
export const noRange: LimitRange = { min: {}, max: {}, defaults: {}, maxRatio: {} };

/** A value that nobody asked for, brought within the range: it is no reason to refuse anything. */
export function within(range: LimitRange, key: RangeKey, value: number): number {
  return Math.max(range.min[key] ?? 0, Math.min(range.max[key] ?? value, value));
}

/** The least request that a limit may have under a ratio. */
export function leastRequest(limit: number, ratio: number | undefined): number {
  return ratio === undefined ? 0 : Math.ceil(limit / ratio);
}

/** @throws SandboxdError LIMIT_RANGE_VIOLATED naming each of `keys` that the range does not allow. */
export function checkRange(
  resources: Resources,
  range: LimitRange,
  tenant: string,
  keys: readonly RangeKey[] = rangeKeys,
): void {
  const found = [
    ...keys.flatMap((key) => outside(resources, range, key)),
    ...beyondRatio(resources, keys, "cpuMillis", "cpuRequestMillis", range.maxRatio.cpu),
    ...beyondRatio(resources, keys, "memoryBytes", "memoryRequestBytes", range.maxRatio.memory),
  ];
  if (found.length === 0) return;
  const words = found.map(({ field, description }) => `${field}: ${description}`).join("; ");
  throw new SandboxdError("LIMIT_RANGE_VIOLATED", `the limit range of tenant "${tenant}": ${words}`, {
    hint: "GetTenant shows the limit range; PutTenant changes it",
    fields: found.map(({ field, description }) => ({ field, description })),
    quotas: found.map(({ quota }) => quota),
    metadata: { tenant },
  });
}

/** What is wrong with a range itself. `field` is where it stands in the request. */
export function rangeViolations(
  { min, max, defaults }: LimitRange,
  field: string,
): readonly FieldViolation[] {
  const at = (part: string, key: RangeKey) => `${field}.${part}.${rangeNames[key]}`;
  const above = (lower: number | undefined, upper: number | undefined) =>
    lower !== undefined && upper !== undefined && lower > upper;
  return [
    ...rangeKeys.flatMap((key) => {
      if (above(min[key], max[key]))
        return [{ field: at("min", key), description: `${min[key]} is more than max, ${max[key]}` }];
      if (above(min[key], defaults[key]))
        return [{ field: at("default", key), description: `${defaults[key]} is less than min, ${min[key]}` }];
      if (above(defaults[key], max[key]))
        return [{ field: at("default", key), description: `${defaults[key]} is more than max, ${max[key]}` }];
      return [];
    }),
    ...[
      ["cpuRequestMillis", "cpuMillis"] as const,
      ["memoryRequestBytes", "memoryBytes"] as const,
      ["tmpfsBytes", "memoryBytes"] as const,
      ["shmBytes", "memoryBytes"] as const,
    ].flatMap(([lower, upper]) =>
      above(defaults[lower], defaults[upper])
        ? [
            {
              field: at("default", lower),
              description: `${defaults[lower]} is more than ${rangeNames[upper]}, ${defaults[upper]}`,
            },
          ]
        : [],
    ),
  ];
}

interface Found extends FieldViolation {
  readonly quota: QuotaViolation;
}

function outside(resources: Resources, { min, max }: LimitRange, key: RangeKey): readonly Found[] {
  const value = resources[key];
  const [least, most] = [min[key], max[key]];
  if (most !== undefined && value > most)
    return [found(key, value, most, `${value} is more than the ${most} that one sandbox may have`)];
  if (least !== undefined && value < least)
    return [found(key, value, least, `${value} is less than the ${least} that one sandbox must have`)];
  return [];
}

function beyondRatio(
  resources: Resources,
  keys: readonly RangeKey[],
  limit: "cpuMillis" | "memoryBytes",
  request: "cpuRequestMillis" | "memoryRequestBytes",
  ratio: number | undefined,
): readonly Found[] {
  if (!keys.includes(limit) && !keys.includes(request)) return [];
  const least = leastRequest(resources[limit], ratio);
  const value = resources[request];
  if (value >= least) return [];
  const description = `${value} is less than ${least}: ${rangeNames[limit]}, ${resources[limit]}, may be ${ratio} times as much`;
  return [found(request, value, least, description)];
}

function found(key: RangeKey, asked: number, limit: number, description: string): Found {
  const resource = rangeNames[key];
  return {
    field: `spec.resources.${resource}`,
    description,
    quota: { level: "SANDBOX", resource, limit, promised: 0, asked, free: limit },
  };
}
