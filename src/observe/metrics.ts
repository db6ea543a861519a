// The catalogue of metrics: every name with its unit, labels and meaning, and the one object that counts them.
// Names are an interface: they are never given another meaning.

import { type Counter, createMetric, type Definition, type Gauge, type Histogram } from "./registry.ts";

/** From a hundredth of a millisecond to a minute. */
const callBuckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** What happens on this machine within one tick of the event loop. */
const tickBuckets = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1];

export const catalogue = {
  buildInfo: gauge("sandboxd_build_info", "Always 1; the labels say what runs.", ["version", "node"]),

  calls: counter("sandboxd_calls_total", "Calls of the API that ended.", ["method", "code"]),
  callDuration: histogram(
    "sandboxd_call_duration_seconds",
    "Time from a call's headers to its end.",
    callBuckets,
    ["method"],
  ),
  streamsOpen: gauge("sandboxd_streams_open", "Streaming calls that are open."),
  connectionsRefused: counter("sandboxd_connections_refused_total", "Connections refused or cut, by why.", [
    "why",
  ]),

  engineCalls: counter("sandboxd_engine_calls_total", "Calls of the engine that ended.", ["verb", "outcome"]),
  engineCallDuration: histogram(
    "sandboxd_engine_call_duration_seconds",
    "Time that the engine took.",
    callBuckets,
    ["verb"],
  ),

  sandboxes: gauge("sandboxd_sandboxes", "Sandboxes by state.", ["state"]),
  transitions: counter("sandboxd_transitions_total", "Changes of state.", ["to", "reason"]),
  probes: counter("sandboxd_probes_total", "Probes of health checks that ended.", ["kind", "outcome"]),
  probeDuration: histogram("sandboxd_probe_duration_seconds", "Time of a probe.", callBuckets, ["kind"]),
  capacityCpu: gauge("sandboxd_cpu_millis", "CPU: capacity, allocatable, allocated, limits. Millicores.", [
    "kind",
  ]),
  capacityMemory: gauge("sandboxd_memory_bytes", "Memory: capacity, allocatable, allocated, limits.", [
    "kind",
  ]),
  capacityPids: gauge("sandboxd_pids", "Process ids: capacity, allocatable, allocated, limits.", ["kind"]),

  tenants: gauge("sandboxd_tenants", "Tenants that this host knows."),
  tenantsOverQuota: gauge(
    "sandboxd_tenants_over_quota",
    "Tenants that are promised more of a resource than their quota allows, because it was lowered.",
    ["resource"],
  ),

  networks: gauge("sandboxd_networks", "Networks of tenants that there are."),
  networkEnforced: gauge(
    "sandboxd_network_enforced",
    "1 while the kernel holds the rules of sandboxes' networks, or none has one.",
  ),
  networkDenied: counter(
    "sandboxd_network_denied_total",
    "Packets of sandboxes that were refused, and TLS connections for their server name, by why.",
    ["reason"],
  ),
  nameQueries: counter("sandboxd_name_queries_total", "Questions for names, by whether they were answered.", [
    "outcome",
  ]),

  sniConnections: gauge(
    "sandboxd_sni_connections",
    "TLS connections of sandboxes whose server names are checked.",
  ),

  portConnections: gauge(
    "sandboxd_port_connections",
    "Connections to ports of sandboxes, of ForwardPort and of previews.",
  ),

  processes: gauge("sandboxd_processes", "Processes started in sandboxes that run."),
  processesEnded: counter("sandboxd_processes_ended_total", "Processes that ended, by why.", ["cause"]),
  processOutput: gauge(
    "sandboxd_process_output_bytes",
    "Output of processes that is kept in memory, for those who connect later and for slow readers. Bytes.",
  ),

  workspaces: gauge("sandboxd_workspaces", "Workspaces by state.", ["state"]),
  workspaceBytes: gauge(
    "sandboxd_workspace_bytes",
    "Disk of workspaces: capacity, allocatable, promised (sizes and snapshots), used. Bytes.",
    ["kind"],
  ),
  backups: counter("sandboxd_backups_total", "Backups of workspaces that ended.", ["outcome"]),

  hostConditions: gauge("sandboxd_host_condition", "1 while a condition of the host holds.", ["condition"]),
  hostSchedulable: gauge(
    "sandboxd_host_schedulable",
    "1 while new sandboxes are wanted here, 0 while it is cordoned.",
  ),
  drainRemaining: gauge("sandboxd_drain_remaining", "Sandboxes that the drain under way has still to end."),
  evictions: counter("sandboxd_evictions_total", "Sandboxes stopped under pressure, by condition.", [
    "condition",
  ]),
  retired: counter("sandboxd_retired_total", "Sandboxes deleted because they ended long enough ago."),
  imagesRemoved: counter("sandboxd_images_removed_total", "Unused images removed from the engine."),

  eventsWritten: counter("sandboxd_events_written_total", "Events written to disk."),
  storeWriteDuration: histogram(
    "sandboxd_store_write_duration_seconds",
    "Time of one sync of the state, which may hold many commits.",
    tickBuckets,
  ),

  uplinkConnected: gauge("sandboxd_uplink_connected", "1 while a session with a scheduler is up."),
  uplinkSessions: counter("sandboxd_uplink_sessions_total", "Sessions that ended, by why.", ["why"]),
  uplinkStatsDropped: counter(
    "sandboxd_uplink_stats_dropped_total",
    "Batches of statistics dropped as too late.",
  ),
  uplinkEventsUnacked: gauge(
    "sandboxd_uplink_events_unacked",
    "Events that the scheduler has not acknowledged.",
  ),

  logForwardConnected: gauge("sandboxd_log_forward_connected", "1 while the receiver of logs is connected."),
  logForwardRecords: counter("sandboxd_log_forward_records_total", "Records that the receiver of logs took."),
  logForwardDroppedRecords: counter(
    "sandboxd_log_forward_dropped_records_total",
    "Records dropped because the buffer was full.",
  ),
  logForwardDroppedBytes: counter(
    "sandboxd_log_forward_dropped_bytes_total",
    "Bytes of records dropped because the buffer was full.",
  ),
  logForwardGaps: counter(
    "sandboxd_log_forward_gaps_total",
    "Times that the engine rotated lines away before they were read.",
  ),
  logForwardBuffered: gauge(
    "sandboxd_log_forward_buffered_bytes",
    "Bytes of records that the receiver has not taken yet.",
  ),

  samplerTickDuration: histogram(
    "sandboxd_sampler_tick_duration_seconds",
    "Time of one sampling.",
    tickBuckets,
  ),
  samplerTicksSkipped: counter(
    "sandboxd_sampler_ticks_skipped_total",
    "Samplings left out because of lateness.",
  ),

  residentMemory: gauge("process_resident_memory_bytes", "Resident memory of the daemon."),
  openFiles: gauge("process_open_fds", "Open file descriptors of the daemon."),
  activeResources: gauge(
    "nodejs_active_resources",
    "What keeps the daemon's event loop alive: timers, connections, requests, by Node's own names.",
    ["type"],
  ),
  startTime: gauge("process_start_time_seconds", "Start of the daemon, Unix time."),
  cpuTime: counter("process_cpu_seconds_total", "User and system CPU time of the daemon."),
  eventLoopDelay: gauge(
    "sandboxd_event_loop_delay_seconds",
    "How late the event loop was since the last reading: median, 99th percentile, greatest.",
    ["quantile"],
  ),
} as const;

