// Since when a sandbox does nothing: by its CPU use, by its number of processes, and by who is attached to it. Only quiet that
// was seen counts; what could not be looked at is no idleness.

import type { SandboxSample } from "../monitor/sample.ts";
import type { Sampler } from "../monitor/sampler-loop.ts";
import { increase } from "../monitor/window.ts";
import type { Clock } from "./clock.ts";
import type { SandboxRecord } from "./record.ts";
import type { Repository } from "./repository.ts";

export interface ActivityOptions {
  readonly repository: Pick<Repository, "all" | "get" | "subscribe">;
  readonly sampler: Pick<Sampler, "subscribe" | "sampleNow">;
  readonly clock: Clock;
  readonly kick: (id: string) => void;
}

export interface Activity {
  /** Steady time. Undefined of a sandbox that has no idle_timeout, or does not run. */
  idleSinceMs(id: string): number | undefined;
  /** Someone uses the sandbox from now on, until what is returned is called. */
  attach(id: string): () => void;
  /**
   * Does something to the sandbox that is not its own activity. What CPU it uses meanwhile is left out of the reckoning, with the
   * time that it takes, and its processes are not counted: so a sandbox that works shows that between two probes.
   */
  unobserved<T>(id: string, job: () => Promise<T>): Promise<T>;
  close(): void;
}

interface Watched {
  readonly idleTimeoutMs: number;
  readonly idleCpuMillis: number;
  /** Of what was seen, how long it has been quiet at `judgedMs`. */
  quietMs: number;
  /** Steady time. */
  judgedMs: number;
  /** Things done to it now that are not its own. */
  foreign: number;
  /** Where the stretch that is being observed began; undefined while none is. */
  last: SandboxSample | undefined;
  /** CPU use in the stretches since `judgedMs`, and their length. */
  usageUsec: number;
  observedMs: number;
  /** As last counted; undefined before the first look. */
  processes: number | undefined;
}

/** CPU use over less is mostly chance. */
const leastObservedMs = 250;
/** As much as a probe or the longest time between samples takes. After longer silence it was not seen what happened. */
const mostCreditMs = 300_000;

export function createActivity({ repository, sampler, clock, kick }: ActivityOptions): Activity {
  const watched = new Map<string, Watched>();
  const attached = new Map<string, number>();

  function follow(id: string): void {
    const record = repository.get(id);
    const idleTimeoutMs = record?.state === "RUNNING" ? record.spec.lifetime.idleTimeoutMs : undefined;
    if (record === undefined || idleTimeoutMs === undefined) watched.delete(id);
    else if (!watched.has(id)) watched.set(id, begun(record, idleTimeoutMs, clock.nowMs()));
  }

  /** Adds what it used since the stretch began. */
  function observe(one: Watched, sample: SandboxSample | undefined): void {
    if (one.last !== undefined && sample !== undefined && sample.monotonicMs > one.last.monotonicMs) {
      one.usageUsec += increase(one.last.cpu.usageUsec, sample.cpu.usageUsec);
      one.observedMs += sample.monotonicMs - one.last.monotonicMs;
    }
    one.last = sample;
  }

  function judge(id: string, one: Watched, sample: SandboxSample): void {
    observe(one, sample);
    if (one.processes === undefined) active(one);
    const before = one.processes ?? sample.pids.current;
    one.processes = sample.pids.current;
    if (sample.pids.current > before || attached.has(id)) active(one);
    if (one.observedMs < leastObservedMs) return;
    // microseconds of CPU per millisecond are millicores
    if (one.usageUsec / one.observedMs > one.idleCpuMillis) active(one);
    else {
      const nowMs = clock.nowMs();
      one.quietMs += Math.min(mostCreditMs, nowMs - one.judgedMs);
      one.judgedMs = nowMs;
    }
    one.usageUsec = 0;
    one.observedMs = 0;
    if (one.quietMs >= one.idleTimeoutMs) kick(id);
  }

  function active(one: Watched): void {
    one.quietMs = 0;
    one.judgedMs = clock.nowMs();
  }

  const unsample = sampler.subscribe(({ samples }) => {
    for (const [id, one] of watched) {
      if (one.foreign > 0) continue;
      const sample = samples.get(id);
      if (sample === undefined) active(one);
      else judge(id, one, sample);
    }
  });
  const unfollow = repository.subscribe(follow);
  for (const { id } of repository.all()) follow(id);

  return {
    idleSinceMs(id) {
      const one = watched.get(id);
      if (one === undefined) return undefined;
      return clock.nowMs() - (attached.has(id) ? 0 : one.quietMs);
    },
    attach(id) {
      attached.set(id, (attached.get(id) ?? 0) + 1);
      let isAttached = true;
      return () => {
        if (!isAttached) return;
        isAttached = false;
        const left = (attached.get(id) ?? 1) - 1;
        if (left > 0) attached.set(id, left);
        else attached.delete(id);
        const one = watched.get(id);
        if (one !== undefined) active(one);
      };
    },
    async unobserved(id, job) {
      const one = watched.get(id);
      if (one === undefined) return job();
      if (one.foreign++ === 0) observe(one, sampler.sampleNow(id));
      try {
        return await job();
      } finally {
        if (--one.foreign === 0) one.last = sampler.sampleNow(id);
      }
    },
    close() {
      unsample();
      unfollow();
      watched.clear();
    },
  };
}

function begun({ spec }: SandboxRecord, idleTimeoutMs: number, nowMs: number): Watched {
  return {
    idleTimeoutMs,
    idleCpuMillis: spec.lifetime.idleCpuMillis,
    quietMs: 0,
    judgedMs: nowMs,
    foreign: 0,
    last: undefined,
    usageUsec: 0,
    observedMs: 0,
    processes: undefined,
  };
}
