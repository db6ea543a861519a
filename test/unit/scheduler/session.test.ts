import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { PaceSchema } from "../../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { liveSession, sessionOf } from "./session-fixture.ts";

describe("a session", () => {
  test("begins with Hello and says nothing more before Welcome", () => {
    const { wire, clock } = sessionOf({ events: 3, term: 7 });
    clock.advance(9_999);
    expect(wire.kinds()).toEqual(["hello"]);
    expect(wire.written[0]?.message).toMatchObject({
      case: "hello",
      value: {
        host: { hostId: "host-1", stateEpoch: "epoch-1" },
        lastAcknowledgedSequence: 0n,
        lastSequence: 3n,
        term: 7n,
        protocolVersion: 1,
      },
    });
  });

  test("then tells a snapshot, a heartbeat, stats, and its events", () => {
    const { wire } = sessionOf({ events: 2 });
    wire.say({ case: "welcome", value: { sessionId: "x" } });
    expect(wire.kinds()).toEqual(["hello", "snapshot", "heartbeat", "stats", "event", "event"]);
  });

  test("tells heartbeats and stats at the scheduler's pace, also when it changes", () => {
    const { wire, clock, source } = liveSession();
    const pace = (heartbeatMs: number, statsMs: number) =>
      create(PaceSchema, {
        heartbeatPeriod: durationFromMs(heartbeatMs),
        statsPeriod: durationFromMs(statsMs),
      });
    clock.advance(10_000);
    expect(wire.kinds()).toEqual(["heartbeat", "stats", "heartbeat"]);
    wire.say({ case: "pace", value: pace(1_000, 2_000) });
    clock.advance(2_000);
    expect(wire.kinds().toSorted()).toEqual(["heartbeat", "heartbeat", "stats"]);
    expect(source.statsPeriods).toEqual([10_000, 2_000]);
  });

  test("keeps its heartbeats when the scheduler repeats the same pace faster than they come", () => {
    const { wire, clock } = liveSession();
    for (let index = 0; index < 5; index += 1) {
      wire.say({ case: "pace", value: {} });
      clock.advance(1_000);
    }
    expect(wire.kinds()).toEqual(["heartbeat"]);
  });

  test("tells the host again when it changed", () => {
    const { wire, source } = liveSession();
    source.hostChanged();
    expect(wire.kinds()).toEqual(["host"]);
  });

  test("tells the whole snapshot again on Resync", () => {
    const { wire } = liveSession();
    wire.say({ case: "resync", value: {} });
    expect(wire.kinds()).toEqual(["snapshot"]);
  });

  test("has a heartbeat wait for one message at most, whatever else waits", () => {
    const { wire, source, clock } = liveSession();
    wire.take(0);
    source.append(500);
    source.hostChanged();
    clock.advance(5_000);
    wire.take(1);
    expect(wire.kinds()).toEqual(["event", "heartbeat"]);
  });

  test("drops and counts stats while the scheduler does not read, and sends the newest then", () => {
    const { wire, source, clock } = liveSession();
    wire.take(0);
    source.append(1);
    clock.advance(50_000);
    wire.take(Number.POSITIVE_INFINITY);
    expect(wire.kinds()).toEqual(["event", "heartbeat", "stats"]);
    expect(wire.written.at(-2)?.message.value).toMatchObject({ droppedStats: 4n });
  });

  test("lets stats and events take turns when the scheduler reads one of them per period", () => {
    const { wire, source, clock } = liveSession();
    wire.take(0);
    source.append(10);
    for (let period = 0; period < 4; period += 1) {
      clock.advance(10_000);
      wire.take(2);
    }
    const kinds = wire.kinds().filter((kind) => kind !== "heartbeat");
    expect(kinds).toEqual(["event", "stats", "event", "stats", "event"]);
  });

  test("resumes after what Welcome acknowledges, and without it after what the host has kept", () => {
    const first = sessionOf({ events: 5, everTold: 5 });
    first.source.acknowledge(2);
    first.wire.say({ case: "welcome", value: { sessionId: "x", acknowledgedSequence: 4n } });
    expect(first.wire.written.at(-1)?.message.value).toMatchObject({ sequence: 5n });
    first.clock.advance(200);
    expect(first.source.lastAcknowledgedSequence()).toBe(4);
    const second = sessionOf({ events: 5, everTold: 5 });
    second.source.acknowledge(2);
    second.wire.say({ case: "welcome", value: { sessionId: "x" } });
    const events = second.wire.written.filter(({ message }) => message.case === "event");
    expect(events.map(({ message }) => (message.value as { sequence: bigint }).sequence)).toEqual([
      3n,
      4n,
      5n,
    ]);
  });

  test("keeps acknowledgements within 200 ms, many in one write", () => {
    const { wire, source, clock } = liveSession({ events: 50 });
    for (let sequence = 1n; sequence <= 50n; sequence += 1n) wire.say({ case: "ack", value: { sequence } });
    expect(source.acknowledgements).toEqual([]);
    clock.advance(200);
    expect(source.acknowledgements).toEqual([50]);
  });

  test("lives on and tries again when an acknowledgement cannot be kept", () => {
    const { wire, source, clock, session } = liveSession({ events: 5 });
    source.failToKeep(1);
    wire.say({ case: "ack", value: { sequence: 5n } });
    clock.advance(200);
    expect(session.phase().kind).toBe("live");
    clock.advance(5_000);
    expect(source.acknowledgements).toEqual([5]);
  });

  test("keeps the last acknowledgement when it ends", async () => {
    const { wire, source, session } = liveSession({ events: 5 });
    wire.say({ case: "ack", value: { sequence: 3n } });
    wire.cut();
    await session.ended;
    expect(source.acknowledgements).toEqual([3]);
  });
});
