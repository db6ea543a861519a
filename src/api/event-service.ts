// EventService: the event log, a page at a time or followed.

import type { ServiceImpl } from "@connectrpc/connect";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import type { EventFilter, EventService } from "../../gen/sandboxd/v1/event_service_pb.ts";
import type { Clock } from "../sandbox/clock.ts";
import { type EventDocument, isOfSandbox } from "../sandbox/repository.ts";
import type { EventLog, StoredEvent } from "../store/event-log.ts";
import { documentOf, eventOf } from "./event-codec.ts";
import { checkResumable, followEvents } from "./event-feed.ts";

const defaultPage = 100;
const batch = 500;

export function createEventService(events: EventLog, clock: Clock): ServiceImpl<typeof EventService> {
  return {
    listEvents({ filter, afterSequence, pageSize }) {
      const matches = matcherOf(filter);
      const size = pageSize || defaultPage;
      let cursor = afterSequence === undefined ? events.oldest() - 1 : Number(afterSequence);
      checkResumable(events, cursor);
      const page = [];
      while (page.length < size) {
        const found = events.readAfter(cursor, batch);
        for (const stored of found) {
          if (page.length === size) break;
          cursor = stored.sequence;
          const document = documentOf(stored);
          if (matches(document)) page.push(eventOf(stored, clock, document));
        }
        if (found.length < batch) break;
      }
      return { events: page, lastSequence: BigInt(cursor), more: cursor < events.newest() };
    },
    async *watchEvents({ filter, afterSequence }, { signal }) {
      const matches = matcherOf(filter);
      const after = afterSequence === undefined ? events.newest() : Number(afterSequence);
      checkResumable(events, after);
      const bookmark = (sequence: number) => ({
        update: { case: "bookmark" as const, value: { sequence: BigInt(sequence) } },
      });
      yield bookmark(after);
      const select = (stored: StoredEvent) => {
        const document = documentOf(stored);
        return matches(document) ? eventOf(stored, clock, document) : undefined;
      };
      for await (const { sequence, told } of followEvents(events, after, signal, select)) {
        yield told === undefined ? bookmark(sequence) : { update: { case: "event" as const, value: told } };
      }
    },
  };
}

function matcherOf(filter: EventFilter | undefined): (document: EventDocument) => boolean {
  const types = new Set(filter?.types ?? []);
  const tenant = filter?.tenant ?? "";
  const sandboxId = filter?.sandboxId ?? "";
  return (document) => {
    if (types.size > 0 && !types.has(EventType[document.type])) return false;
    if ("tenant" in document) return sandboxId === "" && (tenant === "" || document.tenant.name === tenant);
    if ("workspace" in document)
      return sandboxId === "" && (tenant === "" || document.workspace.tenant === tenant);
    if (!isOfSandbox(document)) return tenant === "" && sandboxId === "";
    return (
      (tenant === "" || document.sandbox.tenant === tenant) &&
      (sandboxId === "" || document.sandbox.id === sandboxId)
    );
  };
}