type Instrument<D> =
  D extends Definition<infer L>
    ? D["type"] extends "counter"
      ? Counter<L>
      : D["type"] extends "gauge"
        ? Gauge<L>
        : Histogram<L>
    : never;

/** One instrument for each entry of the catalogue. */
export type Metrics = { readonly [K in keyof typeof catalogue]: Instrument<(typeof catalogue)[K]> };

/** All metrics, and their text. Two registries share nothing. */
export interface MetricsRegistry {
  readonly metrics: Metrics;
  /** Calls this before each rendering, for what is cheaper to look at than to follow. Must not throw. */
  onRender(collect: () => void): void;
  render(): string;
}

export function createMetrics(): MetricsRegistry {
  const made = Object.entries(catalogue).map(([key, one]) => [key, createMetric<string>(one)] as const);
  const collectors: (() => void)[] = [];
  return {
    // an instrument can do all that its kind in the catalogue may
    metrics: Object.fromEntries(made) as unknown as Metrics,
    onRender: (collect) => void collectors.push(collect),
    render() {
      for (const collect of collectors) collect();
      return made.map(([, metric]) => metric.render()).join("");
    },
  };
}

function counter<const L extends string = never>(name: string, help: string, labels: readonly L[] = []) {
  return { type: "counter", name, help, labels } as const;
}

function gauge<const L extends string = never>(name: string, help: string, labels: readonly L[] = []) {
  return { type: "gauge", name, help, labels } as const;
}

function histogram<const L extends string = never>(
  name: string,
  help: string,
  buckets: readonly number[],
  labels: readonly L[] = [],
) {
  return { type: "histogram", name, help, labels, buckets } as const;
}
