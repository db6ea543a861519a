// What callers can do to workspaces: each verb checks, writes what is wanted in one transaction with its event, and has the backend do it, in one
// serial queue per workspace. What a daemon that was killed had begun is finished by the next.

import { randomBytes, randomUUID } from "node:crypto";
import { SandboxdError } from "../errors.ts";
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
import { promisedOf, spaceOf, type WorkspaceLimits, type WorkspaceRecord } from "./record.ts";
import { createRecovery, type Recovery } from "./recovery.ts";
import type { WorkspaceRepository } from "./repository.ts";
import type { WorkspaceRoom } from "./room.ts";
import type { Sidecars } from "./sidecars.ts";
import { createSteps } from "./steps.ts";
import { assertUsable, checkGeneration, notFound, taken, unlessAborted } from "./subject.ts";

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

export interface Workspaces extends Recovery {
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
  const { repository, backends, sidecars, room, tenants, rules } = options;
  const queues = createQueues();
  const { make, erase, mounted, changed } = createSteps(options);
  /** Creations under way, by instance. */
  const beingMade = new Map<string, Promise<WorkspaceRecord>>();
  /** What goes on with those that nothing can start with. */
  const busy = new Map<string, string>();

  function get(id: string): WorkspaceRecord {
    const record = repository.get(id);
    if (record !== undefined) return record;
    throw notFound(id);
  }

  const sandboxesOf = (id: string) =>
    options.sandboxes().filter(({ spec }) => spec.workspace?.workspaceId === id);
  const isInUse = (id: string) => sandboxesOf(id).some(options.holdsProcesses);

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

  /** Resolves once it is made: now, where a daemon that was killed had begun it. */
  function made(record: WorkspaceRecord): Promise<WorkspaceRecord> {
    const making = queues.run(record.id, async () => {
      const now = get(record.id);
      if (now.instance !== record.instance) throw notFound(record.id);
      const done = now.state === "CREATING" ? await make(now) : now;
      if (done.state === "DELETING") throw notFound(record.id);
      return done;
    });
    beingMade.set(record.instance, making);
    const forget = () => void beingMade.delete(record.instance);
    making.then(forget, forget);
    return making;
  }

  const queued = (id: string, step: (record: WorkspaceRecord) => Promise<unknown>) =>
    queues.run(id, async () => {
      const record = repository.get(id);
      if (record !== undefined) await step(record);
    });

  const recovery = createRecovery({
    ...options,
    ...{ make, erase, mounted, queued },
    isBeingMade: ({ instance }) => beingMade.has(instance),
  });

  return {
    ...recovery,
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
        return unlessAborted(beingMade.get(existing.instance) ?? made(existing), signal);
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
      return unlessAborted(made(record), signal);
    },

    update({ id, limits: change, clearsSoft, labels, generation }) {
      return between(id, async (record, backend) => {
        checkGeneration(record, generation);
        const limits = changedLimits(record.limits, change, { clearsSoft }, rules(), backend);
        const asked = promisedOf({ ...record, limits });
        room.admit(record, asked);
        return room.during(id, asked, async () => {
          const { excess } = record;
          const wanted = withLimits(record, limits);
          const isSame =
            limits.bytes === record.limits.bytes &&
            limits.inodes === record.limits.inodes &&
            excess?.held === undefined;
          if (!isSame) await backend.resize(spaceOf(wanted), { isInUse: isInUse(id) });
          const change = (now: WorkspaceRecord): WorkspaceRecord => ({
            ...withLimits(now, limits),
            labels: labels ?? now.labels,
            generation: now.generation + 1,
          });
          let next: WorkspaceRecord;
          try {
            await sidecars.write(change(record));
            next = repository.edit(record, change, "WORKSPACE_UPDATED");
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
  };
}

/** With other limits. What is held of soft ones is told anew by the next look at what is used. */
function withLimits(record: WorkspaceRecord, limits: WorkspaceLimits): WorkspaceRecord {
  const { excess, ...rest } = record;
  if (excess === undefined) return { ...rest, limits };
  const { held: _, ...told } = excess;
  return { ...rest, limits, excess: told };
}
