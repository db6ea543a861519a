// What callers can do to workspaces: each verb checks, writes what is wanted in one transaction with its event, and has the backend do it, in one
// serial queue per workspace. What a daemon that was killed had begun is finished by the next.

import { randomBytes, randomUUID } from "node:crypto";
import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import { createQueues } from "../sandbox/queue.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Tenants } from "../tenant/tenants.ts";
import type { Backend, FileIdentity } from "./backend/backend.ts";
import type { Backends } from "./backends.ts";
import {
  changedLimits,
  effectiveLimits,
  hashOfRequest,
  type LimitRules,
  type LimitsRequest,
} from "./limits.ts";
import { promisedOf, spaceOf, type WorkspaceRecord, type WorkspaceState } from "./record.ts";
import type { WorkspaceRepository } from "./repository.ts";
import type { WorkspaceRoom } from "./room.ts";
import type { Sidecars } from "./sidecars.ts";

interface Waiting {
  /** Aborting ends the waiting; what was accepted goes on. */
  readonly signal?: AbortSignal;
}

export interface WorkspaceUpdate extends Waiting {
  readonly id: string;
  readonly limits: LimitsRequest;
  readonly clearsSoft: boolean;
  readonly labels?: Readonly<Record<string, string>>;
  readonly generation?: number;
}

export interface Workspaces {
  /** In order of id. */
  all(): readonly WorkspaceRecord[];
  /** @throws SandboxdError WORKSPACE_NOT_FOUND. */
  get(id: string): WorkspaceRecord;
  create(
    request: Waiting & {
      /** Empty: one is made. */
      readonly id: string;
      readonly tenant: string;
      readonly limits: LimitsRequest;
      readonly labels: Readonly<Record<string, string>>;
    },
  ): Promise<WorkspaceRecord>;
  update(request: WorkspaceUpdate): Promise<WorkspaceRecord>;
  delete(id: string, options?: Waiting): Promise<void>;
  /** @throws SandboxdError unless a sandbox of the tenant may be created with it: one of another tenant is not found. */
  assertMountable(id: string, tenant: string): void;
  /** Has it there to be mounted. Resolves to what a container is to see. Rejects at once, with WORKSPACE_IN_USE, while it is busy. */
  ready(id: string, tenant: string): Promise<{ readonly path: string; readonly identity: FileIdentity }>;
  /** Sandboxes that were created with it, in order of id. */
  sandboxesOf(id: string): readonly SandboxRecord[];
  /** Whether any of them may have processes. */
  isInUse(id: string): boolean;
  /**
   * Does `step` in the workspace's queue, with its record as it is then and its backend. With `alone`, which says why, nothing can start with the
   * workspace meanwhile: for what takes long. @throws SandboxdError unless it is READY.
   */
  between<T>(
    id: string,
    step: (record: WorkspaceRecord, backend: Backend) => Promise<T>,
    options?: { readonly alone?: string },
  ): Promise<T>;
  /** Whether something that takes long goes on with it. */
  isBusy(id: string): boolean;
  /** Finishes what an earlier daemon began, and takes back what the state does not know. */
  resume(): Promise<void>;
  /** Tries again what could not be done. */
  look(): Promise<void>;
  /** Names of spaces of a backend that no record is of: of a state that was lost, or a power cut. They are left alone. */
  strangers(backend: Backend): Promise<readonly string[]>;
  /** Begins nothing more by itself. */
  close(): void;
}

export interface WorkspacesOptions {
  readonly repository: WorkspaceRepository;
  readonly backends: Backends;
  readonly sidecars: Sidecars;
  readonly room: WorkspaceRoom;
  readonly tenants: Pick<Tenants, "assertOpen" | "ensure" | "adopt">;
  /** All sandboxes of the host. */
  readonly sandboxes: () => readonly SandboxRecord[];
  readonly holdsProcesses: (record: SandboxRecord) => boolean;
  /** As they are now: a reload may change them. */
  readonly rules: () => LimitRules;
  readonly log: Log;
}

