// Stops a sandbox because a rule of the host says so: a drain, an eviction.

import { isToLive } from "./record.ts";
import type { Repository } from "./repository.ts";
import { moved, type Why } from "./transition.ts";

/** Has a sandbox that is to live stopped, with its stop_grace. Returns at once; one that is on its way already stays so. */
export function stopByPolicy(repository: Repository, kick: (id: string) => void, id: string, why: Why): void {
  const record = repository.get(id);
  if (record === undefined || !isToLive(record)) return;
  const stopping = moved(record, { state: "STOPPING", wanted: "STOPPED", ...why });
  repository.put(
    { ...stopping, generation: record.generation + 1, stopGraceMs: record.spec.stopGraceMs },
    "SANDBOX_STATE_CHANGED",
  );
  kick(id);
}
