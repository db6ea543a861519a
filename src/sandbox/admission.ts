// Whether the host has room: requests within allocatable, limits within allocatable times the overcommit ratio, and
// a number of sandboxes. Everything promised is the sum over the records, so it cannot drift from them.

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

/** What is promised to sandboxes that hold capacity, but for `except`. */
export function promised(records: readonly SandboxRecord[], except?: string): Promised {
  const requests = { cpuMillis: 0, memoryBytes: 0, pids: 0, sandboxes: 0 };
  const limits = { cpuMillis: 0, memoryBytes: 0, pids: 0, sandboxes: 0 };
  for (const record of records) {
    if (record.id === except || !holdsCapacity(record)) continue;
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

/** @throws SandboxdError HOST_CAPACITY_EXCEEDED naming every resource that does not suffice. */
export function admit(asked: Resources, already: Promised, host: Capacity): void {
  const { allocatable } = host;
  const { cpuMillis, memoryBytes } = allocatable;
  const cpuLimit = Math.floor(cpuMillis * host.cpuOvercommit);
  const memoryLimit = Math.floor(memoryBytes * host.memoryOvercommit);
  const { requests, limits } = already;
  // of a resource whose request does not fit, the limit need not be told too
  const violations = [
    exceeding("cpu_millis", host.capacity.cpuMillis, 0, asked.cpuMillis) ??
      exceeding("cpu_millis", cpuMillis, requests.cpuMillis, asked.cpuRequestMillis) ??
      exceeding("cpu_millis", cpuLimit, limits.cpuMillis, asked.cpuMillis),
    exceeding("memory_bytes", memoryBytes, requests.memoryBytes, asked.memoryRequestBytes) ??
      exceeding("memory_bytes", memoryLimit, limits.memoryBytes, asked.memoryBytes),
    exceeding("pids", allocatable.pids, limits.pids, asked.pids),
    exceeding("sandboxes", allocatable.sandboxes, requests.sandboxes, 1),
  ].filter((violation) => violation !== undefined);
  if (violations.length === 0) return;
  const words = violations
    .map((v) => `${v.resource}: asked ${v.asked}, free ${v.free} of ${v.limit}`)
    .join("; ");
  throw new SandboxdError("HOST_CAPACITY_EXCEEDED", `the host has not enough left: ${words}`, {
    hint: "ask for less, stop a sandbox, or use another host",
    quotas: violations,
    retryDelayMs: 10_000,
  });
}

function exceeding(
  resource: QuotaViolation["resource"],
  limit: number,
  already: number,
  asked: number,
): QuotaViolation | undefined {
  const free = Math.max(0, limit - already);
  return asked <= free ? undefined : { level: "HOST", resource, limit, promised: already, asked, free };
}
