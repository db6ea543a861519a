import { describe, expect, test } from "vitest";
import { liveSession, outcomeOf, sessionOf } from "./session-fixture.ts";

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
