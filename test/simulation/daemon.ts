// One life of the daemon: the real parts of src/sandbox, src/store and src/host, put together as src/daemon.ts does, on a model
// engine and a model disk.

import { tenantRulesOf } from "../../src/daemon-config.ts";
import type { Runtime } from "../../src/engine/runtime.ts";
import { createHost, type Host } from "../../src/host/host.ts";
import { createScheduling, type Scheduling } from "../../src/host/schedule.ts";
import type { Log } from "../../src/observe/log.ts";
import { type Clock, createClock } from "../../src/sandbox/clock.ts";
import { createEngineWatch } from "../../src/sandbox/engine-watch.ts";
import { createManager, type Manager } from "../../src/sandbox/manager.ts";
import { stopByPolicy } from "../../src/sandbox/policy-stop.ts";
import { createReconciler } from "../../src/sandbox/reconciler.ts";
import { createRepository, type Repository } from "../../src/sandbox/repository.ts";
import { createSweeper } from "../../src/sandbox/sweeper.ts";
import type { Vitals, Watch } from "../../src/sandbox/watch.ts";
import { type Medium, type Store, storeOver } from "../../src/store/store.ts";
import { createTenants, type Tenants } from "../../src/tenant/tenants.ts";
import { createWorkspaceRepository } from "../../src/workspace/repository.ts";
import {
  capacity,
  concurrentStarts,
  config,
  hostId,
  labels,
  orphanGraceMs,
  relistPeriodMs,
} from "./model-host.ts";

export interface Daemon {
  readonly store: Store;
  readonly repository: Repository;
  readonly clock: Clock;
  readonly host: Host;
  readonly manager: Manager;
  readonly scheduling: Scheduling;
  readonly tenants: Tenants;
  /** Of the watch: whose processes are sampled. */
  readonly watched: ReadonlySet<string>;
  close(): Promise<void>;
}

export interface DaemonOptions {
  readonly medium: Medium;
  readonly runtime: Runtime;
  readonly bootId: string;
  readonly monotonicMs: () => number;
  readonly vitals: Vitals;
  readonly oomKills: (id: string) => number;
  /** Sandboxes of which the vitals say something that matters now. */
  readonly concerned: () => readonly string[];
  /** Told before anything is done by it. */
  readonly onClock: (clock: Clock) => void;
  readonly log: Log;
}

const sweepMs = 500;
const stateProbeMs = 5_000;
const pulseMs = 1_000;

/** Resolves once it serves. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { runtime, bootId, log } = options;
  const closers: (() => void | Promise<void>)[] = [];
  const store = storeOver(options.medium, { eventRetention: { count: 100_000, ageMs: 365 * 86_400_000 } });
  closers.push(() => store.close());
  const repository = createRepository(store);
  const clock = createClock({ bootId, store, monotonicMs: options.monotonicMs });
  options.onClock(clock);
  closers.push(() => clock.close());
  const host = createHost({
    hostId,
    bootId,
    labels: {},
    cgroupParent: "/sandboxd",
    capacity,
    store,
    repository,
    log,
  });
  closers.push(() => host.close());
  const watched = new Set<string>();
  const watch: Watch = {
    began: (id) => void watched.add(id),
    isWatching: (id) => watched.has(id),
    ended: (id) => void watched.delete(id),
    oomKills: (id) => (watched.has(id) ? options.oomKills(id) : 0),
    evidence: () => undefined,
    summary: () => undefined,
  };
  const reconciler = createReconciler({
    runtime,
    repository,
    labels,
    host: () => host.facts(),
    bootId,
    watch,
    vitals: options.vitals,
    clock,
    isEngineAway: () => host.isEngineAway(),
    isDeleted: (instance) => store.isTombstone(instance),
    pullImages: true,
    concurrentStarts,
    holdTenant: async () => undefined,
    workspace: async () => Promise.reject(new Error("no workspaces here")),
    log,
  });
  closers.push(() => reconciler.close());
  const tenants = createTenants({
    store,
    repository,
    rules: () => tenantRulesOf(config),
    hold: async () => undefined,
    deleteSandbox: (id, actor) => void manager.delete(id, { actor }).catch(() => undefined),
    workspaces: createWorkspaceRepository(store),
    deleteWorkspace: () => undefined,
    log,
  });
  closers.push(() => tenants.close());
  const kick = (id: string) => reconciler.kick(id);
  const sweeper = createSweeper({ repository, clock, kick, periodMs: sweepMs });
  closers.push(() => sweeper.close());
  const scheduling = createScheduling({
    store,
    repository,
    clock,
    stop: (id, why) => stopByPolicy(repository, kick, id, why),
    log,
  });
  closers.push(() => scheduling.close());
  const engineWatch = createEngineWatch({
    runtime,
    repository,
    reconciler,
    store,
    labels,
    clock,
    hostId,
    bootId,
    relistPeriodMs,
    orphanGraceMs,
    adopt: ({ id }) => void watched.add(id),
    adoptTenant: tenants.adopt,
    onHealth: (health) => host.engineIs(health),
    log,
  });
  await engineWatch.start();
  closers.push(() => engineWatch.close());
  const probe = setInterval(() => host.stateIsWritable(store.isWritable()), stateProbeMs);
  closers.push(() => clearInterval(probe));
  const pulse = setInterval(() => options.concerned().forEach(kick), pulseMs);
  closers.push(() => clearInterval(pulse));
  const manager = createManager({
    repository,
    reconciler,
    runtime,
    config: () => config,
    capacity,
    tenants,
    workspaces: { assertMountable: () => undefined, all: () => [] },
    networks: { assertUsable: () => undefined, choose: () => undefined, apply: async () => undefined },
    host: () => host.usable(),
    assertOpen: () => scheduling.assertSchedulable(),
    clock,
    labels,
  });
  return {
    store,
    repository,
    clock,
    host,
    manager,
    scheduling,
    tenants,
    watched,
    async close() {
      for (const closer of closers.reverse()) await closer();
    },
  };
}