export function createWorkspaces(options: WorkspacesOptions): Workspaces {
  const { repository, backends, sidecars, room, tenants, rules, log } = options;
  const queues = createQueues();
  /** Creations under way, by instance. */
  const making = new Map<string, Promise<WorkspaceRecord>>();
  /** What goes on with those that nothing can start with. */
  const busy = new Map<string, string>();
  let isClosed = false;

  function get(id: string): WorkspaceRecord {
    const record = repository.get(id);
    if (record !== undefined) return record;
    throw notFound(id);
  }

  const sandboxesOf = (id: string) =>
    options.sandboxes().filter(({ spec }) => spec.workspace?.workspaceId === id);
  const isInUse = (id: string) => sandboxesOf(id).some(options.holdsProcesses);

  function changed(record: WorkspaceRecord, state: WorkspaceState, message = ""): WorkspaceRecord {
    const next = { ...record, state, message };
    repository.put(next, "WORKSPACE_STATE_CHANGED");
    return next;
  }

  /** Makes it, or removes what was made of it. */
  async function make(record: WorkspaceRecord): Promise<WorkspaceRecord> {
    try {
      const backend = await backends.of(record.backend);
      // beside each other: what power goes out under, before the intent is on disk, is an empty space that `strangers` tells of
      await Promise.all([repository.durable(), backend.create(spaceOf(record))]);
      const made = changed(record, "READY");
      await Promise.all([repository.durable(), sidecars.write(made)]);
      return made;
    } catch (error) {
      await erase(changed(record, "DELETING", messageOf(error))).catch(() => undefined);
      throw error;
    }
  }

  /** Files first, then what tells of them: a workspace is forgotten only once nothing of it is left. */
  async function erase(record: WorkspaceRecord): Promise<void> {
    try {
      await repository.durable();
      const backend = await backends.of(record.backend);
      await backend.remove(spaceOf(record));
      await sidecars.remove(record);
    } catch (error) {
      const message = messageOf(error);
      log.warn({ workspace: record.id, err: message }, "workspace cannot be removed; it is tried again");
      if (record.message !== message) changed(record, "DELETING", message);
      throw error;
    }
    repository.remove({ ...record, state: "DELETED", message: "" });
    await repository.durable();
  }

  /** Whether it can be mounted, told as its state. */
  async function mounted(record: WorkspaceRecord) {
    try {
      const backend = await backends.of(record.backend);
      const found = await backend.ready(spaceOf(record));
      if (record.state === "UNAVAILABLE") changed(record, "READY");
      return found;
    } catch (error) {
      const message = messageOf(error);
      if (record.state !== "UNAVAILABLE" || record.message !== message) {
        log.warn({ workspace: record.id, err: message }, "workspace cannot be used");
        changed(record, "UNAVAILABLE", message);
      }
      throw new SandboxdError(
        "WORKSPACE_UNAVAILABLE",
        `workspace "${record.id}" cannot be used: ${message}`,
        {
          hint: "CheckHost says what the host lacks; it is tried again every 30 s",
          cause: error,
        },
      );
    }
  }

  function assertUsable({ id, state, message }: WorkspaceRecord): void {
    if (state === "READY") return;
    const reason = state === "UNAVAILABLE" ? "WORKSPACE_UNAVAILABLE" : "INVALID_STATE";
    const why = message === "" ? "" : `: ${message}`;
    throw new SandboxdError(reason, `workspace "${id}" is ${state}${why}`, { metadata: { state } });
  }

  /** One that may get sandboxes. One of another tenant is as if it were not there. */
  function ofTenant(id: string, tenant: string): WorkspaceRecord {
    const record = get(id);
    if (record.tenant !== tenant) throw notFound(id);
    return record;
  }

  const between: Workspaces["between"] = (id, step, { alone } = {}) => {
    const { instance } = get(id);
    return queues.run(id, async () => {
      const record = get(id);
      if (record.instance !== instance) throw notFound(id);
      assertUsable(record);
      if (alone === undefined) return step(record, await backends.of(record.backend));
      busy.set(id, alone);
      try {
        return await step(record, await backends.of(record.backend));
      } finally {
        busy.delete(id);
      }
    });
  };

  const queued = (id: string, step: (record: WorkspaceRecord) => Promise<unknown>) =>
    queues.run(id, async () => {
      const record = repository.get(id);
      if (record !== undefined) await step(record);
    });

  return {
    all: repository.all,
    get,
    sandboxesOf,
    isInUse,
    between,
    isBusy: (id) => busy.has(id),
    async create({ id: asked, tenant, limits: request, labels, signal }) {
      const requestHash = hashOfRequest(tenant, request, labels);
      const backend = await backends.current();
      const existing = asked === "" ? undefined : repository.get(asked);
      if (existing !== undefined) {
        if (existing.requestHash !== requestHash || existing.state === "DELETING") throw taken(asked);
        return unlessAborted(making.get(existing.instance) ?? Promise.resolve(existing), signal);
      }
      tenants.assertOpen(tenant);
      const limits = effectiveLimits(request, rules(), backend);
      room.admitNew(tenant, promisedOf({ limits, snapshots: [] }));
      const { uid } = tenants.ensure(tenant);
      const record = repository.insert((projectId) => ({
        id: asked || `ws-${randomBytes(8).toString("hex")}`,
        instance: randomUUID(),
        tenant,
        uid,
        projectId,
        backend: backend.kind,
        limits,
        labels,
        requestHash,
        generation: 1,
        createdAtMs: Date.now(),
        state: "CREATING",
        message: "",
        snapshots: [],
      }));
      const made = queues.run(record.id, () => make(record));
      making.set(record.instance, made);
      const forget = () => void making.delete(record.instance);
      made.then(forget, forget);
      return unlessAborted(made, signal);
    },

    update({ id, limits: change, clearsSoft, labels, generation }) {
      return between(id, async (record, backend) => {
        checkGeneration(record, generation);
        const limits = changedLimits(record.limits, change, { clearsSoft }, rules(), backend);
        const asked = promisedOf({ ...record, limits });
        room.admit(record, asked);
        return room.during(id, asked, async () => {
          const { excess, ...rest } = record;
          // the next look at what is used tells anew what is held of soft limits
          const { held: _, ...told } = excess ?? { limits: [], sinceMs: 0 };
          const next: WorkspaceRecord = {
            ...rest,
            ...(excess === undefined ? {} : { excess: told }),
            limits,
            labels: labels ?? record.labels,
            generation: record.generation + 1,
          };
          const isSame =
            limits.bytes === record.limits.bytes &&
            limits.inodes === record.limits.inodes &&
            excess?.held === undefined;
          if (!isSame) await backend.resize(spaceOf(next), { isInUse: isInUse(id) });
          try {
            await sidecars.write(next);
            repository.put(next, "WORKSPACE_UPDATED");
          } catch (error) {
            // why it could not be written tells more than whether the limits can be set back
            if (!isSame)
              await backend.resize(spaceOf(record), { isInUse: isInUse(id) }).catch(() => undefined);
            throw error;
          }
          await repository.durable();
          return next;
        });
      });
    },

    async delete(id, { signal } = {}) {
      const record = repository.get(id);
      if (record === undefined) return;
      const users = sandboxesOf(id);
      if (users.length > 0) {
        const some = users.slice(0, 5).map((user) => user.id);
        throw new SandboxdError(
          "WORKSPACE_IN_USE",
          `workspace "${id}" has ${users.length} sandboxes: ${some.join(", ")}`,
          {
            hint: "delete them first",
            metadata: { workspace_id: id, sandboxes: String(users.length) },
          },
        );
      }
      if (record.state !== "DELETING") changed(record, "DELETING");
      await unlessAborted(
        queued(id, async (now) => {
          if (now.instance === record.instance) await erase(now);
        }),
        signal,
      );
    },

    assertMountable(id, tenant) {
      assertUsable(ofTenant(id, tenant));
    },

    async ready(id, tenant) {
      const why = busy.get(ofTenant(id, tenant).id);
      if (why !== undefined) {
        throw new SandboxdError("WORKSPACE_IN_USE", `workspace "${id}" cannot be mounted now: ${why}`, {
          hint: "it is tried again by itself",
          metadata: { workspace_id: id },
        });
      }
      return queues.run(id, async () => {
        const record = ofTenant(id, tenant);
        if (record.state !== "UNAVAILABLE") assertUsable(record);
        return mounted(record);
      });
    },

    async resume() {
      await takeBack();
      for (const { id } of repository.all()) {
        if (isClosed) return;
        await queued(id, async (record) => {
          if (record.state === "CREATING") await make(record);
          else if (record.state === "DELETING") await erase(record);
          else await mounted(await finished(record));
        }).catch((error: unknown) =>
          log.warn({ workspace: id, err: messageOf(error) }, "workspace is not as it should be"),
        );
      }
    },

    async strangers(backend) {
      const known = new Set(repository.all().map((record) => spaceOf(record).name));
      return (await backend.list()).filter((name) => !known.has(name));
    },

    close() {
      isClosed = true;
    },

    async look() {
      for (const { id, state } of repository.all()) {
        if (isClosed) return;
        if (state !== "UNAVAILABLE" && state !== "DELETING") continue;
        await queued(id, async (record) => {
          if (record.state === "DELETING") await erase(record);
          if (record.state === "UNAVAILABLE") await mounted(record);
        }).catch(() => undefined);
      }
    },
  };

  /** What was lost with the daemon's state is beside the files themselves. */
  async function takeBack(): Promise<void> {
    for (const record of await sidecars.all()) {
      if (repository.get(record.id) !== undefined) continue;
      tenants.adopt(record.tenant, record.uid);
      repository.adopt(record);
      log.warn({ workspace: record.id }, "workspace taken back; the daemon's state did not know it");
    }
  }

  /** Snapshots that were begun and not completed go; a restore that was begun is completed. */
  async function finished(record: WorkspaceRecord): Promise<WorkspaceRecord> {
    const { restoring, ...rest } = record;
    const torn = record.snapshots.filter(({ isComplete }) => !isComplete);
    if (restoring === undefined && torn.length === 0) return record;
    const backend = await backends.of(record.backend);
    if (restoring !== undefined) await backend.restore(spaceOf(record), restoring);
    for (const { id } of torn) await backend.removeSnapshot(spaceOf(record), id);
    const next = { ...rest, snapshots: record.snapshots.filter(({ isComplete }) => isComplete) };
    repository.note(next);
    return next;
  }
}

/** Waits no longer than its caller does. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

function checkGeneration({ id, generation: present }: WorkspaceRecord, given: number | undefined): void {
  if (given === undefined || given === present) return;
  throw new SandboxdError(
    "GENERATION_MISMATCH",
    `workspace "${id}" has generation ${present}, not ${given}`,
    {
      hint: "get it again and decide anew",
      metadata: { workspace_id: id, generation: String(present) },
    },
  );
}

function notFound(id: string): SandboxdError {
  return new SandboxdError("WORKSPACE_NOT_FOUND", `there is no workspace "${id}"`, {
    metadata: { workspace_id: id },
  });
}

function taken(id: string): SandboxdError {
  return new SandboxdError("WORKSPACE_ALREADY_EXISTS", `workspace_id "${id}" is in use by another request`, {
    hint: "use another id, or delete that workspace first",
    metadata: { workspace_id: id },
  });
}
