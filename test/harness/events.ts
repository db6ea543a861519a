// A scheduler that listens to a daemon from its first event on, and at the end holds everything that it heard, and what the
// daemon has in its log, against the contract of events.

import { toJson } from "@bufbuild/protobuf";
import { expect } from "vitest";
import { type Event, EventSchema } from "../../gen/sandboxd/v1/event_pb.ts";
import {
  createDevScheduler,
  type DevScheduler,
  type DevSchedulerOptions,
} from "../../src/dev-scheduler/server.ts";
import { silentLog } from "../unit/scheduler/fixture.ts";
import { eventually, present, type TestHost } from "./sandboxes.ts";

export interface EventWitness {
  readonly scheduler: DevScheduler;
  /** For the daemon's configuration. */
  readonly config: { readonly scheduler: { readonly endpoints: string[] } };
  /**
   * Waits until everything was heard, and fails unless the events are ordered, unique, complete, and resumable from any
   * number, and tell a life of each sandbox that the contract knows. Returns them.
   */
  check(host: TestHost): Promise<readonly Event[]>;
  close(): Promise<void>;
}

/** Begins to listen. Close it in every case, after the daemon. */
export async function witnessEvents(options: Partial<DevSchedulerOptions> = {}): Promise<EventWitness> {
  const heard: Event[] = [];
  const scheduler = await createDevScheduler({
    listen: { host: "127.0.0.1", port: 0 },
    log: silentLog,
    ...options,
    onChange(change) {
      if (change.kind === "event") heard.push(change.event);
      options.onChange?.(change);
    },
  });
  return {
    scheduler,
    config: { scheduler: { endpoints: [scheduler.url] } },
    async check(host) {
      const { hostId } = host.daemon;
      const epoch = present((await host.host.getHost({})).host).stateEpoch;
      const logged = await eventsAfter(host, 0n);
      const newest = logged.length;
      await eventually(
        `event ${newest} at the scheduler`,
        () => scheduler.host(hostId)?.receivedSequence,
        (sequence) => (sequence ?? 0) >= newest,
        60_000,
      );
      expect(scheduler.checker.violations()).toEqual([]);
      expect(scheduler.checker.record(hostId, epoch)?.gaps, "nothing was lost").toEqual([]);
      const told = heard.slice(0, newest);
      expect(told.map(({ sequence }) => Number(sequence))).toEqual(logged.map((_, index) => index + 1));
      expect(told.map(jsonOf), "the stream and the log tell the same").toEqual(logged.map(jsonOf));
      for (const part of [0.3, 0.7]) {
        const from = Math.floor(newest * part);
        const rest = (await eventsAfter(host, BigInt(from))).slice(0, newest - from);
        expect(rest.map(jsonOf), `resumed after ${from}`).toEqual(logged.slice(from).map(jsonOf));
      }
      return logged;
    },
    close: () => scheduler.close(),
  };
}

const jsonOf = (event: Event) => toJson(EventSchema, event);

/** All events after a number, page by page. */
export async function eventsAfter(host: TestHost, sequence: bigint): Promise<readonly Event[]> {
  const events: Event[] = [];
  let afterSequence = sequence;
  for (let more = true; more; ) {
    const page = await host.events.listEvents({ pageSize: 1000, afterSequence });
    events.push(...page.events);
    ({ more } = page);
    afterSequence = page.lastSequence;
  }
  return events;
}
