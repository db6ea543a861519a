// Ends sandboxes one at a time while the host is short of memory, disk or inodes, and measures again before each next one.

import { messageOf } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Clock } from "../sandbox/clock.ts";
import { actors, holdsCapacity, type SandboxRecord } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import type { Why } from "../sandbox/transition.ts";
import { type Candidate, chooseVictim, type EvictionCause, evictionMessage } from "./eviction.ts";
import type { Measure } from "./pressure.ts";
import type { PressureWatch } from "./pressure-watch.ts";

export interface EvictorOptions {
  readonly pressure: Pick<PressureWatch, "active">;
  readonly repository: Pick<Repository, "get" | "all">;
  readonly clock: Clock;
  /** From the end of one to the choice of the next; and from the beginning of a shortage of disk to the first, for the housekeeping. */
  readonly pauseMs: number;
  /** Whether the end of a sandbox frees anything of what is short: on another disk than theirs it does not. */
  readonly canRelieve: (measure: Measure) => boolean;
  /** What is known of a sandbox's use. */
  readonly usage: (record: SandboxRecord) => Promise<Candidate>;
  /** Stops it, within at most this grace. */
  readonly stop: (id: string, why: Why, mostGraceMs: number) => void;
  readonly onEvicted: (cause: EvictionCause) => void;
  readonly log: Log;
}

export interface Evictor {
  /** A new sample was taken, and the conditions are those that it makes. */
  look(): void;
  /** Resolves when nothing is going on. */
  idle(): Promise<void>;
  close(): void;
}

const causes: readonly EvictionCause[] = ["MEMORY_PRESSURE", "DISK_PRESSURE", "INODE_PRESSURE"];

/** A sandbox may ask for ten minutes to end in, which a host that runs out does not have. */
const mostGraceMs = 10_000;
/** A disk's space comes one sample later than the rest. */
const freshSamples = 2;

export function createEvictor(options: EvictorOptions): Evictor {
  const { pressure, repository, clock, pauseMs, log } = options;
  /** The one that was told to end and still holds something. */
  let leaving: { readonly id: string; readonly instance: string } | undefined;
  /** Nobody is chosen before this time, nor before so many samples more. */
  let notBeforeMs = 0;
  let samplesToGo = 0;
  let cause: EvictionCause | undefined;
  let isHelpless = false;
  let choosing: Promise<void> | undefined;
  let closed = false;

  function rest(): void {
    notBeforeMs = clock.nowMs() + pauseMs;
    samplesToGo = freshSamples;
  }

  /** One that the kernel does not end is not waited for: the host may not have the time. */
  function isLeaving(): boolean {
    if (leaving === undefined) return false;
    const record = repository.get(leaving.id);
    if (record?.instance === leaving.instance && holdsCapacity(record) && record.stuck === undefined) {
      return true;
    }
    leaving = undefined;
    rest();
    return false;
  }

  function currentCause(): EvictionCause | undefined {
    // what has recovered is not worth a sandbox, though the condition lasts for its minimum time
    return causes.find((type) => {
      const measured = pressure.active(type);
      return measured?.isRelieved === false && options.canRelieve(measured);
    });
  }

  function look(): void {
    samplesToGo--;
    const now = currentCause();
    if (now !== cause) {
      cause = now;
      isHelpless = false;
      if (now === "DISK_PRESSURE" || now === "INODE_PRESSURE") rest();
    }
    if (isLeaving() || now === undefined || choosing !== undefined) return;
    if (clock.nowMs() < notBeforeMs || samplesToGo > 0) return;
    choosing = evict(now)
      .catch((error: unknown) => {
        // a state that cannot be written, mostly
        log.warn({ condition: now, err: messageOf(error) }, "nothing could be evicted; it is tried again");
        rest();
      })
      .finally(() => {
        choosing = undefined;
      });
  }

  async function evict(type: EvictionCause): Promise<void> {
    const candidates = await Promise.all(repository.all().map(options.usage));
    // the choice took a moment, in which somebody may have ended
    const victim = closed ? undefined : chooseVictim(type, candidates.filter(isCurrent));
    const measured = pressure.active(type);
    if (victim === undefined || measured === undefined) {
      if (!isHelpless && !closed) log.warn({ condition: type }, "there is no sandbox whose end would help");
      isHelpless = true;
      return;
    }
    const { record } = victim;
    const message = evictionMessage(type, measured.evidence, victim);
    options.stop(record.id, { reason: "EVICTED", message, actor: actors.policy }, mostGraceMs);
    leaving = { id: record.id, instance: record.instance };
    log.warn({ sandbox: record.id, tenant: record.tenant, condition: type }, message);
    options.onEvicted(type);
  }

  const isCurrent = ({ record }: Candidate) => repository.get(record.id) === record;

  return {
    look() {
      if (!closed) look();
    },
    async idle() {
      await choosing;
    },
    close() {
      closed = true;
    },
  };
}
