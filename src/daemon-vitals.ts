// Builds what watches sandboxes for their health and their idleness, and joins it to the rest.

import type { Runtime } from "./engine/runtime.ts";
import type { Host } from "./host/host.ts";
import type { Sampler } from "./monitor/sampler-loop.ts";
import type { Log } from "./observe/log.ts";
import type { Metrics } from "./observe/metrics.ts";
import { createActivity } from "./sandbox/activity.ts";
import type { Clock } from "./sandbox/clock.ts";
import { createProber } from "./sandbox/health/prober.ts";
import { createProbes } from "./sandbox/health/probes.ts";
import { cgroupParentOf } from "./sandbox/plan.ts";
import type { SandboxRecord } from "./sandbox/record.ts";
import type { Repository } from "./sandbox/repository.ts";
import type { Vitals } from "./sandbox/watch.ts";

export interface VitalsOptions {
  readonly runtime: Runtime;
  readonly repository: Repository;
  readonly sampler: Sampler;
  readonly clock: Clock;
  readonly host: Host;
  readonly metrics: Metrics;
  readonly kick: (id: string) => void;
  readonly log: Log;
}

export interface SandboxVitals extends Vitals {
  /** The record with what its health check says now, where that is no other state than the record's: that is an event's to tell. */
  current(record: SandboxRecord): SandboxRecord;
  /** Someone uses the sandbox, until what is returned is called. */
  attach(id: string): () => void;
  close(): Promise<void>;
}

export function createVitals(options: VitalsOptions): SandboxVitals {
  const { host, metrics } = options;
  const activity = createActivity(options);
  const prober = createProber({
    ...options,
    probe: createProbes({
      runtime: options.runtime,
      isEngineAway: () => host.isEngineAway(),
      unobserved: activity.unobserved,
      place(record) {
        const facts = host.facts();
        if (facts === undefined) return undefined;
        const { containerId } = record;
        return { containerId, parent: cgroupParentOf(record, facts), version: facts.cgroupVersion };
      },
    }),
    observe(kind, outcome, seconds) {
      metrics.probes.add({ kind, outcome });
      metrics.probeDuration.observe({ kind }, seconds);
    },
  });
  return {
    idleSinceMs: activity.idleSinceMs,
    health: prober.health,
    current(record) {
      const health = prober.health(record.id);
      return health !== undefined && health.state === record.health?.state ? { ...record, health } : record;
    },
    attach: activity.attach,
    async close() {
      await prober.close();
      activity.close();
    },
  };
}
