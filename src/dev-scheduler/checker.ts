// Holds hosts to the contract: what they tell must be ordered, unique and complete, per host and epoch, over any number
// of sessions. Knows nothing of connections, so that tests and tools can give it messages from anywhere.

import { hash } from "node:crypto";
import { toBinary } from "@bufbuild/protobuf";
import { type Event, EventSchema } from "../../gen/sandboxd/v1/event_pb.ts";
import type { ConnectRequest, Hello } from "../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { createStories, type Stories } from "./story.ts";

/** What the contract demands of a host. */
export type Rule =
  | "HELLO_FIRST_AND_ONCE"
  | "SNAPSHOT_BEFORE_ALL_ELSE"
  | "SNAPSHOT_AT_MOST_100"
  | "HEARTBEATS_COUNT_FROM_1"
  | "EVENTS_RESUME_AFTER_ACK"
  | "EVENTS_RISE_BY_ONE"
  | "EVENTS_NEVER_CHANGE"
  | "TRANSITIONS_FOLLOW_EACH_OTHER"
  | "GAP_BEGINS_AT_NEXT"
  | "NOTHING_AFTER_GOODBYE";

export interface Violation {
  readonly hostId: string;
  readonly epoch: string;
  readonly rule: Rule;
  readonly message: string;
}

/** What is known of the events of one host in one epoch. */
export interface EventRecord {
  /** The newest sequence number told, or told to be lost. */
  readonly highest: number;
  /** Distinct events told. */
  readonly unique: number;
  /** Events told more than once, which is no violation. */
  readonly repeats: number;
  /** Ranges that the host said it has lost: first and last sequence number. */
  readonly gaps: readonly (readonly [first: number, last: number])[];
}

export interface ContractChecker {
  /** Begins a session of any host. */
  session(): SessionChecker;
  /** The first thousand. */
  violations(): readonly Violation[];
  /** Undefined for hosts and epochs that never said hello. */
  record(hostId: string, epoch: string): EventRecord | undefined;
}

export interface SessionChecker {
  /**
   * Checks one message of the host, in the order of arrival. Returns whether it is an event that was not told
   * before, in any session.
   */
  request(request: ConnectRequest): boolean;
  /** Says what Welcome acknowledged; without it, what Hello said. */
  welcomed(sequence: number): void;
  /** Says what was acknowledged later. A host need not tell that again. */
  acknowledged(sequence: number): void;
}

interface Ledger {
  highest: number;
  unique: number;
  repeats: number;
  readonly gaps: [number, number][];
  /** Of the newest events only: what is repeated lies within a host's window of unacknowledged events. */
  readonly digests: Map<number, string>;
  readonly stories: Stories;
}

const digestsKept = 10_000;
const violationsKept = 1_000;
const gapsKept = 1_000;

export function createContractChecker(onViolation?: (violation: Violation) => void): ContractChecker {
  const ledgers = new Map<string, Ledger>();
  const violations: Violation[] = [];
  const keyOf = (hostId: string, epoch: string): string => JSON.stringify([hostId, epoch]);

  function ledgerOf(hostId: string, epoch: string): Ledger {
    const key = keyOf(hostId, epoch);
    const known = ledgers.get(key);
    if (known !== undefined) return known;
    const [digests, stories] = [new Map<number, string>(), createStories()];
    const ledger: Ledger = { highest: 0, unique: 0, repeats: 0, gaps: [], digests, stories };
    ledgers.set(key, ledger);
    return ledger;
  }

  function report(violation: Violation): void {
    if (violations.length < violationsKept) violations.push(violation);
    onViolation?.(violation);
  }

  return {
    session: () => createSessionChecker(ledgerOf, report),
    violations: () => violations,
    record: (hostId, epoch) => ledgers.get(keyOf(hostId, epoch)),
  };
}

