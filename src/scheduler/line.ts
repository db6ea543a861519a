// What goes next on the one line to the scheduler. There is no queue: things that are due are marks, the snapshot is an
// iterator and the events are a cursor, so a scheduler that reads slowly costs no memory.

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type ConnectRequest,
  ConnectRequestSchema,
  type Snapshot,
} from "../../gen/sandboxd/v1/scheduler_service_pb.ts";
import type { StatsBatch } from "../../gen/sandboxd/v1/stats_pb.ts";
import type { Outbox, OutboxItem } from "./outbox.ts";
import { snapshotParts } from "./snapshot.ts";
import type { UplinkSource } from "./source.ts";

export interface LineOptions {
  readonly source: UplinkSource;
  readonly outbox: Outbox;
  /** The host's clock, to show to people. Unit: milliseconds since 1970. */
  readonly wallMs: () => number;
}

/** Things that can be due. Each is told as it is when its turn comes. */
export type Due = "heartbeat" | "stats" | "host" | "snapshot";

export interface Line {
  /** Marks something as due. Returns false for stats whose last mark is still waiting: that batch is dropped. */
  mark(due: Due): boolean;
  /**
   * The next message; undefined when there is nothing to tell. The snapshot's first part comes before all else,
   * then heartbeats, the rest of the snapshot, the host, and at last stats and events, by turns.
   */
  next(): ConnectRequest | undefined;
  /** Whether a heartbeat waits for its turn. */
  heartbeatWaits(): boolean;
  /** Stats batches dropped because the one before still waited. */
  droppedStats(): number;
}

type Message = ConnectRequest["message"];

/** A line whose first message is a snapshot. */
export function createLine({ source, outbox, wallMs }: LineOptions): Line {
  const due = new Set<Due>(["snapshot"]);
  let snapshot: Iterator<Snapshot, void> | undefined;
  let heartbeats = 0;
  let droppedStats = 0;
  let statsWereLast = false;

  function snapshotPart(): Message | undefined {
    if (due.delete("snapshot")) snapshot = snapshotParts(source.snapshot());
    const part = snapshot?.next();
    if (part === undefined || part.done === true) return undefined;
    if (part.value.last) snapshot = undefined;
    return { case: "snapshot", value: part.value };
  }

  function heartbeat(): Message | undefined {
    if (!due.delete("heartbeat")) return undefined;
    heartbeats += 1;
    const { message } = create(ConnectRequestSchema, {
      message: {
        case: "heartbeat",
        value: {
          number: BigInt(heartbeats),
          time: timestampFromMs(wallMs()),
          lastSequence: BigInt(source.events.newest()),
          running: BigInt(source.running()),
          droppedStats: BigInt(droppedStats),
        },
      },
    });
    return message;
  }

  function host(): Message | undefined {
    return due.delete("host") ? { case: "host", value: source.host() } : undefined;
  }

  function stats(): Message | undefined {
    if (!due.delete("stats")) return undefined;
    const value: StatsBatch | undefined = source.stats();
    return value === undefined ? undefined : { case: "stats", value };
  }

  function event(): Message | undefined {
    const item = outbox.next();
    return item === undefined ? undefined : messageOfItem(item);
  }

  function statsOrEvent(): Message | undefined {
    // by turns, so that batches as large as the peer can read in one period leave room for events
    const message = statsWereLast ? (event() ?? stats()) : (stats() ?? event());
    statsWereLast = message?.case === "stats";
    return message;
  }

  return {
    mark(kind) {
      const waiting = due.has(kind);
      due.add(kind);
      if (kind === "stats" && waiting) droppedStats += 1;
      return kind !== "stats" || !waiting;
    },
    next() {
      const first = due.has("snapshot") ? snapshotPart() : undefined;
      const message = first ?? heartbeat() ?? snapshotPart() ?? host() ?? statsOrEvent();
      return message === undefined ? undefined : create(ConnectRequestSchema, { message });
    },
    heartbeatWaits: () => due.has("heartbeat"),
    droppedStats: () => droppedStats,
  };
}

function messageOfItem(item: OutboxItem): Message {
  if (item.kind === "event") return { case: "event", value: item.event };
  return create(ConnectRequestSchema, {
    message: {
      case: "eventGap",
      value: { firstSequence: BigInt(item.first), lastSequence: BigInt(item.last) },
    },
  }).message;
}
