// The room that is left on the host, updates under way included.

import { admit, type Capacity, larger, type Promised, promised } from "./admission.ts";
import type { Resources, SandboxRecord } from "./record.ts";
import type { Repository } from "./repository.ts";

export interface Room {
  /** @throws SandboxdError HOST_CAPACITY_EXCEEDED unless a new sandbox with these resources fits. */
  admitNew(resources: Resources): void;
  /** The same for one that is there and is to run; with `resources` in place of its own, if given. */
  admit(record: SandboxRecord, resources?: Resources): void;
  /** Sets aside what an update asks for while it goes on. */
  during<T>(id: string, resources: Resources, update: () => Promise<T>): Promise<T>;
}

export function createRoom(repository: Repository, capacity: Capacity): Room {
  /** What updates under way ask for: it counts already, so that nothing else is admitted into the same room. */
  const updating = new Map<string, Resources>();

  const resourcesOf = ({ id, spec }: SandboxRecord): Resources =>
    larger(spec.resources, updating.get(id) ?? spec.resources);

  function promisedNow(except?: string): Promised {
    if (updating.size === 0) return promised(repository.all(), except);
    const counted = repository.all().map((record) => ({
      ...record,
      spec: { ...record.spec, resources: resourcesOf(record) },
    }));
    return promised(counted, except);
  }

  return {
    admitNew: (resources) => admit(resources, promisedNow(), capacity),
    admit: (record, resources = resourcesOf(record)) => admit(resources, promisedNow(record.id), capacity),
    async during(id, resources, update) {
      updating.set(id, resources);
      try {
        return await update();
      } finally {
        updating.delete(id);
      }
    },
  };
}
