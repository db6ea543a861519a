// The tenant that owns all sandboxes of a schedule, as its events tell it: its quota, and whether it is being deleted.

import { holdsCapacity, type SandboxRecord } from "../../src/sandbox/record.ts";
import type { EventDocument } from "../../src/sandbox/repository.ts";
import { promisedTo } from "../../src/tenant/quota.ts";
import type { Quota, TenantRecord } from "../../src/tenant/record.ts";
import type { Commit } from "./model-disk.ts";

export const tenant = "acme";

export interface Tenancy {
  /** Whether a caller asked to delete it, with all that it has. */
  isDeletionAsked: boolean;
  /** Before the commit counts; `records` are those of the state until then. */
  keep(commit: Commit, records: readonly SandboxRecord[]): void;
  /** A sandbox came to run, or is to; `records` are those of the state with it. */
  admitted(record: SandboxRecord, records: readonly SandboxRecord[]): void;
  rebuild(commits: readonly Commit[]): void;
  /** What has not come to its end, at rest. */
  restProblem(): string | undefined;
}

export function createTenancy(violated: (message: string) => void): Tenancy {
  let known: TenantRecord | undefined;

  function apply({ type, tenant: told }: Extract<EventDocument, { readonly tenant: TenantRecord }>): void {
    known = type === "TENANT_DELETED" ? undefined : told;
  }

  const documentsOf = ({ events }: Commit) =>
    events.map(({ document }) => JSON.parse(document) as EventDocument);

  const tenancy: Tenancy = {
    isDeletionAsked: false,
    keep(commit, records) {
      for (const event of documentsOf(commit)) {
        if ("tenant" in event) {
          if (event.type === "TENANT_DELETED") {
            if (!tenancy.isDeletionAsked) violated("I2: the tenant is deleted, as nobody asked");
            if (records.length > 0)
              violated(`I1: the tenant is gone, and ${records.length} sandboxes are left`);
          }
          if (known !== undefined && known.uid !== event.tenant.uid) violated("the tenant got another uid");
          apply(event);
        } else if (event.type === "SANDBOX_CREATED" && event.sandbox.transition.reason !== "ADOPTED") {
          if (known === undefined) violated(`${event.sandbox.id} was created for a tenant that is not known`);
          if (known?.deleting === true)
            violated(`${event.sandbox.id} was created for a tenant that is to go`);
        }
      }
    },
    admitted(record, records) {
      const quota: Quota = known?.policy?.quota ?? {};
      const sums = promisedTo(records);
      for (const key of ["runningSandboxes", "memoryBytes"] as const) {
        const limit = quota[key];
        if (limit !== undefined && sums[key] > limit && holdsCapacity(record)) {
          violated(
            `I4: ${record.id} was admitted beyond its tenant's quota: ${key} ${sums[key]} of ${limit}`,
          );
        }
      }
    },
    rebuild(commits) {
      known = undefined;
      for (const commit of commits) {
        for (const event of documentsOf(commit)) if ("tenant" in event) apply(event);
      }
    },
    restProblem: () => (known?.deleting === true ? "the tenant is still to go" : undefined),
  };
  return tenancy;
}
