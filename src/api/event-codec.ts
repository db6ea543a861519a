// From a stored event to the contract's.

import { create } from "@bufbuild/protobuf";
import { type Event, EventSchema, EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { HostConditionType } from "../../gen/sandboxd/v1/host_pb.ts";
import type { EventDocument } from "../sandbox/repository.ts";
import type { StoredEvent } from "../store/event-log.ts";
import { sandboxOf, timestampOf } from "./sandbox-codec.ts";

/** The document of a stored event. */
export function documentOf(stored: StoredEvent): EventDocument {
  return JSON.parse(stored.document) as EventDocument;
}

/** The contract's event. */
export function eventOf(stored: StoredEvent, document: EventDocument = documentOf(stored)): Event {
  const head = {
    sequence: BigInt(stored.sequence),
    time: timestampOf(stored.timeMs),
    type: EventType[document.type],
  };
  if (document.type === "HOST_CONDITION_CHANGED") {
    const { type, active, message, hint, timeMs } = document.condition;
    const number = HostConditionType[type];
    return create(EventSchema, {
      ...head,
      condition: { type: number, active, message, hint, time: timestampOf(timeMs) },
    });
  }
  const { sandbox } = document;
  return create(EventSchema, {
    ...head,
    sandboxId: sandbox.id,
    tenant: sandbox.tenant,
    sandbox: sandboxOf(sandbox),
  });
}
