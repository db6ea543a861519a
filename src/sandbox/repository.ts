// All sandboxes in memory, written through to the store: each change of one is one transaction with the event that
// tells it, and those who wait for a sandbox are told after the commit. What was committed is on disk a moment later.

import type { NetworkDenial } from "../network/denials.ts";
import type { Store, Transaction } from "../store/store.ts";
import type { TenantRecord } from "../tenant/record.ts";
import type { SnapshotRecord, WorkspaceEventType, WorkspaceRecord } from "../workspace/record.ts";
import { type Actor, completed, type SandboxRecord } from "./record.ts";

/** Kinds of events of a sandbox; mirrors `sandboxd.v1.EventType`. */
export type SandboxEventType =
  | "SANDBOX_CREATED"
  | "SANDBOX_STATE_CHANGED"
  | "SANDBOX_UPDATED"
  | "SANDBOX_DELETED"
  | "SANDBOX_OOM"
  | "SANDBOX_EXPIRING"
  | "SANDBOX_RENEWED"
  | "SANDBOX_HEALTH_CHANGED"
  | "SANDBOX_STUCK"
  | "SANDBOX_NETWORK_DENIED";

/** Kinds of host conditions; mirrors `sandboxd.v1.HostConditionType`. */
export const conditionTypes = [
  "ENGINE_ABSENT",
  "ENGINE_ACCESS_DENIED",
  "ENGINE_TOO_OLD",
  "ENGINE_UNRESPONSIVE",
  "CGROUP_UNSUPPORTED",
  "STATE_UNWRITABLE",
  "NETWORK_UNENFORCED",
  "MEMORY_PRESSURE",
  "DISK_PRESSURE",
  "INODE_PRESSURE",
  "PID_PRESSURE",
  "STALLED",
  "CLOCK_CHANGED",
] as const;

export type ConditionType = (typeof conditionTypes)[number];

export interface ConditionFacts {
  readonly type: ConditionType;
  readonly active: boolean;
  readonly message: string;
  readonly hint: string;
  readonly timeMs: number;
}

/** Whether operators and schedulers want new sandboxes on this host, and what they do to those that are there. */
export interface Schedule {
  readonly schedulable: boolean;
  readonly reason: string;
  readonly actor?: Actor;
  /** By the wall clock. */
  readonly timeMs?: number;
  readonly drain?: DrainPlan;
}

export interface DrainPlan {
  readonly policy: "STOP" | "WAIT";
  /** Steady time. */
  readonly deadlineMs: number;
}

/** The document of an event. */
export type EventDocument =
  | {
      readonly type: SandboxEventType;
      readonly sandbox: SandboxRecord;
      readonly denials?: readonly NetworkDenial[];
    }
  | { readonly type: "HOST_CONDITION_CHANGED"; readonly condition: ConditionFacts }
  | { readonly type: "HOST_SCHEDULE_CHANGED"; readonly schedule: Schedule & { readonly remaining: number } }
  | { readonly type: "TENANT_CHANGED" | "TENANT_DELETED"; readonly tenant: TenantRecord }
  | {
      readonly type: WorkspaceEventType;
      readonly workspace: WorkspaceRecord;
      readonly snapshot?: SnapshotRecord;
    };

type SandboxEvent = Extract<EventDocument, { readonly sandbox: SandboxRecord }>;

export const isOfSandbox = (document: EventDocument): document is SandboxEvent => "sandbox" in document;

export interface Repository {
  get(id: string): SandboxRecord | undefined;
  /** The record as it is now, unless it was moved to another state, or removed, since `record` was read. */
  unmoved(record: SandboxRecord): SandboxRecord | undefined;
  /** In order of id. */
  all(): readonly SandboxRecord[];
  /** Writes the record and its event, in one transaction. */
  put(record: SandboxRecord, event: SandboxEventType): void;
  /** Writes an event that tells what a sandbox was refused; the record stays as it is. */
  tellDenials(record: SandboxRecord, denials: readonly NetworkDenial[]): void;
  /** Writes a new record and its first event. */
  insert(record: SandboxRecord): void;
  /** Forgets the sandbox; `record` is what its last event tells. */
  remove(record: SandboxRecord): void;
  /** Resolves once every change so far survives a loss of power. */
  durable(): Promise<void>;
  /** Resolves with the record, or undefined once it is gone, as soon as `done` holds. */
  until(
    id: string,
    done: (record: SandboxRecord | undefined) => boolean,
    signal?: AbortSignal,
  ): Promise<SandboxRecord | undefined>;
  /** Calls back after each change. */
  subscribe(listener: (id: string) => void): () => void;
}

/** Reads everything that the store holds. */
export function createRepository(store: Store): Repository {
  const records = new Map<string, SandboxRecord>();
  for (const document of store.sandboxDocuments()) {
    const record = completed(JSON.parse(document) as SandboxRecord);
    records.set(record.id, record);
  }
  const waiters = new Map<string, Set<() => void>>();
  const listeners = new Set<(id: string) => void>();
  let sorted: readonly SandboxRecord[] | undefined;

  function write(transaction: Transaction, record: SandboxRecord, type: SandboxEventType): void {
    transaction.putSandbox(record.id, JSON.stringify(record));
    transaction.appendEvent(Date.now(), JSON.stringify({ type, sandbox: record } satisfies EventDocument));
  }

  function changed(id: string, record: SandboxRecord | undefined): void {
    if (record === undefined) records.delete(id);
    else records.set(id, record);
    sorted = undefined;
    for (const wake of [...(waiters.get(id) ?? [])]) wake();
    for (const listener of listeners) listener(id);
  }

  return {
    get: (id) => records.get(id),
    unmoved({ id, transition }) {
      const now = records.get(id);
      // each move makes a transition of its own; renewals and updates keep it
      return now?.transition === transition ? now : undefined;
    },
    all() {
      sorted ??= [...records.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
      return sorted;
    },
    put(record, event) {
      store.transact((transaction) => write(transaction, record, event));
      changed(record.id, record);
    },
    tellDenials(sandbox, denials) {
      const document = { type: "SANDBOX_NETWORK_DENIED", sandbox, denials } satisfies EventDocument;
      store.transact((transaction) => transaction.appendEvent(Date.now(), JSON.stringify(document)));
    },
    insert(record) {
      store.transact((transaction) => write(transaction, record, "SANDBOX_CREATED"));
      changed(record.id, record);
    },
    remove(record) {
      store.transact((transaction) => {
        transaction.removeSandbox(record.id, record.instance);
        transaction.appendEvent(
          Date.now(),
          JSON.stringify({ type: "SANDBOX_DELETED", sandbox: record } satisfies EventDocument),
        );
      });
      changed(record.id, undefined);
    },
    durable: store.durable,
    until(id, done, signal) {
      return new Promise((resolve, reject) => {
        const waiting = waiters.get(id) ?? new Set<() => void>();
        const end = () => {
          waiting.delete(look);
          if (waiting.size === 0) waiters.delete(id);
          signal?.removeEventListener("abort", onAbort);
        };
        const look = () => {
          const record = records.get(id);
          if (!done(record)) return;
          end();
          resolve(record);
        };
        const onAbort = () => {
          end();
          reject(signal?.reason);
        };
        waiters.set(id, waiting.add(look));
        signal?.addEventListener("abort", onAbort, { once: true });
        if (signal?.aborted) onAbort();
        else look();
      });
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
