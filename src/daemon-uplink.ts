// Builds the daemon's side of the stream to the scheduler, where one is configured.

import { createUplinkSource, type UplinkSourceOptions } from "./api/uplink-source.ts";
import type { Config } from "./config/config.ts";
import { schedulerCredentials } from "./daemon-config.ts";
import { uplinkMetrics } from "./daemon-metrics.ts";
import type { Log } from "./observe/log.ts";
import type { MetricsRegistry } from "./observe/metrics.ts";

export interface UplinkParts extends UplinkSourceOptions {
  readonly config: Config;
  readonly registry: MetricsRegistry;
  readonly log: Log;
}

/** Connects, and goes on connecting. Resolves to how to end it. */
export async function startUplink(parts: UplinkParts): Promise<() => Promise<void> | void> {
  const { config, store, registry, log } = parts;
  if (config.scheduler.endpoints.length === 0) return () => undefined;
  // with its client of gRPC, which only a host with a scheduler needs
  const { createUplink } = await import("./scheduler/uplink.ts");
  const source = createUplinkSource(parts);
  registry.onRender(() => {
    const unacked = store.events.newest() - source.lastAcknowledgedSequence();
    registry.metrics.uplinkEventsUnacked.set({}, unacked);
  });
  const uplink = createUplink({
    source,
    endpoints: config.scheduler.endpoints,
    credentials: schedulerCredentials(config),
    periods: { heartbeatMs: config.scheduler.heartbeatPeriodMs, statsMs: config.scheduler.statsPeriodMs },
    metrics: uplinkMetrics(registry),
    log: log.child("uplink").pino,
  });
  uplink.start();
  return () => uplink.close();
}
