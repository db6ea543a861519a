// Gathers what is known of a sandbox besides its record, and has it explained.

import type { Host } from "../host/host.ts";
import type { Sampler } from "../monitor/sampler-loop.ts";
import type { Clock } from "../sandbox/clock.ts";
import { type Explanation, explain } from "../sandbox/explain.ts";
import type { SandboxRecord } from "../sandbox/record.ts";

const windowMs = 60_000;

export interface ExplainerOptions {
  readonly host: Host;
  readonly sampler: Sampler;
  readonly clock: Clock;
  readonly idleSinceMs: (id: string) => number | undefined;
  /** The record with what is known of the sandbox since its last event. */
  readonly current: (record: SandboxRecord) => SandboxRecord;
}

export function createExplainer({
  host,
  sampler,
  clock,
  idleSinceMs,
  current,
}: ExplainerOptions): (record: SandboxRecord) => Explanation {
  return (record) => {
    const window = sampler.history(record.id)?.summary(performance.now() - windowMs);
    const problems = host.conditions().filter(({ active }) => active);
    const idleMs = idleSinceMs(record.id);
    return explain(current(record), {
      nowMs: clock.nowMs(),
      hostProblems: problems.map(({ type, message }) => `${type}: ${message}`),
      ...(window === undefined ? {} : { window }),
      ...(idleMs === undefined ? {} : { idleSinceMs: idleMs }),
    });
  };
}