function createSessionChecker(
  ledgerOf: (hostId: string, epoch: string) => Ledger,
  report: (violation: Violation) => void,
): SessionChecker {
  let who = { hostId: "", epoch: "" };
  let ledger: Ledger | undefined;
  let next = 0;
  let acknowledged = 0;
  let begun = false;
  let snapshotSeen = false;
  let heartbeats = 0;
  let left = false;

  function violated(rule: Rule, message: string): void {
    report({ ...who, rule, message });
  }

  function hello(message: Hello): void {
    if (ledger !== undefined) violated("HELLO_FIRST_AND_ONCE", "a second Hello");
    who = { hostId: message.host?.hostId ?? "", epoch: message.host?.stateEpoch ?? "" };
    ledger = ledgerOf(who.hostId, who.epoch);
    next = Number(message.lastAcknowledgedSequence) + 1;
  }

  function expect(sequence: number, what: string, rule: Rule): void {
    const skippedIsKnown = sequence > next && sequence <= acknowledged + 1;
    if (sequence !== next && !skippedIsKnown) {
      violated(begun ? rule : "EVENTS_RESUME_AFTER_ACK", `${what} ${sequence}, expected ${next}`);
    }
    begun = true;
  }

  function event(message: Event, told: Ledger): boolean {
    const sequence = Number(message.sequence);
    expect(sequence, "event", "EVENTS_RISE_BY_ONE");
    next = sequence + 1;
    const digest = hash("sha1", toBinary(EventSchema, message));
    const before = told.digests.get(sequence);
    if (before !== undefined && before !== digest) {
      violated("EVENTS_NEVER_CHANGE", `event ${sequence} differs from when it was told first`);
    }
    if (sequence <= told.highest) {
      told.repeats += 1;
      return false;
    }
    // what another scheduler has acknowledged is not told to this one
    if (sequence > told.highest + 1) told.stories.lost();
    const wrong = told.stories.tell(message);
    if (wrong !== undefined) {
      violated("TRANSITIONS_FOLLOW_EACH_OTHER", `event ${sequence} of ${message.sandboxId}: ${wrong}`);
    }
    told.highest = sequence;
    told.unique += 1;
    told.digests.set(sequence, digest);
    told.digests.delete(sequence - digestsKept);
    return true;
  }

  function gap(first: number, last: number, told: Ledger): void {
    expect(first, "gap from", "GAP_BEGINS_AT_NEXT");
    if (last < first) violated("GAP_BEGINS_AT_NEXT", `gap from ${first} to ${last}`);
    next = last + 1;
    told.highest = Math.max(told.highest, last);
    told.stories.lost();
    if (told.gaps.length < gapsKept) told.gaps.push([first, last]);
  }

  function ordered({ message }: ConnectRequest): void {
    if (left) violated("NOTHING_AFTER_GOODBYE", `${message.case} after Goodbye`);
    if (!snapshotSeen && message.case !== "snapshot" && message.case !== "goodbye") {
      violated("SNAPSHOT_BEFORE_ALL_ELSE", `${message.case} before a Snapshot`);
    }
  }

  return {
    welcomed(sequence) {
      acknowledged = sequence;
      next = sequence + 1;
    },
    acknowledged(sequence) {
      acknowledged = Math.max(acknowledged, sequence);
    },
    request(request) {
      const { message } = request;
      if (message.case === "hello") {
        hello(message.value);
        return false;
      }
      if (ledger === undefined) {
        violated("HELLO_FIRST_AND_ONCE", `${message.case} before Hello`);
        return false;
      }
      ordered(request);
      switch (message.case) {
        case "snapshot":
          snapshotSeen = true;
          if (message.value.sandboxes.length > 100) {
            violated("SNAPSHOT_AT_MOST_100", `a part of ${message.value.sandboxes.length} sandboxes`);
          }
          return false;
        case "heartbeat":
          heartbeats += 1;
          if (Number(message.value.number) !== heartbeats) {
            violated("HEARTBEATS_COUNT_FROM_1", `number ${message.value.number}, expected ${heartbeats}`);
          }
          return false;
        case "event":
          return event(message.value, ledger);
        case "eventGap":
          gap(Number(message.value.firstSequence), Number(message.value.lastSequence), ledger);
          return false;
        case "goodbye":
          left = true;
          return false;
        default:
          return false;
      }
    },
  };
}
