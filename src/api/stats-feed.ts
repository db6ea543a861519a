// The newest figures of everything, kept as samples and turned into messages only when someone asks.

import { create } from "@bufbuild/protobuf";
import { type HostStats, type StatsBatch, StatsBatchSchema } from "../../gen/sandboxd/v1/stats_pb.ts";
import type { CgroupPaths } from "../engine/cgroup-path.ts";
import { memberWithNetwork } from "../engine/member-file.ts";
import type { HostSample, HostSampler } from "../monitor/host-sampler.ts";
import type { SandboxSample } from "../monitor/sample.ts";
import type { Sampler } from "../monitor/sampler-loop.ts";
import { stuckProcesses } from "../monitor/stuck.ts";
import { increase } from "../monitor/window.ts";
import type { Repository } from "../sandbox/repository.ts";
import type { Watch } from "../sandbox/watch.ts";
import type { Metering } from "../tenant/metering.ts";
import { hostStatsOf, statsOf, usageOf } from "./stats-codec.ts";

export interface StatsFeed {
  /** What the reconciler tells of. */
  readonly watch: Watch;
  hostStats(): HostStats | undefined;
  batch(): StatsBatch;
  close(): void;
}

export interface StatsFeedOptions {
  readonly sampler: Sampler;
  readonly hostSampler: HostSampler;
  readonly repository: Pick<Repository, "get">;
  readonly metering: Pick<Metering, "ofSandbox" | "ofTenants">;
  /** A process in a sandbox was killed at the memory limit. What throws is told again at the next sample. */
  readonly onOomKill: (id: string) => void;
  /** A sample of the host was taken. */
  readonly onHostSample: (sample: HostSample) => void;
}

interface Latest {
  readonly sample: SandboxSample;
  readonly cpuMillis: number;
  /** Out-of-memory kills that an event was written for, or that are older than this daemon. */
  readonly toldOomKills: number;
}

export function createStatsFeed({
  sampler,
  hostSampler,
  repository,
  metering,
  onOomKill,
  onHostSample,
}: StatsFeedOptions): StatsFeed {
  const latest = new Map<string, Latest>();
  const cgroups = new Map<string, CgroupPaths>();
  let host: HostSample | undefined;

  const unsubscribe = sampler.subscribe(({ samples }) => {
    host = hostSampler.sample();
    for (const [id, sample] of samples) {
      const before = latest.get(id);
      if (before === undefined) continue;
      latest.set(id, { ...before, sample, cpuMillis: cpuMillisBetween(before.sample, sample) });
    }
    for (const [id, now] of latest) {
      const { oomKills } = now.sample.memory;
      if (oomKills <= now.toldOomKills) continue;
      onOomKill(id);
      latest.set(id, { ...now, toldOomKills: oomKills });
    }
    onHostSample(host);
  });

  return {
    watch: {
      began(id, cgroup, { isNew }) {
        cgroups.set(id, cgroup);
        const pid = repository.get(id)?.place && memberWithNetwork(cgroup.pids);
        const source = { cgroup: locationOf(cgroup), hasNetwork: pid !== undefined };
        const first = sampler.add(id, pid === undefined ? source : { ...source, pid });
        if (first === undefined) latest.delete(id);
        else latest.set(id, { sample: first, cpuMillis: 0, toldOomKills: isNew ? 0 : first.memory.oomKills });
      },
      isWatching: (id) => latest.has(id),
      ended(id) {
        sampler.remove(id);
        latest.delete(id);
        cgroups.delete(id);
      },
      summary: (id) => sampler.history(id)?.summary(0),
      evidence: (id) => {
        const place = cgroups.get(id);
        return place === undefined ? undefined : stuckProcesses(place);
      },
      oomKills: (id) => (sampler.sampleNow(id) ?? sampler.latest(id))?.memory.oomKills ?? 0,
    },
    hostStats: () => (host === undefined ? undefined : hostStatsOf(host)),
    batch: () =>
      create(StatsBatchSchema, {
        ...(host === undefined ? {} : { host: hostStatsOf(host) }),
        sandboxes: [...latest].map(([id, { sample, cpuMillis }]) => {
          const record = repository.get(id);
          return statsOf(id, sample, cpuMillis, record && metering.ofSandbox(record));
        }),
        tenants: [...metering.ofTenants()].map(([tenant, usage]) => ({ tenant, usage: usageOf(usage) })),
      }),
    close: unsubscribe,
  };
}

function cpuMillisBetween(before: SandboxSample, after: SandboxSample): number {
  const elapsedMs = after.monotonicMs - before.monotonicMs;
  // microseconds of CPU per millisecond are millicores
  return elapsedMs <= 0 ? 0 : Math.round(increase(before.cpu.usageUsec, after.cpu.usageUsec) / elapsedMs);
}

function locationOf({ version, freezer: _, ...paths }: CgroupPaths) {
  return version === 2 ? ({ version, path: paths.memory } as const) : ({ version, paths } as const);
}
