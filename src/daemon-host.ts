// Builds what looks after the host as a whole: its schedule and drains, its conditions but for the engine's, evictions, and
// the housekeeping.

import type { Config } from "./config/config.ts";
import type { DockerRuntime } from "./engine/docker.ts";
import { logBytesOf } from "./engine/log-size.ts";
import type { Candidate } from "./host/eviction.ts";
import { createEvictor } from "./host/evictor.ts";
import { createFileSystems } from "./host/file-system.ts";
import type { Host } from "./host/host.ts";
import { createHousekeeping } from "./host/housekeeping.ts";
import { createPressureWatch } from "./host/pressure-watch.ts";
import { createScheduling, type Scheduling } from "./host/schedule.ts";
import type { HostSample } from "./monitor/host-sampler.ts";
import type { Sampler } from "./monitor/sampler-loop.ts";
import type { Log } from "./observe/log.ts";
import type { MetricsRegistry } from "./observe/metrics.ts";
import type { Clock } from "./sandbox/clock.ts";
import { deleteByPolicy, stopByPolicy } from "./sandbox/policy-stop.ts";
import type { SandboxRecord } from "./sandbox/record.ts";
import type { Repository } from "./sandbox/repository.ts";
import type { Why } from "./sandbox/transition.ts";
import type { Store } from "./store/store.ts";

export interface HostCareOptions {
  readonly config: Config;
  /** As it is now: a reload may have changed which images it names. */
  readonly currentConfig: () => Config;
  readonly host: Host;
  readonly store: Store;
  readonly repository: Repository;
  readonly images: DockerRuntime["images"];
  readonly sampler: Pick<Sampler, "latest">;
  readonly clock: Clock;
  /** Has the reconciler look at a sandbox. */
  readonly kick: (id: string) => void;
  readonly registry: MetricsRegistry;
  readonly log: Log;
}

export interface HostCare {
  readonly scheduling: Scheduling;
  /** A sample of the host was taken. */
  look(sample: HostSample): void;
  /** @throws SandboxdError HOST_CORDONED or HOST_PRESSURE while no new sandboxes are taken. */
  assertOpen(): void;
  close(): Promise<void>;
}

/** How often it is tried to write, so that a full disk is told before a caller meets it, and its end too. */
const stateProbeMs = 5_000;

export function createHostCare(options: HostCareOptions): HostCare {
  const { config, host, store, repository, sampler, clock, kick, registry, log } = options;
  const { metrics } = registry;
  const stop = (id: string, why: Why, mostGraceMs?: number) =>
    stopByPolicy(repository, kick, id, why, mostGraceMs);

  const scheduling = createScheduling({ store, repository, clock, stop, log: log.child("schedule") });
  const unsubscribe = scheduling.subscribe(() => host.changed());

  const pressure = createPressureWatch({ host, thresholds: config.pressure, clock });
  /** Where what sandboxes write is kept. */
  const dataRoot = () => host.engine()?.dataRoot;
  const fileSystems = createFileSystems();
  const evictor = createEvictor({
    pressure,
    repository,
    clock,
    pauseMs: config.pressure.evictionPauseMs,
    canRelieve({ directories }) {
      const root = dataRoot();
      const isWritten = (one: string) => root !== undefined && fileSystems.areOne(one, root);
      return directories.length === 0 || directories.some(isWritten);
    },
    usage,
    stop,
    onEvicted: (condition) => metrics.evictions.add({ condition }),
    log: log.child("evictor"),
  });
  const housekeeping = createHousekeeping({
    rules: config.housekeeping,
    config: options.currentConfig,
    host,
    repository,
    store,
    images: options.images,
    clock,
    remove: (id, why) => deleteByPolicy(repository, kick, id, why),
    onRetired: () => metrics.retired.add({}),
    onImageRemoved: () => metrics.imagesRemoved.add({}),
    log: log.child("housekeeping"),
  });
  const stateProbe = setInterval(() => host.stateIsWritable(store.isWritable()), stateProbeMs);
  let wasDiskShort = false;

  async function usage(record: SandboxRecord): Promise<Candidate> {
    const sample = sampler.latest(record.id);
    const root = dataRoot();
    const logBytes =
      root === undefined || record.containerId === "" ? 0 : await logBytesOf(root, record.containerId);
    return {
      record,
      writtenBytes: (sample?.blockIo?.writeBytes ?? 0) + logBytes,
      ...(sample === undefined ? {} : { workingSetBytes: sample.memory.workingSetBytes }),
    };
  }

  registry.onRender(() => {
    const { schedulable, drain } = scheduling.now();
    metrics.hostSchedulable.set({}, schedulable ? 1 : 0);
    metrics.drainRemaining.set({}, drain === undefined ? 0 : scheduling.remaining().length);
    for (const { type, active } of host.conditions()) {
      metrics.hostConditions.set({ condition: type }, active ? 1 : 0);
    }
  });

  return {
    scheduling,
    look(sample) {
      pressure.look(sample);
      const isDiskShort =
        pressure.active("DISK_PRESSURE") !== undefined || pressure.active("INODE_PRESSURE") !== undefined;
      // what nobody needs goes before what somebody uses
      if (isDiskShort && !wasDiskShort) void housekeeping.tidy();
      wasDiskShort = isDiskShort;
      if (config.pressure.evict) evictor.look();
    },
    assertOpen() {
      scheduling.assertSchedulable();
      pressure.assertNone();
    },
    async close() {
      clearInterval(stateProbe);
      unsubscribe();
      scheduling.close();
      evictor.close();
      await housekeeping.close();
    },
  };
}
