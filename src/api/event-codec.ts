// From a stored event to the contract's.

import { create } from "@bufbuild/protobuf";
import { type Event, EventSchema, EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import type { Clock } from "../sandbox/clock.ts";
import type { EventDocument } from "../sandbox/repository.ts";
import type { StoredEvent } from "../store/event-log.ts";
import { completedTenant } from "../tenant/record.ts";
import { conditionOf, scheduleOf } from "./host-codec.ts";
import { denialOf } from "./network-codec.ts";
import { sandboxOf } from "./sandbox-codec.ts";
import { policyOfTenant } from "./tenant-codec.ts";
import { timestampOf } from "./time-codec.ts";
import { snapshotOf, workspaceOf } from "./workspace-codec.ts";

/** The document of a stored event. */
export function documentOf(stored: StoredEvent): EventDocument {
  return JSON.parse(stored.document) as EventDocument;
}

/** The contract's event. */
export function eventOf(
  stored: StoredEvent,
  clock: Clock,
  document: EventDocument = documentOf(stored),
): Event {
  const head = {
    sequence: BigInt(stored.sequence),
    time: timestampOf(stored.timeMs),
    type: EventType[document.type],
  };
  if (document.type === "HOST_CONDITION_CHANGED") {
    return create(EventSchema, { ...head, condition: conditionOf(document.condition) });
  }
  if (document.type === "HOST_SCHEDULE_CHANGED") {
    return create(EventSchema, { ...head, schedule: scheduleOf(document.schedule, clock) });
  }
  if ("tenant" in document) {
    const tenant = completedTenant(document.tenant);
    return create(EventSchema, { ...head, tenant: tenant.name, tenantPolicy: policyOfTenant(tenant) });
  }
  if ("workspace" in document) {
    const { workspace, snapshot } = document;
    return create(EventSchema, {
      ...head,
      tenant: workspace.tenant,
      workspace: workspaceOf(workspace, clock),
      ...(snapshot === undefined ? {} : { snapshot: snapshotOf(workspace, snapshot) }),
    });
  }
  const { sandbox, denials = [] } = document;
  return create(EventSchema, {
    ...head,
    sandboxId: sandbox.id,
    tenant: sandbox.tenant,
    sandbox: sandboxOf(sandbox, clock),
    networkDenials: denials.map(denialOf),
  });
}
