import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { PaceSchema } from "../../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { createEndpoints } from "../../../src/scheduler/endpoints.ts";
import { noUplinkMetrics } from "../../../src/scheduler/metrics.ts";
import { openSession, type Session } from "../../../src/scheduler/session.ts";
import {
  createFakeClock,
  createFakeSource,
  createFakeWire,
  type FakeSourceOptions,
  silentLog,
} from "./fixture.ts";

const endpoint = createEndpoints(["http://127.0.0.1:1"]).next();

function sessionOf({ window = 1_000, everTold = 0, events = 0, ...options }: Options = {}) {
  const source = createFakeSource(options);
  const clock = createFakeClock();
  const wire = createFakeWire();
  source.append(events);
  const session = openSession({
    endpoint,
    dial: wire.dial,
    source,
    clock,
    window,
    log: silentLog,
    metrics: noUplinkMetrics,
    everTold: { sequence: everTold },
    periods: { heartbeatMs: 5_000, statsMs: 10_000 },
    welcomeTimeoutMs: 10_000,
    leaveTimeoutMs: 1_000,
    stallTimeoutMs: 60_000,
  });
  return { source, clock, wire, session };
}

interface Options extends FakeSourceOptions {
  readonly window?: number;
  readonly everTold?: number;
  readonly events?: number;
}

/** A session that was welcomed; what it said so far is not shown by `kinds`. */
function liveSession(options: Options = {}) {
  const all = sessionOf(options);
  all.wire.say({ case: "welcome", value: { sessionId: "x" } });
  all.wire.kinds();
  return all;
}

async function outcomeOf(session: Session) {
  expect(session.phase().kind).toBe("ended");
  return (await session.ended).outcome;
}

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

describe("a session ends", () => {
  test("when Welcome does not come within 10 s", async () => {
    const { session, clock } = sessionOf();
    clock.advance(10_000);
    expect(await outcomeOf(session)).toEqual({ kind: "lost", message: "no Welcome within 10 s" });
  });

  test("when the call does", async () => {
    const { session, wire } = liveSession();
    wire.cut();
    expect(await outcomeOf(session)).toEqual({ kind: "lost", message: "UNAVAILABLE: Connection dropped" });
  });

  test("when the scheduler reads nothing for a minute though it answers pings", async () => {
    const { session, wire, clock, source } = liveSession();
    wire.take(0);
    source.append(1);
    clock.advance(59_000);
    expect(session.phase().kind).toBe("live");
    clock.advance(6_000);
    expect(await outcomeOf(session)).toMatchObject({
      kind: "lost",
      message: expect.stringContaining("read nothing"),
    });
  });

  test("when the scheduler's term is older than the newest seen; one without terms is taken", async () => {
    const older = sessionOf({ term: 7 });
    older.wire.say({ case: "welcome", value: { sessionId: "x", term: 6n } });
    expect(await outcomeOf(older.session)).toEqual({ kind: "fenced", message: "term 6 is older than 7" });
    const newer = sessionOf({ term: 7 });
    newer.wire.say({ case: "welcome", value: { sessionId: "x", term: 8n } });
    expect(newer.source.term()).toBe(8);
    const without = sessionOf({ term: 7 });
    without.wire.say({ case: "welcome", value: { sessionId: "x" } });
    expect(without.session.phase().kind).toBe("live");
    expect(without.source.term()).toBe(7);
  });

  test("when the scheduler names another endpoint, before or after Welcome", async () => {
    for (const { session, wire } of [sessionOf(), liveSession()]) {
      wire.say({ case: "redirect", value: { endpoint: "http://leader:1" } });
      expect(await outcomeOf(session)).toEqual({ kind: "redirected", endpoint: "http://leader:1" });
    }
  });

  test("when the host's state cannot be read, without harm to the daemon", async () => {
    const { session, source, wire } = liveSession();
    source.snapshot = () => {
      throw new Error("disk gone");
    };
    wire.say({ case: "resync", value: {} });
    expect(await outcomeOf(session)).toEqual({ kind: "failed", message: "disk gone" });
  });

  test.each([
    ["an Ack before Welcome", () => sessionOf(), { case: "ack", value: { sequence: 0n } }],
    ["a second Welcome", () => liveSession(), { case: "welcome", value: { sessionId: "y" } }],
    ["an Ack from the future", () => liveSession({ events: 3 }), { case: "ack", value: { sequence: 4n } }],
    [
      "an Ack beyond all numbers",
      () => liveSession({ events: 3 }),
      { case: "ack", value: { sequence: 2n ** 63n - 1n } },
    ],
    ["an Ack below zero", () => liveSession({ events: 3 }), { case: "ack", value: { sequence: -1n } }],
    [
      "a Welcome that acknowledges what was never told",
      () => sessionOf({ events: 3, everTold: 2 }),
      { case: "welcome", value: { sessionId: "x", acknowledgedSequence: 3n } },
    ],
    [
      "a Welcome with a term below zero",
      () => sessionOf(),
      { case: "welcome", value: { sessionId: "x", term: -1n } },
    ],
  ] as const)("on %s", async (_name, open, message) => {
    const { session, wire } = open();
    wire.say(message);
    expect((await outcomeOf(session)).kind).toBe("violation");
  });

  test("on a message that cannot be decoded, but not on one of a later version", async () => {
    const { session, wire } = liveSession();
    wire.say({ case: undefined });
    expect(session.phase().kind).toBe("live");
    wire.babble();
    expect(await outcomeOf(session)).toMatchObject({ kind: "violation" });
  });

  test("with Goodbye when it is told to leave, and waits a second for the scheduler at most", async () => {
    const { session, wire, clock } = liveSession();
    session.leave("bye");
    expect(wire.written.at(-1)?.message).toMatchObject({ case: "goodbye", value: { message: "bye" } });
    expect(session.phase().kind).toBe("leaving");
    clock.advance(1_000);
    expect(await outcomeOf(session)).toEqual({ kind: "left" });
  });

  test("without Goodbye when the scheduler does not read, within the same second", async () => {
    const { session, wire, clock, source } = liveSession();
    wire.take(0);
    source.append(1);
    session.leave("bye");
    clock.advance(1_000);
    expect(await outcomeOf(session)).toEqual({ kind: "left" });
    expect(wire.kinds()).toEqual(["event"]);
  });

  test("and leaves no timer, no listener and no call behind", () => {
    const ways: readonly ((all: ReturnType<typeof sessionOf>) => void)[] = [
      ({ wire }) => wire.cut(),
      ({ wire }) => wire.babble(),
      ({ session, clock }) => {
        session.leave("bye");
        clock.advance(1_000);
      },
      ({ wire }) => wire.say({ case: "redirect", value: { endpoint: "http://leader:1" } }),
    ];
    for (const way of ways) {
      for (const all of [sessionOf({ events: 3 }), liveSession({ events: 3 })]) {
        way(all);
        expect(all.session.phase().kind).toBe("ended");
        expect([all.clock.pending(), all.source.listeners(), all.wire.closed()]).toEqual([0, 0, 1]);
        const written = all.wire.written.length;
        all.source.append(1);
        all.wire.say({ case: "resync", value: {} });
        expect(all.wire.written.length).toBe(written);
      }
    }
  });
});
