// How long ends of processes are known: for a time, and at most so many of one sandbox; the oldest go first.

import type { HeldProcess } from "./held.ts";
import type { Due, Pulse } from "./pulse.ts";

export interface RetentionOptions {
  readonly held: ReadonlyMap<string, ReadonlyMap<string, HeldProcess>>;
  readonly pulse: Pulse;
  readonly config: { readonly maxRetained: number; readonly exitRetentionMs: number };
  readonly forget: (process: HeldProcess) => void;
}

export interface Retention {
  ended(process: HeldProcess): void;
  close(): void;
}

export function createRetention({ held, pulse, config, forget }: RetentionOptions): Retention {
  const endedAt = ({ record }: HeldProcess) => record.endedAtMs ?? 0;

  const endedOf = (processes: Iterable<HeldProcess>) =>
    [...processes]
      .filter((process) => process.record.exit !== undefined)
      .sort((a, b) => endedAt(a) - endedAt(b));

  const sweep: Due = {
    dueMs: Number.POSITIVE_INFINITY,
    due(nowMs) {
      let nextMs = Number.POSITIVE_INFINITY;
      for (const ofSandbox of [...held.values()]) {
        for (const process of endedOf(ofSandbox.values())) {
          const dueMs = endedAt(process) + config.exitRetentionMs;
          if (dueMs > nowMs) nextMs = Math.min(nextMs, dueMs);
          else forget(process);
        }
      }
      sweep.dueMs = nextMs;
      if (nextMs === Number.POSITIVE_INFINITY) pulse.remove(sweep);
    },
  };

  return {
    ended(process) {
      const { sandboxId } = process.record;
      const ended = endedOf(held.get(sandboxId)?.values() ?? []);
      for (const oldest of ended.slice(0, Math.max(0, ended.length - config.maxRetained))) forget(oldest);
      sweep.dueMs = Math.min(sweep.dueMs, endedAt(process) + config.exitRetentionMs);
      pulse.add(sweep);
    },
    close: () => pulse.remove(sweep),
  };
}
