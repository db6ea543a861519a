// Looks at sandboxes when time alone is a reason to: an expiry, a warning of it, a restart that is due. What is due is
// computed from the records each time, so there is nothing to lose.

import type { Clock } from "./clock.ts";
import { dueAt } from "./lifetime.ts";
import type { Repository } from "./repository.ts";

export interface SweeperOptions {
  readonly repository: Repository;
  readonly clock: Clock;
  readonly kick: (id: string) => void;
  /** Default: 250 ms, which a caller may wait for beyond the moment. */
  readonly periodMs?: number;
}

export interface Sweeper {
  close(): void;
}

const defaultPeriodMs = 250;

export function createSweeper({
  repository,
  clock,
  kick,
  periodMs = defaultPeriodMs,
}: SweeperOptions): Sweeper {
  const sweep = () => {
    const nowMs = clock.nowMs();
    for (const record of repository.all()) {
      if (dueAt(record) <= nowMs) kick(record.id);
    }
  };
  const timer = setInterval(sweep, periodMs);
  return { close: () => clearInterval(timer) };
}
