// What the uplink needs of the daemon: facts to tell, and two numbers to keep. Nothing here waits; every method may
// throw when the state cannot be read or written, which costs a session but never the uplink.

import type { Event } from "../../gen/sandboxd/v1/event_pb.ts";
import type { Host } from "../../gen/sandboxd/v1/host_pb.ts";
import type { Sandbox } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { StatsBatch } from "../../gen/sandboxd/v1/stats_pb.ts";

/** The event log as the uplink reads it. */
export interface UplinkEvents {
  /** Retained events with a greater sequence number, oldest first, at most `limit`. */
  readAfter(sequence: number, limit: number): readonly Event[];
  /** The newest sequence number ever written; 0 before the first. */
  newest(): number;
  /** Calls back after events were written. Returns how to stop. */
  subscribe(listener: () => void): () => void;
}

/** All sandboxes at one moment. */
export interface UplinkSnapshot {
  /** Read part by part while the scheduler takes them: must not change under the reader. */
  readonly sandboxes: Iterable<Sandbox>;
  /** The newest event that the sandboxes include. */
  readonly sequence: number;
}

/** The daemon as the uplink sees it. */
export interface UplinkSource {
  /** The host as it is now. */
  host(): Host;
  snapshot(): UplinkSnapshot;
  readonly events: UplinkEvents;
  /** The newest sequence number that was given to `acknowledge`; 0 if none in this epoch. */
  lastAcknowledgedSequence(): number;
  /** The scheduler has stored everything up to this number. Only ever rises. */
  acknowledge(sequence: number): void;
  /** The newest term seen; 0 if none. */
  term(): number;
  /** Keeps a term and returns true; returns false if a newer one was seen. The same again is true. */
  acceptTerm(term: number): boolean;
  /** The newest sample of everything; undefined while there is none. */
  stats(): StatsBatch | undefined;
  /** How often the scheduler wants stats, so that sampling can keep its pace. Unit: milliseconds. */
  setStatsPeriod(periodMs: number): void;
  /** Sandboxes that run. */
  running(): number;
  /** Calls back when the host's conditions or promises changed. Returns how to stop. */
  subscribeHost(listener: () => void): () => void;
}
