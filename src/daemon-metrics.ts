// Joins the catalogue of metrics to the parts that know the figures: most are looked at when someone asks for them.

import type { Host } from "./host/host.ts";
import { systemClock } from "./monitor/clock.ts";
import type { Sampler } from "./monitor/sampler-loop.ts";
import type { MetricsRegistry } from "./observe/metrics.ts";
import type { SandboxRecord } from "./sandbox/record.ts";
import type { Repository } from "./sandbox/repository.ts";
import type { UplinkMetrics } from "./scheduler/metrics.ts";
import type { Store } from "./store/store.ts";

export interface Metered {
  readonly repository: Repository;
  readonly host: Host;
  readonly store: Store;
  readonly sampler: Sampler;
}

/** Counts transitions as they happen, and everything else at each rendering. Returns how to stop. */
export function meterState(
  { metrics, onRender }: MetricsRegistry,
  { repository, host, store, sampler }: Metered,
): () => void {
  const counted = new WeakSet<SandboxRecord["transition"]>();
  const states = new Set<string>();
  let events = store.events.newest();
  let skipped = 0;
  onRender(() => {
    const counts = new Map<string, number>();
    for (const { state } of repository.all()) counts.set(state, (counts.get(state) ?? 0) + 1);
    // a state that nobody is in any more is told as 0, not forgotten
    for (const state of counts.keys()) states.add(state);
    for (const state of states) metrics.sandboxes.set({ state }, counts.get(state) ?? 0);
    const { requests, limits } = host.promised();
    const { capacity, allocatable } = host.capacity;
    for (const [kind, amounts] of Object.entries({ capacity, allocatable, allocated: requests, limits })) {
      metrics.capacityCpu.set({ kind }, amounts.cpuMillis);
      metrics.capacityMemory.set({ kind }, amounts.memoryBytes);
      metrics.capacityPids.set({ kind }, amounts.pids);
    }
    metrics.eventsWritten.add({}, store.events.newest() - events);
    events = store.events.newest();
    metrics.samplerTicksSkipped.add({}, sampler.counters().skippedTicks - skipped);
    skipped = sampler.counters().skippedTicks;
  });
  const unsubscribe = sampler.subscribe(({ monotonicMs }) =>
    metrics.samplerTickDuration.observe({}, (systemClock.monotonicMs() - monotonicMs) / 1_000),
  );
  const unfollow = repository.subscribe((id) => {
    const transition = repository.get(id)?.transition;
    if (transition === undefined || counted.has(transition)) return;
    counted.add(transition);
    metrics.transitions.add({ to: transition.to, reason: transition.reason });
  });
  return () => {
    unsubscribe();
    unfollow();
  };
}

/** What the uplink counts, under its names in the catalogue. */
export function uplinkMetrics({ metrics }: MetricsRegistry): UplinkMetrics {
  return {
    sessionLive: () => metrics.uplinkConnected.set({}, 1),
    sessionEnded(why) {
      metrics.uplinkConnected.set({}, 0);
      metrics.uplinkSessions.add({ why });
    },
    eventTold: () => undefined,
    eventsLost: () => undefined,
    statsDropped: () => metrics.uplinkStatsDropped.add({}),
  };
}
