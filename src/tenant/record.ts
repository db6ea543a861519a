// What is kept of a tenant: its name, its uid, and what it may have. Plain values, stored as JSON.

import { noNetwork, type TenantNetwork } from "../network/policy.ts";
import type { Resources } from "../sandbox/record.ts";

/** What is summed over a tenant's sandboxes and workspaces, under the contract's names of it. */
export const quotaNames = {
  sandboxes: "sandboxes",
  runningSandboxes: "running_sandboxes",
  cpuRequestMillis: "cpu_request_millis",
  cpuMillis: "cpu_millis",
  memoryRequestBytes: "memory_request_bytes",
  memoryBytes: "memory_bytes",
  pids: "pids",
  workspaces: "workspaces",
  diskBytes: "disk_bytes",
  inodes: "inodes",
} as const;

export type QuotaKey = keyof typeof quotaNames;

/** In the order of the contract. */
export const quotaKeys = Object.keys(quotaNames) as readonly QuotaKey[];

/** What all of a tenant's sandboxes and workspaces together may have; what is absent is not bounded. */
export type Quota = { readonly [K in QuotaKey]?: number };

/** What a limit range can name of one sandbox. */
export type RangeAmounts = Partial<Omit<Resources, "blockIo">>;

/** What one sandbox of a tenant may ask for; what is absent is not bounded. */
export interface LimitRange {
  readonly min: RangeAmounts;
  readonly max: RangeAmounts;
  /** What neither the request nor its template names. */
  readonly defaults: RangeAmounts;
  /** How many times its request a limit may be. */
  readonly maxRatio: { readonly cpu?: number; readonly memory?: number };
}

export interface TenantPolicy {
  readonly quota: Quota;
  readonly limitRange: LimitRange;
  readonly network: TenantNetwork;
}

export interface TenantRecord {
  readonly name: string;
  /** Of everything in its sandboxes. */
  readonly uid: number;
  readonly generation: number;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
  /** Absent: the one that the configuration has for tenants that were never put. */
  readonly policy?: TenantPolicy;
  /** Whether it goes as soon as its last sandbox is gone. */
  readonly deleting?: true;
}

/** As earlier releases wrote them: without what they did not know. */
type StoredRecord = Omit<TenantRecord, "policy"> & {
  readonly policy?: Omit<TenantPolicy, "network"> & Partial<TenantPolicy>;
};

/** A record of this release from one of any release. */
export function completedTenant({ policy, ...record }: StoredRecord): TenantRecord {
  return policy === undefined ? record : { ...record, policy: { network: noNetwork, ...policy } };
}
