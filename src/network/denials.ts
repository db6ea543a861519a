// What sandboxes are refused, as events: the first at once, then what came together since, at most one event of a sandbox in
// each period. So a sandbox that scans the world costs its host no more than a few rows.

import { messageOf } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Repository } from "../sandbox/repository.ts";

/** One kind of refusal; mirrors `sandboxd.v1.NetworkDenial`. */
export interface NetworkDenial {
  readonly reason: "policy" | "host" | "peer" | "spoofed" | "connections" | "packets" | "name" | "sni";
  /** An address with its port, or a name. */
  readonly destination: string;
  readonly protocol?: "TCP" | "UDP";
  readonly count: number;
  /** The first, by the wall clock. */
  readonly timeMs: number;
}

export interface DenialEvents {
  add(sandboxId: string, denial: NetworkDenial): void;
  close(): void;
}

const periodMs = 30_000;
/** Kinds that one event tells; further ones are not told. */
const mostKinds = 16;

export function createDenialEvents({
  repository,
  log,
}: {
  readonly repository: Pick<Repository, "get" | "tellDenials">;
  readonly log: Log;
}): DenialEvents {
  /** By sandbox, of those that were told of within the last period: what came since. */
  const waiting = new Map<string, Map<string, NetworkDenial>>();
  const timers = new Map<string, NodeJS.Timeout>();

  function tell(sandboxId: string, denials: readonly NetworkDenial[]): void {
    const record = repository.get(sandboxId);
    if (record === undefined) return;
    try {
      repository.tellDenials(record, denials);
    } catch (error) {
      log.warn({ sandbox: sandboxId, err: messageOf(error) }, "a refusal could not be written as an event");
    }
  }

  function later(sandboxId: string): void {
    waiting.set(sandboxId, new Map());
    timers.set(
      sandboxId,
      setTimeout(() => {
        const since = [...(waiting.get(sandboxId)?.values() ?? [])];
        waiting.delete(sandboxId);
        timers.delete(sandboxId);
        if (since.length === 0) return;
        tell(sandboxId, since);
        later(sandboxId);
      }, periodMs),
    );
  }

  return {
    add(sandboxId, denial) {
      const since = waiting.get(sandboxId);
      if (since === undefined) {
        tell(sandboxId, [denial]);
        later(sandboxId);
        return;
      }
      const { reason, destination, protocol = "" } = denial;
      const kind = `${reason} ${destination} ${protocol}`;
      const known = since.get(kind);
      if (known !== undefined) since.set(kind, { ...known, count: known.count + denial.count });
      else if (since.size < mostKinds) since.set(kind, denial);
    },
    close() {
      for (const timer of timers.values()) clearTimeout(timer);
    },
  };
}
