// The tenants of this host, written through to the store: each change of one is one transaction with the event that tells it.
// A tenant that was never put has the policy of the configuration, as that is now.

import { SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import { type Actor, actors } from "../sandbox/record.ts";
import type { EventDocument, Repository } from "../sandbox/repository.ts";
import type { Store, Transaction } from "../store/store.ts";
import type { WorkspaceRepository } from "../workspace/repository.ts";
import { completedTenant, type TenantPolicy, type TenantRecord } from "./record.ts";

/** A tenant with the policy that is in effect. */
export interface Tenant extends TenantRecord {
  readonly policy: TenantPolicy;
  /** Whether the policy is the configuration's. */
  readonly isDefault: boolean;
}

export interface TenantRules {
  /** Whether a tenant that nobody put is made for its first sandbox. */
  readonly acceptUnknown: boolean;
  readonly defaultPolicy: TenantPolicy;
  readonly uidRange: { readonly first: number; readonly last: number };
}

export interface Tenants {
  get(name: string): Tenant | undefined;
  /** In order of name. */
  all(): readonly Tenant[];
  /** The policy in effect, also for a name that is not known yet. */
  policyOf(name: string): TenantPolicy;
  /** @throws SandboxdError TENANT_NOT_FOUND or TENANT_DELETING unless the tenant may get a sandbox. */
  assertOpen(name: string): void;
  /** The tenant; made if there is none. @throws SandboxdError HOST_CAPACITY_EXCEEDED when no uid is left. */
  ensure(name: string): Tenant;
  /** The same for one that is known from what it has: it keeps the uid, if that is nobody else's. */
  adopt(name: string, uid: number): void;
  /** Sets the policy. What is so already is success. `generation` is the one it must have, 0 for none. */
  put(name: string, policy: TenantPolicy, generation?: number): Promise<Tenant>;
  /** Removes it, and all that it has where it `cascades`; resolves once it is gone. */
  delete(
    name: string,
    options: { readonly cascade: boolean; readonly actor: Actor } & Waiting,
  ): Promise<void>;
  /** Calls back after each change. */
  subscribe(listener: (name: string) => void): () => void;
  close(): void;
}

interface Waiting {
  readonly signal?: AbortSignal;
}

export interface TenantsOptions {
  readonly store: Store;
  readonly repository: Repository;
  /** As they are now: a reload may change them. */
  readonly rules: () => TenantRules;
  /** Has the kernel hold what the tenant comes to have. Rejects when it refuses. */
  readonly hold: (tenant: Tenant) => Promise<void>;
  /** Has a sandbox deleted; returns at once. */
  readonly deleteSandbox: (id: string, actor: Actor) => void;
  readonly workspaces: Pick<WorkspaceRepository, "all" | "get" | "subscribe">;
  /** Has a workspace deleted that no sandbox is with; returns at once. */
  readonly deleteWorkspace: (id: string) => void;
  readonly log: Log;
}

/** How often deletions that did not go on by themselves are looked at: after a restart, or a disk that was full. */
const lookEveryMs = 5_000;

export function createTenants(options: TenantsOptions): Tenants {
  const { store, repository, rules, log } = options;
  const records = new Map(
    store
      .tenantDocuments()
      .map((document) => completedTenant(JSON.parse(document)))
      .map((record) => [record.name, record]),
  );
  const listeners = new Set<(name: string) => void>();

  const completed = (record: TenantRecord): Tenant => ({
    ...record,
    policy: record.policy ?? rules().defaultPolicy,
    isDefault: record.policy === undefined,
  });
  const get = (name: string) => {
    const record = records.get(name);
    return record && completed(record);
  };
  const sandboxesOf = (name: string) => repository.all().filter(({ tenant }) => tenant === name);
  const workspacesOf = (name: string) => options.workspaces.all().filter(({ tenant }) => tenant === name);
  const isEmpty = (name: string) => sandboxesOf(name).length === 0 && workspacesOf(name).length === 0;

  function tell(
    transaction: Transaction,
    type: "TENANT_CHANGED" | "TENANT_DELETED",
    record: TenantRecord,
  ): void {
    const document = { type, tenant: completed(record) } satisfies EventDocument;
    transaction.appendEvent(Date.now(), JSON.stringify(document));
  }

  function changed(name: string, record: TenantRecord | undefined): void {
    if (record === undefined) records.delete(name);
    else records.set(name, record);
    for (const listener of listeners) listener(name);
  }

  /** Writes a record, or the new one of a name that has none, whose uid is `claimed` if that can be. */
  function write(name: string, change: (record: TenantRecord) => TenantRecord, claimed?: number): Tenant {
    const record = store.transact((transaction) => {
      const next = change(records.get(name) ?? made(transaction, name, claimed));
      transaction.putTenant(name, JSON.stringify(next));
      tell(transaction, "TENANT_CHANGED", next);
      return next;
    });
    changed(name, record);
    return completed(record);
  }

  function made(transaction: Transaction, name: string, claimed?: number): TenantRecord {
    if (claimed !== undefined) transaction.claimUid(name, claimed);
    const uid = transaction.uidOf(name, rules().uidRange);
    if (uid === undefined) {
      throw new SandboxdError(
        "HOST_CAPACITY_EXCEEDED",
        `tenant "${name}" is new, and [tenants] uid_range is used up`,
        { hint: "widen uid_range" },
      );
    }
    const nowMs = Date.now();
    return { name, uid, generation: 1, createdAtMs: nowMs, updatedAtMs: nowMs };
  }

  function remove(record: TenantRecord): void {
    store.transact((transaction) => {
      transaction.removeTenant(record.name);
      tell(transaction, "TENANT_DELETED", record);
    });
    changed(record.name, undefined);
  }

  const beingDeleted = () => [...records.values()].filter(({ deleting }) => deleting === true);

  /** Removes those that are being deleted and have nothing left. */
  function removeEmpty(): void {
    for (const record of beingDeleted()) {
      if (!isEmpty(record.name)) continue;
      try {
        remove(record);
      } catch (error) {
        log.warn({ tenant: record.name, err: error }, "the tenant could not be removed; it is tried again");
      }
    }
  }

  /** Goes on with what an earlier life of the daemon, or a full disk, left of deletions. */
  function look(): void {
    for (const { name } of beingDeleted()) {
      for (const { id, wanted } of sandboxesOf(name)) {
        if (wanted !== "DELETED") options.deleteSandbox(id, actors.policy);
      }
    }
    goOn();
  }

  /** Workspaces go once no sandbox is with them, and the tenant with its last. */
  function goOn(): void {
    for (const { name } of beingDeleted()) {
      if (sandboxesOf(name).length > 0) continue;
      for (const { id, state } of workspacesOf(name)) if (state !== "DELETING") options.deleteWorkspace(id);
    }
    removeEmpty();
  }

  function assertNotDeleting(name: string): void {
    if (records.get(name)?.deleting !== true) return;
    throw new SandboxdError("TENANT_DELETING", `tenant "${name}" is being deleted with all that it has`, {
      hint: "wait for the TENANT_DELETED event, then put it again",
      metadata: { tenant: name },
      retryDelayMs: 5_000,
    });
  }

  function checkGeneration(name: string, generation: number | undefined): void {
    const present = records.get(name)?.generation ?? 0;
    if (generation === undefined || generation === present) return;
    throw new SandboxdError(
      "GENERATION_MISMATCH",
      `tenant "${name}": generation ${generation} was given, the present one is ${present}`,
      { hint: "read the tenant again", metadata: { tenant: name, generation: String(present) } },
    );
  }

  /** Resolves once there is no such tenant. */
  function gone(name: string, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = () => {
        listeners.delete(look);
        signal?.removeEventListener("abort", onAbort);
      };
      const look = () => {
        if (records.get(name)?.deleting === true) return;
        end();
        resolve();
      };
      const onAbort = () => {
        end();
        reject(signal?.reason);
      };
      listeners.add(look);
      signal?.addEventListener("abort", onAbort, { once: true });
      if (signal?.aborted) onAbort();
      else look();
    });
  }

  const timer = setInterval(look, lookEveryMs);
  const unsubscribe = repository.subscribe((id) => {
    if (repository.get(id) === undefined) goOn();
  });
  const unfollow = options.workspaces.subscribe((id) => {
    if (options.workspaces.get(id) === undefined) removeEmpty();
  });

  return {
    get,
    all: () => [...records.values()].sort((a, b) => (a.name < b.name ? -1 : 1)).map(completed),
    policyOf: (name) => get(name)?.policy ?? rules().defaultPolicy,
    assertOpen(name) {
      assertNotDeleting(name);
      if (records.has(name) || rules().acceptUnknown) return;
      throw notFound(name, "put it first with PutTenant: this host makes none by itself ([tenants] unknown)");
    },
    ensure: (name) => get(name) ?? write(name, (record) => record),
    adopt(name, uid) {
      if (!records.has(name)) write(name, (record) => record, uid);
    },
    async put(name, policy, generation) {
      assertNotDeleting(name);
      checkGeneration(name, generation);
      const before = get(name);
      if (before !== undefined && !before.isDefault && isSame(before.policy, policy)) return before;
      if (before !== undefined) await options.hold({ ...before, policy });
      // another may have put it, or removed it, while the kernel was asked
      assertNotDeleting(name);
      checkGeneration(name, generation);
      const isNew = !records.has(name);
      try {
        const put = write(name, (record) => ({
          ...record,
          policy,
          generation: isNew ? 1 : record.generation + 1,
          updatedAtMs: Date.now(),
        }));
        await store.durable();
        return put;
      } catch (error) {
        // the kernel holds what could not be written; why that was, tells more than whether it can be undone
        if (before !== undefined) await options.hold(before).catch(() => undefined);
        throw error;
      }
    },
    async delete(name, { cascade, actor, signal }) {
      const record = records.get(name);
      if (record === undefined) return;
      const [owned, spaces] = [sandboxesOf(name), workspacesOf(name)];
      if (!isEmpty(name) && !cascade && record.deleting !== true) {
        const what = `${owned.length} sandboxes and ${spaces.length} workspaces`;
        throw new SandboxdError("TENANT_NOT_EMPTY", `tenant "${name}" owns ${what}`, {
          hint: "delete them first, or ask with cascade",
          metadata: { tenant: name, sandboxes: String(owned.length), workspaces: String(spaces.length) },
        });
      }
      if (isEmpty(name)) {
        remove(record);
      } else {
        if (record.deleting !== true) write(name, (now) => ({ ...now, deleting: true }));
        for (const { id } of owned) options.deleteSandbox(id, actor);
        goOn();
        await gone(name, signal);
      }
      await store.durable();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close() {
      clearInterval(timer);
      unsubscribe();
      unfollow();
    },
  };
}

export function notFound(name: string, hint: string): SandboxdError {
  return new SandboxdError("TENANT_NOT_FOUND", `there is no tenant "${name}" on this host`, {
    hint,
    metadata: { tenant: name },
  });
}

/** Whether two policies bound the same: what is undefined counts as absent, in any order. */
function isSame(one: TenantPolicy, other: TenantPolicy): boolean {
  return canonical(one) === canonical(other);
}

function canonical(policy: TenantPolicy): string {
  return JSON.stringify(policy, (_key, value: unknown) =>
    typeof value === "object" && value !== null
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
}
