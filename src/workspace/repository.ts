// All workspaces in memory, written through to the store: each change of one is one transaction with the event that tells it.

import type { EventDocument } from "../sandbox/repository.ts";
import type { Store } from "../store/store.ts";
import type { SnapshotRecord, WorkspaceEventType, WorkspaceRecord } from "./record.ts";

export interface WorkspaceRepository {
  get(id: string): WorkspaceRecord | undefined;
  /** In order of id. */
  all(): readonly WorkspaceRecord[];
  /** Writes a new one, with a project id that no other ever had, and its first event. */
  insert(make: (projectId: number) => WorkspaceRecord): WorkspaceRecord;
  /** Takes one back that the state did not know. */
  adopt(record: WorkspaceRecord): void;
  /**
   * Changes the record as it is now, which others may have changed since `record` was read, and writes it with its event. Without one it is told by a
   * later event, or was by an earlier one. What is gone meanwhile stays gone.
   */
  edit(
    record: WorkspaceRecord,
    change: (now: WorkspaceRecord) => WorkspaceRecord,
    event?: WorkspaceEventType,
    snapshot?: SnapshotRecord,
  ): WorkspaceRecord;
  /** Forgets it; `record` is what its last event tells. */
  remove(record: WorkspaceRecord): void;
  /** Resolves once every change so far survives a loss of power. */
  durable(): Promise<void>;
  /** Calls back after each change. */
  subscribe(listener: (id: string) => void): () => void;
}

/** Above what administrators use in /etc/projid, as far as that can be known. */
const firstProjectId = 1_000_000_000;
const nextProjectKey = "nextProjectId";

/** Reads everything that the store holds. */
export function createWorkspaceRepository(store: Store): WorkspaceRepository {
  const records = new Map(
    store
      .workspaceDocuments()
      .map((document) => JSON.parse(document) as WorkspaceRecord)
      .map((record) => [record.id, record]),
  );
  const listeners = new Set<(id: string) => void>();
  let sorted: readonly WorkspaceRecord[] | undefined;

  const nextProjectId = () => Number(store.meta(nextProjectKey) ?? firstProjectId);

  function changed(id: string, record: WorkspaceRecord | undefined): void {
    if (record === undefined) records.delete(id);
    else records.set(id, record);
    sorted = undefined;
    for (const listener of listeners) listener(id);
  }

  function eventOf(type: WorkspaceEventType, workspace: WorkspaceRecord, snapshot?: SnapshotRecord): string {
    return JSON.stringify({
      type,
      workspace,
      ...(snapshot === undefined ? {} : { snapshot }),
    } satisfies EventDocument);
  }

  return {
    get: (id) => records.get(id),
    all() {
      sorted ??= [...records.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
      return sorted;
    },
    insert(make) {
      const projectId = nextProjectId();
      const record = make(projectId);
      store.transact((transaction) => {
        transaction.setMeta(nextProjectKey, String(projectId + 1));
        transaction.putWorkspace(record.id, JSON.stringify(record));
        transaction.appendEvent(Date.now(), eventOf("WORKSPACE_CREATED", record));
      });
      changed(record.id, record);
      return record;
    },
    adopt(record) {
      store.transact((transaction) => {
        transaction.setMeta(nextProjectKey, String(Math.max(nextProjectId(), record.projectId + 1)));
        transaction.putWorkspace(record.id, JSON.stringify(record));
        transaction.appendEvent(Date.now(), eventOf("WORKSPACE_CREATED", record));
      });
      changed(record.id, record);
    },
    edit(record, change, event, snapshot) {
      const now = records.get(record.id);
      if (now?.instance !== record.instance) return record;
      const next = change(now);
      if (next === now) return now;
      store.transact((transaction) => {
        transaction.putWorkspace(next.id, JSON.stringify(next));
        if (event !== undefined) transaction.appendEvent(Date.now(), eventOf(event, next, snapshot));
      });
      changed(next.id, next);
      return next;
    },
    remove(record) {
      store.transact((transaction) => {
        transaction.removeWorkspace(record.id);
        transaction.appendEvent(Date.now(), eventOf("WORKSPACE_DELETED", record));
      });
      changed(record.id, undefined);
    },
    durable: store.durable,
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
