// One host as the scheduler knows it: built from its messages alone, kept between its sessions.

import { type Event, EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import type { Host } from "../../gen/sandboxd/v1/host_pb.ts";
import type { Sandbox } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { ConnectRequest, Hello, Snapshot } from "../../gen/sandboxd/v1/scheduler_service_pb.ts";
import type { StatsBatch } from "../../gen/sandboxd/v1/stats_pb.ts";

export interface HostView {
  readonly hostId: string;
  readonly epoch: string;
  readonly connected: boolean;
  readonly host: Host | undefined;
  /** By id. */
  readonly sandboxes: ReadonlyMap<string, Sandbox>;
  readonly stats: StatsBatch | undefined;
  /** Newest event received, by its number. */
  readonly receivedSequence: number;
  /** Newest event of the host, as its last heartbeat said. */
  readonly lastSequence: number;
  readonly acknowledgedSequence: number;
  readonly sessions: number;
  readonly snapshots: number;
  readonly heartbeats: number;
  readonly statsBatches: number;
  /** Dropped in the session, as its last heartbeat said. */
  readonly droppedStats: number;
  /** When the last heartbeat came, by this side's monotonic clock. Unit: milliseconds; undefined before the first. */
  readonly heartbeatMs: number | undefined;
  /** What the host said when it left on purpose; empty otherwise. */
  readonly goodbye: string;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** A host that can be changed; only its session does. */
export interface HostEntry {
  readonly view: Mutable<HostView>;
  /** The newest events, at most `keep` of them, oldest first. */
  events(): readonly Event[];
  /** A session begins. An epoch that is not the last one's begins everything anew. */
  begin(hello: Hello): void;
  /** Applies a message that came after Hello. `isNew`: whether an event was not received before. */
  apply(request: ConnectRequest, isNew: boolean): void;
}

export function createHostEntry(hostId: string, keep: number): HostEntry {
  let events: Event[] = [];
  let sandboxes = new Map<string, Sandbox>();
  let arriving = new Map<string, Sandbox>();
  let snapshotSequence = 0;
  const view: Mutable<HostView> = {
    hostId,
    epoch: "",
    connected: false,
    host: undefined,
    sandboxes,
    stats: undefined,
    receivedSequence: 0,
    lastSequence: 0,
    acknowledgedSequence: 0,
    sessions: 0,
    snapshots: 0,
    heartbeats: 0,
    statsBatches: 0,
    droppedStats: 0,
    heartbeatMs: undefined,
    goodbye: "",
  };

  function snapshot(part: Snapshot): void {
    for (const sandbox of part.sandboxes) arriving.set(sandbox.sandboxId, sandbox);
    if (!part.last) return;
    // what was in no part does not exist
    sandboxes = arriving;
    arriving = new Map();
    snapshotSequence = Number(part.sequence);
    view.sandboxes = sandboxes;
    view.snapshots += 1;
  }

  function event(told: Event): void {
    events.push(told);
    // twice the bound, then cut: one move of the array per `keep` events
    if (events.length > keep * 2) events = events.slice(-keep);
    view.receivedSequence = Number(told.sequence);
    if (told.sandboxId === "" || Number(told.sequence) <= snapshotSequence) return;
    if (told.type === EventType.SANDBOX_DELETED) sandboxes.delete(told.sandboxId);
    else if (told.sandbox !== undefined) sandboxes.set(told.sandboxId, told.sandbox);
  }

  return {
    view,
    events: () => events.slice(-keep),
    begin({ host, lastSequence }) {
      const epoch = host?.stateEpoch ?? "";
      if (epoch !== view.epoch) {
        events = [];
        view.receivedSequence = 0;
      }
      arriving = new Map();
      Object.assign(view, { epoch, host, lastSequence: Number(lastSequence), connected: true, goodbye: "" });
      view.sessions += 1;
      view.droppedStats = 0;
    },
    apply({ message }, isNew) {
      switch (message.case) {
        case "snapshot":
          return snapshot(message.value);
        case "event":
          if (isNew) event(message.value);
          return;
        case "eventGap":
          view.receivedSequence = Math.max(view.receivedSequence, Number(message.value.lastSequence));
          return;
        case "heartbeat":
          view.heartbeats += 1;
          view.heartbeatMs = performance.now();
          view.lastSequence = Number(message.value.lastSequence);
          view.droppedStats = Number(message.value.droppedStats);
          return;
        case "stats":
          view.statsBatches += 1;
          view.stats = message.value;
          return;
        case "host":
          view.host = message.value;
          return;
        case "goodbye":
          view.goodbye = message.value.message;
          return;
        default:
          return;
      }
    },
  };
}
