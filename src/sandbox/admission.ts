// Whether the host has room: requests within allocatable, limits within allocatable times the overcommit ratio, and
// a number of sandboxes. Everything promised is the sum over the records, so it cannot drift from them. What a tenant's
// quota leaves is told in the same terms: `tenant/quota.ts`.

import { type QuotaViolation, SandboxdError } from "../errors.ts";
import { holdsCapacity, type Resources, type SandboxRecord } from "./record.ts";

export interface Amounts {
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  readonly pids: number;
  readonly sandboxes: number;
}

export interface Capacity {
  /** What the machine has. `sandboxes` is the configured maximum. */
  readonly capacity: Amounts;
  /** Capacity less the system reserve. */
  readonly allocatable: Amounts;
  readonly cpuOvercommit: number;
  readonly memoryOvercommit: number;
}

export interface Promised {
  readonly requests: Amounts;
  readonly limits: Amounts;
}

/** What is promised to sandboxes that hold capacity. */
export function promised(records: readonly SandboxRecord[]): Promised {
  const requests = { cpuMillis: 0, memoryBytes: 0, pids: 0, sandboxes: 0 };
  const limits = { cpuMillis: 0, memoryBytes: 0, pids: 0, sandboxes: 0 };
  for (const record of records) {
    if (!holdsCapacity(record)) continue;
    const { resources } = record.spec;
    requests.cpuMillis += resources.cpuRequestMillis;
    requests.memoryBytes += resources.memoryRequestBytes;
    limits.cpuMillis += resources.cpuMillis;
    limits.memoryBytes += resources.memoryBytes;
    requests.pids += resources.pids;
    limits.pids += resources.pids;
    requests.sandboxes++;
    limits.sandboxes++;
  }
  return { requests, limits };
}

/** What a sandbox may come to have while its resources are changed from one to the other. */
export function larger(one: Resources, other: Resources): Resources {
  return {
    ...one,
    cpuMillis: Math.max(one.cpuMillis, other.cpuMillis),
    cpuRequestMillis: Math.max(one.cpuRequestMillis, other.cpuRequestMillis),
    memoryBytes: Math.max(one.memoryBytes, other.memoryBytes),
    memoryRequestBytes: Math.max(one.memoryRequestBytes, other.memoryRequestBytes),
    pids: Math.max(one.pids, other.pids),
  };
}

/** Every resource of which the host has not enough for a sandbox beside what is promised to the others. */
export function hostViolations(
  asked: Resources,
  others: Promised,
  host: Capacity,
  held?: Resources,
): readonly QuotaViolation[] {
  const { capacity, allocatable } = host;
  const { cpuMillis, memoryBytes } = allocatable;
  const cpuLimit = Math.floor(cpuMillis * host.cpuOvercommit);
  const memoryLimit = Math.floor(memoryBytes * host.memoryOvercommit);
  const { requests, limits } = others;
  const of = (
    key: "cpuMillis" | "cpuRequestMillis" | "memoryBytes" | "memoryRequestBytes" | "pids",
  ): Amount => ({
    asked: asked[key],
    held: held?.[key] ?? 0,
  });
  // of a resource whose request does not fit, the limit need not be told too
  return [
    exceeding("HOST", "cpu_millis", capacity.cpuMillis, 0, of("cpuMillis")) ??
      exceeding("HOST", "cpu_millis", cpuMillis, requests.cpuMillis, of("cpuRequestMillis")) ??
      exceeding("HOST", "cpu_millis", cpuLimit, limits.cpuMillis, of("cpuMillis")),
    exceeding("HOST", "memory_bytes", memoryBytes, requests.memoryBytes, of("memoryRequestBytes")) ??
      exceeding("HOST", "memory_bytes", memoryLimit, limits.memoryBytes, of("memoryBytes")),
    exceeding("HOST", "pids", allocatable.pids, limits.pids, of("pids")),
    exceeding("HOST", "sandboxes", allocatable.sandboxes, requests.sandboxes, {
      asked: 1,
      held: held === undefined ? 0 : 1,
    }),
  ].filter((violation) => violation !== undefined);
}

/** What is asked for of a resource. What a sandbox holds already is not refused, also where less than that would be left. */
export interface Amount {
  readonly asked: number;
  readonly held: number;
}

/** Of a resource, that what the others have leaves too little of it. */
export function exceeding(
  level: QuotaViolation["level"],
  resource: QuotaViolation["resource"],
  limit: number,
  others: number,
  { asked, held }: Amount,
): QuotaViolation | undefined {
  const free = Math.max(0, limit - others);
  return asked <= Math.max(free, held)
    ? undefined
    : { level, resource, limit, promised: others, asked, free };
}

/** @throws SandboxdError TENANT_QUOTA_EXCEEDED or HOST_CAPACITY_EXCEEDED naming every resource that does not suffice. */
export function refuseIfAny(
  violations: readonly QuotaViolation[],
  tenant: string,
  hint = "ask for less, stop or delete a sandbox of the tenant, or raise its quota with PutTenant",
): void {
  if (violations.length === 0) return;
  const wordsOf = (level: QuotaViolation["level"]) =>
    violations
      .filter((violation) => violation.level === level)
      .map((v) => `${v.resource}: asked ${v.asked}, free ${v.free} of ${v.limit}`)
      .join("; ");
  const [ofTenant, ofHost] = [wordsOf("TENANT"), wordsOf("HOST")];
  const host = `the host has not enough left: ${ofHost}`;
  if (ofTenant === "") {
    throw new SandboxdError("HOST_CAPACITY_EXCEEDED", host, {
      hint: "ask for less, stop a sandbox, or use another host",
      quotas: violations,
      retryDelayMs: 10_000,
    });
  }
  const message = `the quota of tenant "${tenant}" has not enough left: ${ofTenant}`;
  throw new SandboxdError("TENANT_QUOTA_EXCEEDED", ofHost === "" ? message : `${message}; and ${host}`, {
    hint,
    quotas: violations,
    metadata: { tenant },
  });
}
