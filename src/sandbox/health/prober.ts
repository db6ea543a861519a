// Runs the health checks of all sandboxes that run: one probe of each at a time, few at once over all, and keeps what each
// check says. The reconciler is woken when that is another state than the record's; what is done about it, decide() says.

import { availableParallelism } from "node:os";
import { messageOf } from "../../errors.ts";
import type { Log } from "../../observe/log.ts";
import type { Clock } from "../clock.ts";
import { createSlots } from "../queue.ts";
import type { Health, HealthCheck, SandboxRecord } from "../record.ts";
import type { Repository } from "../repository.ts";
import { type Outcome, untested, verdictOf } from "./verdict.ts";

/** Runs one probe, to its end or its timeout. Aborting ends it; then what it found does not matter. */
export type Probing = (
  record: SandboxRecord,
  check: HealthCheck,
  options: { readonly signal: AbortSignal },
) => Promise<Outcome>;

export interface ProberOptions {
  readonly repository: Pick<Repository, "all" | "get" | "subscribe">;
  readonly clock: Clock;
  readonly probe: Probing;
  readonly kick: (id: string) => void;
  readonly observe: (kind: HealthCheck["probe"]["kind"], outcome: Outcome["kind"], seconds: number) => void;
  readonly log: Log;
  /** Default: as many as the machine has CPUs, and 2 to 8. */
  readonly concurrentProbes?: number;
  /** At least 0, below 1. Default: Math.random. */
  readonly random?: () => number;
}

export interface Prober {
  /** What the check of a running sandbox says now; undefined of any other. */
  health(id: string): Health | undefined;
  /** Ends all probes. Resolves when none is left, or as good as none: an engine that hangs is not waited for. */
  close(): Promise<void>;
}

interface Watched {
  readonly check: HealthCheck;
  /** When its run began. Steady time. */
  readonly ranSinceMs: number;
  readonly ending: AbortController;
  health: Health;
  wasTried: boolean;
  timer: NodeJS.Timeout | undefined;
}

const defaultConcurrentProbes = Math.max(2, Math.min(8, availableParallelism()));
/** What goes on for longer mostly waits: it gives its place to others, or a few that hang would hold up everybody's. */
const mostSlotMs = 1_000;
/** Ending a command inside takes two questions to the engine. */
const closingMs = 2_000;
/** The first probes of sandboxes that start together, or are found together, are spread over so long. */
const firstWithinMs = 5_000;

export function createProber({
  repository,
  clock,
  probe,
  kick,
  observe,
  log,
  concurrentProbes = defaultConcurrentProbes,
  random = Math.random,
}: ProberOptions): Prober {
  const slots = createSlots(concurrentProbes);
  const watched = new Map<string, Watched>();
  const looking = new Set<Promise<void>>();

  function follow(id: string): void {
    const record = repository.get(id);
    const check = record?.state === "RUNNING" ? record.spec.healthCheck : undefined;
    const known = watched.get(id);
    if (record === undefined || check === undefined) {
      if (known !== undefined) forget(id, known);
      return;
    }
    if (known !== undefined) return;
    const one: Watched = {
      check,
      ranSinceMs: record.ranSinceMs ?? clock.nowMs(),
      ending: new AbortController(),
      health: record.health ?? untested,
      wasTried: true,
      timer: undefined,
    };
    watched.set(id, one);
    schedule(id, one, random() * Math.min(check.intervalMs, firstWithinMs));
  }

  function forget(id: string, one: Watched): void {
    watched.delete(id);
    clearTimeout(one.timer);
    one.ending.abort();
  }

  function schedule(id: string, one: Watched, delayMs: number): void {
    one.timer = setTimeout(() => {
      const look = lookAt(id, one).finally(() => looking.delete(look));
      looking.add(look);
    }, delayMs);
  }

  async function lookAt(id: string, one: Watched): Promise<void> {
    let trying: Promise<void> | undefined;
    await slots.run(() => {
      trying = tryOnce(id, one);
      return endOrAfter(trying, mostSlotMs);
    });
    await trying;
    if (watched.get(id) === one) schedule(id, one, one.check.intervalMs);
  }

  async function tryOnce(id: string, one: Watched): Promise<void> {
    const record = repository.get(id);
    if (one.ending.signal.aborted || record === undefined) return;
    const beganMs = clock.nowMs();
    const outcome = await outcomeOf(record, one);
    if (one.ending.signal.aborted) return;
    observe(one.check.probe.kind, outcome.kind, (clock.nowMs() - beganMs) / 1_000);
    tellUntried(id, one, outcome);
    const when = { sinceStartMs: beganMs - one.ranSinceMs, timeMs: Date.now() };
    one.health = verdictOf(one.health, outcome, one.check, when);
    if (isToldOtherwise(id, one)) kick(id);
  }

  /** By the record itself, each time: a wake-up comes to nothing while the engine is away, or if the daemon ends then. */
  function isToldOtherwise(id: string, { health, check }: Watched): boolean {
    if (health.state !== repository.get(id)?.health?.state) return true;
    return health.state === "UNHEALTHY" && check.onUnhealthy !== "REPORT";
  }

  async function outcomeOf(record: SandboxRecord, { check, ending }: Watched): Promise<Outcome> {
    try {
      return await probe(record, check, { signal: ending.signal });
    } catch (error) {
      return { kind: "untried", message: messageOf(error) };
    }
  }

  /** Once for each time that probes begin to come to nothing. */
  function tellUntried(sandbox: string, one: Watched, { kind, message }: Outcome): void {
    const isTried = kind !== "untried";
    if (!isTried && one.wasTried) log.warn({ sandbox, err: message }, "health check could not be tried");
    one.wasTried = isTried;
  }

  const unsubscribe = repository.subscribe(follow);
  for (const { id } of repository.all()) follow(id);
  return {
    health: (id) => watched.get(id)?.health,
    async close() {
      unsubscribe();
      for (const [id, one] of watched) forget(id, one);
      await endOrAfter(Promise.all(looking), closingMs);
    },
  };
}

/** Resolves when the job has ended, or after so long. */
function endOrAfter(job: Promise<unknown>, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    const end = () => {
      clearTimeout(timer);
      resolve();
    };
    void job.then(end, end);
  });
}
