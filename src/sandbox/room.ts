// The room that is left on the host and in a tenant's quota, updates under way included. All levels are looked at in one step.

import { type Asked, promisedTo, quotaViolations } from "../tenant/quota.ts";
import type { Quota } from "../tenant/record.ts";
import type { WorkspaceRecord } from "../workspace/record.ts";
import { type Capacity, hostViolations, larger, promised, refuseIfAny } from "./admission.ts";
import { holdsCapacity, type Resources, type SandboxRecord } from "./record.ts";
import type { Repository } from "./repository.ts";

export interface Room {
  /** @throws SandboxdError TENANT_QUOTA_EXCEEDED or HOST_CAPACITY_EXCEEDED unless a new sandbox with these resources fits. */
  admitNew(tenant: string, asked: Asked): void;
  /** The same for one that is there and is to run; with `resources` in place of its own, if given. */
  admit(record: SandboxRecord, resources?: Resources): void;
  /** Sets aside what an update asks for while it goes on. */
  during<T>(id: string, resources: Resources, update: () => Promise<T>): Promise<T>;
}

export interface RoomOptions {
  readonly repository: Repository;
  readonly capacity: Capacity;
  readonly quotaOf: (tenant: string) => Quota;
  /** Which count against the same quota. */
  readonly workspaces: () => readonly WorkspaceRecord[];
}

export function createRoom({ repository, capacity, quotaOf, workspaces }: RoomOptions): Room {
  /** What updates under way ask for: it counts already, so that nothing else is admitted into the same room. */
  const updating = new Map<string, Resources>();

  const resourcesOf = ({ id, spec }: SandboxRecord): Resources =>
    larger(spec.resources, updating.get(id) ?? spec.resources);

  /** All sandboxes but one, each with what it has or is about to have. */
  function others(except?: string): readonly SandboxRecord[] {
    const rest = except === undefined ? repository.all() : repository.all().filter(({ id }) => id !== except);
    if (updating.size === 0) return rest;
    return rest.map((record) => ({ ...record, spec: { ...record.spec, resources: resourcesOf(record) } }));
  }

  function admit(tenant: string, asked: Asked, record?: SandboxRecord): void {
    const counted = others(record?.id);
    const isTenants = (other: { readonly tenant: string }) => other.tenant === tenant;
    const ofTenant = promisedTo(counted.filter(isTenants), workspaces().filter(isTenants));
    const held = record !== undefined && holdsCapacity(record) ? resourcesOf(record) : undefined;
    refuseIfAny(
      [
        ...quotaViolations(asked, ofTenant, quotaOf(tenant), record && { held }),
        ...hostViolations(asked.resources, promised(counted), capacity, held),
      ],
      tenant,
    );
  }

  return {
    admitNew: admit,
    admit: (record, resources = resourcesOf(record)) =>
      admit(record.tenant, { resources, rootBytes: record.spec.rootBytes }, record),
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
