// Workspaces over a real store, with a backend of which each step can be made to fail: a disk does not do so on demand.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { noNetwork } from "../../../src/network/policy.ts";
import { createLog } from "../../../src/observe/log.ts";
import { holdsCapacity } from "../../../src/sandbox/record.ts";
import { createRepository } from "../../../src/sandbox/repository.ts";
import type { Store } from "../../../src/store/store.ts";
import { noRange } from "../../../src/tenant/limit-range.ts";
import { promisedTo } from "../../../src/tenant/quota.ts";
import type { Quota } from "../../../src/tenant/record.ts";
import { createTenants } from "../../../src/tenant/tenants.ts";
import type {
  Backend,
  BackendKind,
  Space,
  SpaceLimits,
  SpaceUsage,
} from "../../../src/workspace/backend/backend.ts";
import { createBackends } from "../../../src/workspace/backends.ts";
import { createWorkspaceRepository } from "../../../src/workspace/repository.ts";
import { createWorkspaceRoom } from "../../../src/workspace/room.ts";
import { createSidecars } from "../../../src/workspace/sidecars.ts";
import { createSnapshots } from "../../../src/workspace/snapshots.ts";
import { createUsageWatch } from "../../../src/workspace/usage-watch.ts";
import { createWorkspaces } from "../../../src/workspace/workspaces.ts";
import { recordOf, temporaryStore } from "../sandbox/fixture.ts";

export const mebibyte = 2 ** 20;

export interface ModelSpace {
  limits: SpaceLimits;
  used: SpaceUsage;
  readonly snapshots: Map<string, SpaceUsage>;
}

type Verb = "create" | "ready" | "resize" | "remove" | "snapshot" | "restore" | "removeSnapshot";

/** A disk in memory. `fail` decides before and after each step whether it fails. */
export function modelDisk(
  change: Partial<Pick<Backend, "kind" | "boundsInodes" | "resizesLive" | "isSnapshotAtomic">> = {},
) {
  const spaces = new Map<string, ModelSpace>();
  const steps: string[] = [];
  const faults: { fail: (verb: Verb, when: "before" | "after") => void } = { fail: () => undefined };

  async function step<T>(verb: Verb, name: string, run: () => T): Promise<T> {
    steps.push(`${verb} ${name}`);
    await Promise.resolve();
    faults.fail(verb, "before");
    const result = run();
    faults.fail(verb, "after");
    return result;
  }
  const of = ({ name }: Space): ModelSpace => {
    const found = spaces.get(name);
    if (found === undefined) throw new SandboxdError("WORKSPACE_UNAVAILABLE", `there is no space ${name}`);
    return found;
  };
  const backend: Backend = {
    kind: "PROJECT_QUOTA",
    boundsInodes: true,
    resizesLive: true,
    isSnapshotAtomic: false,
    isSnapshotInstant: false,
    ...change,
    capacity: async () => ({ bytes: 1_024 * mebibyte }),
    create: (space) =>
      step("create", space.name, () => {
        const used = { bytes: 4_096, inodes: 5 };
        spaces.set(space.name, { limits: space.limits, used, snapshots: new Map() });
      }),
    ready: (space) =>
      step("ready", space.name, () => {
        of(space);
        return { path: `/spaces/${space.name}/data`, identity: { device: 1, inode: 2 } };
      }),
    resize: (space) =>
      step("resize", space.name, () => {
        const found = of(space);
        if (space.limits.bytes < found.used.bytes)
          throw new SandboxdError("LIMIT_UNENFORCEABLE", "less than is held");
        found.limits = space.limits;
      }),
    usage: async (space) => of(space).used,
    remove: (space) => step("remove", space.name, () => void spaces.delete(space.name)),
    snapshot: (space, name) =>
      step("snapshot", space.name, () => {
        const { used, snapshots } = of(space);
        snapshots.set(name, used);
        return used;
      }),
    restore: (space, name) =>
      step("restore", space.name, () => {
        const found = of(space);
        found.used = found.snapshots.get(name) ?? found.used;
      }),
    removeSnapshot: (space, name) =>
      step("removeSnapshot", space.name, () => void spaces.get(space.name)?.snapshots.delete(name)),
    openSnapshot: async (_space, name) => ({ path: `/snapshots/${name}`, close: async () => undefined }),
    list: async () => [...spaces.keys()],
    close: async () => undefined,
  };
  return { backend, spaces, steps, faults };
}

