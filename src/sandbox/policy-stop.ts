// Ends a sandbox because a rule of the host says so: a drain, an eviction, the end of the time for which it is kept.

import { isToLive } from "./record.ts";
import type { Repository } from "./repository.ts";
import { moved, type Why } from "./transition.ts";

/**
 * Has a sandbox that is to live stopped, with its stop_grace or with less. Returns at once; one that is on its way already
 * stays so.
 */
export function stopByPolicy(
  repository: Repository,
  kick: (id: string) => void,
  id: string,
  why: Why,
  mostGraceMs = Number.POSITIVE_INFINITY,
): void {
  const record = repository.get(id);
  if (record === undefined || !isToLive(record)) return;
  const stopping = moved(record, { state: "STOPPING", wanted: "STOPPED", ...why });
  repository.put(
    {
      ...stopping,
      generation: record.generation + 1,
      stopGraceMs: Math.min(record.spec.stopGraceMs, mostGraceMs),
    },
    "SANDBOX_STATE_CHANGED",
  );
  kick(id);
}

/** Has a sandbox that has ended deleted. Returns at once; one that is to live again, or is being deleted, stays so. */
export function deleteByPolicy(
  repository: Repository,
  kick: (id: string) => void,
  id: string,
  why: Why,
): void {
  const record = repository.get(id);
  if (record?.wanted !== "STOPPED") return;
  const deleting = moved(record, { state: "DELETING", wanted: "DELETED", ...why });
  repository.put({ ...deleting, generation: record.generation + 1 }, "SANDBOX_STATE_CHANGED");
  kick(id);
}
