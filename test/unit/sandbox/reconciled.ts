// A reconciler and a manager over a real state, and an engine that does at once what it is asked, unless a test says otherwise.

import { onTestFinished } from "vitest";
import { tenantRulesOf } from "../../../src/daemon-config.ts";
import type { ContainerPlan } from "../../../src/engine/container-plan.ts";
import type { Container, Image, LogChunk, Runtime } from "../../../src/engine/runtime.ts";
import { createLog } from "../../../src/observe/log.ts";
import { createLabelCodec } from "../../../src/sandbox/labels.ts";
import { createManager } from "../../../src/sandbox/manager.ts";
import { containerName, liveLimits } from "../../../src/sandbox/plan.ts";
import { createReconciler } from "../../../src/sandbox/reconciler.ts";
import type { SandboxRecord } from "../../../src/sandbox/record.ts";
import { createRepository } from "../../../src/sandbox/repository.ts";
import type { StarterNetworks } from "../../../src/sandbox/starter.ts";
import { createTenants } from "../../../src/tenant/tenants.ts";
import { createWorkspaceRepository } from "../../../src/workspace/repository.ts";
import { configOf } from "../config/fixture.ts";
import { bootId, containerOf, recordOf, temporaryStore } from "./fixture.ts";

export const hostId = "h";
export const labels = createLabelCodec(hostId, Buffer.alloc(32, 7));
export const nowMs = 1_700_000_001_000;

const image: Image = { id: "sha256:1", digests: [], tags: [], labels: {}, volumes: [] };
const cgroup = { version: 2, memory: "", cpu: "", cpuacct: "", pids: "", blkio: "", freezer: "" } as const;
const mebibyte = 2 ** 20;
const room = { cpuMillis: 4_000, memoryBytes: 512 * mebibyte, pids: 1_000, sandboxes: 10 };

/** Holds up who waits for it until it is opened. */
export function gate() {
  const reached = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  return {
    /** Resolves once somebody waits. */
    reached: reached.promise,
    open: () => opened.resolve(),
    async pass() {
      reached.resolve();
      await opened.promise;
    },
  };
}

/** The container that a record would have, with some of it changed. */
export const containerFor = (record: SandboxRecord, change: Partial<Container> = {}): Container =>
  containerOf({
    name: containerName(hostId, record.id),
    labels: labels.encode(record),
    limits: liveLimits(record.spec.resources),
    ...change,
  });

export function reconciled(records: readonly SandboxRecord[] = [recordOf()]) {
  const store = temporaryStore();
  const repository = createRepository(store);
  for (const record of records) repository.insert(record);
  const containers = new Map<string, Container>();
  /** Verbs that change something, with the container that they were for. */
  const done: string[] = [];
  const change = (id: string, to: Partial<Container>) => {
    const container = containers.get(id);
    if (container !== undefined) containers.set(id, { ...container, ...to });
  };
  /** What the kernel says to the cgroups of tenants. */
  const kernel = { holdTenant: async (_: string): Promise<void> => undefined };
  /** Of tenants. */
  const networks: StarterNetworks = {
    prepare: async () => undefined,
    bound: async () => undefined,
    doubt: () => undefined,
  };
  const engine = {
    inspect: async (idOrName: string) =>
      containers.get(idOrName) ?? [...containers.values()].find(({ name }) => name === idOrName),
    image: async (_: string): Promise<Image | undefined> => image,
    pull: async () => undefined,
    create: async (plan: ContainerPlan) => {
      const id = `c${containers.size + 1}`;
      const { name, labels: carried, limits } = plan;
      containers.set(
        id,
        containerOf({ id, name, labels: carried, limits, state: "created", startedAt: "", pid: 0 }),
      );
      return { id };
    },
    isOpen: async () => true,
    compare: async () => undefined,
    start: async (id: string) => change(id, { state: "running", startedAt: `run of ${id}`, pid: 7 }),
    verify: async (): Promise<typeof cgroup | undefined> => cgroup,
    update: async ({ id }: Container, limits: Container["limits"]) => change(id, { limits }),
    pause: async (id: string) => change(id, { state: "paused" }),
    resume: async (id: string) => change(id, { state: "running" }),
    stop: async (id: string) => change(id, { state: "exited", exitCode: 143, pid: 0 }),
    remove: async (id: string): Promise<"gone" | "going"> => {
      containers.delete(id);
      return "gone";
    },
    async *logs(): AsyncIterable<LogChunk> {},
  };
  const changing = new Set(["create", "start", "update", "pause", "resume", "stop", "remove"]);
  const runtime = new Proxy({} as Runtime, {
    get(_, verb: keyof typeof engine) {
      return (...args: readonly [string]) => {
        const [what] = args as readonly unknown[];
        const id = typeof what === "object" && what !== null && "id" in what ? what.id : what;
        if (changing.has(verb)) done.push(typeof id === "string" ? `${verb} ${id}` : verb);
        return (engine[verb] as (...all: readonly unknown[]) => unknown)(...args);
      };
    },
  });
  const time = { nowMs };
  const clock = { nowMs: () => time.nowMs, wallMs: (ms: number) => ms };
  const watched = new Set<string>();
  const reconciler = createReconciler({
    runtime,
    repository,
    labels,
    host: () => ({ hostId, cgroupParent: "/p", cgroupVersion: 2, possibleCpus: 4, blockDevice: undefined }),
    bootId,
    watch: {
      began: (id) => void watched.add(id),
      isWatching: (id) => watched.has(id),
      ended: (id) => void watched.delete(id),
      oomKills: () => 0,
      evidence: () => undefined,
      summary: () => undefined,
    },
    vitals: { idleSinceMs: () => undefined, health: () => undefined },
    clock,
    isEngineAway: () => false,
    isDeleted: (instance) => store.isTombstone(instance),
    pullImages: true,
    concurrentStarts: 2,
    holdTenant: (tenant) => kernel.holdTenant(tenant),
    networks,
    workspace: async () => Promise.reject(new Error("no workspaces here")),
    log: createLog({ level: "fatal" }),
  });
  onTestFinished(async () => {
    reconciler.close();
    await reconciler.idle();
  });
  const config = configOf('[images]\nallow = ["*"]');
  const tenants = createTenants({
    store,
    repository,
    rules: () => tenantRulesOf(config),
    hold: async () => undefined,
    deleteSandbox: () => undefined,
    workspaces: createWorkspaceRepository(store),
    deleteWorkspace: () => undefined,
    log: createLog({ level: "fatal" }),
  });
  onTestFinished(() => tenants.close());
  const manager = createManager({
    repository,
    reconciler,
    runtime,
    config: () => config,
    capacity: { capacity: room, allocatable: room, cpuOvercommit: 1, memoryOvercommit: 1 },
    host: () => ({ hostId, cgroupParent: "/p", cgroupVersion: 2, possibleCpus: 4, blockDevice: undefined }),
    tenants,
    workspaces: { assertMountable: () => undefined, all: () => [] },
    networks: { assertUsable: () => undefined, choose: () => undefined, apply: async () => undefined },
    assertOpen: () => undefined,
    clock,
    labels,
  });
  /** Events of a sandbox so far, in short. */
  async function events(): Promise<readonly string[]> {
    await store.durable();
    return store.events.readAfter(0, 1_000).flatMap(({ document }) => {
      const { type, sandbox } = JSON.parse(document) as { type: string; sandbox?: SandboxRecord };
      if (sandbox === undefined) return [];
      return type === "SANDBOX_STATE_CHANGED" ? sandbox.state : type;
    });
  }
  return { store, repository, reconciler, manager, engine, kernel, networks, time, containers, done, events };
}