export type ModelDisk = ReturnType<typeof modelDisk>;

/** Over the same store and disk it is the next life of the daemon. */
export function workspaced({
  store = temporaryStore(),
  disk = modelDisk(),
  directory = temporaryDirectory(),
  quota = {},
}: {
  readonly store?: Store;
  readonly disk?: ModelDisk;
  readonly directory?: string;
  readonly quota?: Quota;
} = {}) {
  const log = createLog({ level: "fatal" });
  const repository = createWorkspaceRepository(store);
  const sandboxes = createRepository(store);
  const policy = { quota, limitRange: noRange, network: noNetwork };
  const tenants = createTenants({
    store,
    repository: sandboxes,
    rules: () => ({
      acceptUnknown: true,
      defaultPolicy: policy,
      uidRange: { first: 100_000, last: 100_099 },
    }),
    hold: async () => undefined,
    deleteSandbox: () => undefined,
    workspaces: repository,
    deleteWorkspace: (id) => void workspaces.delete(id).catch(() => undefined),
    log,
  });
  onTestFinished(() => tenants.close());
  const place = {
    choice: { backend: disk.backend } as { backend: Backend } | { obstacle: string; hint: string },
  };
  const backends = createBackends({
    choose: async () => place.choice,
    open: async (kind: BackendKind) => {
      if (kind === disk.backend.kind) return disk.backend;
      throw new Error(`this host has no ${kind}`);
    },
    log,
  });
  const room = createWorkspaceRoom({
    repository,
    quotaOf: (tenant) => tenants.policyOf(tenant).quota,
    rootBytesOf: (tenant) => promisedTo(sandboxes.all().filter((one) => one.tenant === tenant)).diskBytes,
    allocatableBytes: backends.capacityBytes,
  });
  const sidecars = createSidecars(join(directory, "records"));
  const workspaces = createWorkspaces({
    repository,
    backends,
    sidecars,
    room,
    tenants,
    sandboxes: () => sandboxes.all(),
    holdsProcesses: holdsCapacity,
    rules: () => ({ defaultBytes: 64 * mebibyte, maxBytes: 512 * mebibyte }),
    log,
  });
  const snapshots = createSnapshots({ repository, workspaces, room, sidecars });
  const time = { nowMs: 1_000_000 };
  const charged: [string, number][] = [];
  const watch = createUsageWatch({
    repository,
    workspaces,
    backends,
    clock: { nowMs: () => time.nowMs, wallMs: (ms) => ms },
    charge: (...one) => void charged.push(one),
    log,
  });
  onTestFinished(() => watch.close());

  const create = (id: string, change: Partial<Parameters<typeof workspaces.create>[0]> = {}) =>
    workspaces.create({ id, tenant: "acme", limits: {}, labels: {}, ...change });
  /** A sandbox with the workspace, in a state. */
  const use = (id: string, workspaceId: string, state: "RUNNING" | "STOPPED" = "RUNNING") => {
    const record = recordOf({ id, instance: id, state, wanted: state });
    sandboxes.insert({ ...record, spec: { ...record.spec, workspace: { workspaceId, readOnly: false } } });
  };
  const unuse = (id: string) => {
    const record = sandboxes.get(id);
    if (record !== undefined) sandboxes.remove(record);
  };
  /** Kinds of events so far, of workspaces with their state. */
  async function told(): Promise<readonly string[]> {
    await store.durable();
    return store.events.readAfter(0, 1_000).flatMap(({ document }) => {
      const { type, workspace } = JSON.parse(document) as { type: string; workspace?: { state: string } };
      if (workspace === undefined) return [];
      return type === "WORKSPACE_STATE_CHANGED" ? [workspace.state] : [type];
    });
  }
  return {
    ...{ store, disk, directory, repository, sandboxes, tenants, place, backends, room },
    ...{ workspaces, snapshots, watch, time, charged, create, use, unuse, told },
  };
}

function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "workspaces-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
