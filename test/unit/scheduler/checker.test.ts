import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { EventType } from "../../../gen/sandboxd/v1/event_pb.ts";
import { SandboxState as State } from "../../../gen/sandboxd/v1/sandbox_pb.ts";
import { type ConnectRequest, ConnectRequestSchema } from "../../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { createContractChecker, type Rule } from "../../../src/dev-scheduler/checker.ts";
import { eventAt } from "./fixture.ts";

type Message = NonNullable<Parameters<typeof create<typeof ConnectRequestSchema>>[1]>["message"];

function request(message: Message): ConnectRequest {
  return create(ConnectRequestSchema, { message } as never);
}

const hello = (acknowledged = 0, epoch = "e") =>
  request({
    case: "hello",
    value: { host: { hostId: "h", stateEpoch: epoch }, lastAcknowledgedSequence: BigInt(acknowledged) },
  });
const snapshot = (count = 0) =>
  request({ case: "snapshot", value: { sandboxes: Array.from({ length: count }, () => ({})), last: true } });
const event = (sequence: number) => request({ case: "event", value: eventAt(sequence) });
/** An event of one sandbox that moves it, or says that it does. */
const move = (sequence: number, from: State, to: State, type = EventType.SANDBOX_STATE_CHANGED) => {
  const sandbox = { sandboxId: "s", status: { state: to, transition: { from, to } } };
  return request({ case: "event", value: { sequence: BigInt(sequence), type, sandboxId: "s", sandbox } });
};
const created = (sequence = 1) => move(sequence, State.UNSPECIFIED, State.PENDING, EventType.SANDBOX_CREATED);
const deleted = (sequence: number) =>
  move(sequence, State.DELETING, State.DELETED, EventType.SANDBOX_DELETED);
const gap = (first: number, last: number) =>
  request({ case: "eventGap", value: { firstSequence: BigInt(first), lastSequence: BigInt(last) } });
const heartbeat = (number: number) => request({ case: "heartbeat", value: { number: BigInt(number) } });

/** Rules broken by sessions of one host, each a list of messages. */
function brokenBy(...sessions: readonly (readonly ConnectRequest[])[]): readonly Rule[] {
  const checker = createContractChecker();
  for (const messages of sessions) {
    const session = checker.session();
    for (const message of messages) session.request(message);
  }
  return checker.violations().map(({ rule }) => rule);
}

describe("the contract's checker", () => {
  test("finds nothing in a host that keeps the contract over several sessions", () => {
    expect(
      brokenBy(
        [hello(), snapshot(100), heartbeat(1), event(1), event(2), event(3)],
        [hello(1), snapshot(), event(2), event(3), gap(4, 9), event(10), heartbeat(1), heartbeat(2)],
        [hello(0, "new"), snapshot(), event(1)],
      ),
    ).toEqual([]);
  });

  test.each<[string, Rule, readonly (readonly ConnectRequest[])[]]>([
    ["a hole", "EVENTS_RISE_BY_ONE", [[hello(), snapshot(), event(1), event(3)]]],
    ["events out of order", "EVENTS_RISE_BY_ONE", [[hello(), snapshot(), event(1), event(2), event(1)]]],
    ["the same event twice in a session", "EVENTS_RISE_BY_ONE", [[hello(), snapshot(), event(1), event(1)]]],
    ["a session that resumes too late", "EVENTS_RESUME_AFTER_ACK", [[hello(1), snapshot(), event(3)]]],
    ["a session that resumes too early", "EVENTS_RESUME_AFTER_ACK", [[hello(5), snapshot(), event(3)]]],
    [
      "a gap that does not begin at the next event",
      "GAP_BEGINS_AT_NEXT",
      [[hello(), snapshot(), event(1), gap(3, 4)]],
    ],
    ["a gap that ends before it begins", "GAP_BEGINS_AT_NEXT", [[hello(), snapshot(), event(1), gap(2, 1)]]],
    ["events before the snapshot", "SNAPSHOT_BEFORE_ALL_ELSE", [[hello(), event(1)]]],
    ["a part of more than 100 sandboxes", "SNAPSHOT_AT_MOST_100", [[hello(), snapshot(101)]]],
    [
      "heartbeats that skip a number",
      "HEARTBEATS_COUNT_FROM_1",
      [[hello(), snapshot(), heartbeat(2), heartbeat(2)]],
    ],
    [
      "a sandbox that was elsewhere before",
      "TRANSITIONS_FOLLOW_EACH_OTHER",
      [[hello(), snapshot(), created(), move(2, State.CREATING, State.RUNNING)]],
    ],
    [
      "a transition against the life of a sandbox",
      "TRANSITIONS_FOLLOW_EACH_OTHER",
      [[hello(), snapshot(), created(), move(2, State.PENDING, State.RUNNING)]],
    ],
    [
      "a transition told twice",
      "TRANSITIONS_FOLLOW_EACH_OTHER",
      [[hello(), snapshot(), created(), move(2, State.PENDING, State.PENDING)]],
    ],
    [
      "a sandbox that is created while it exists",
      "TRANSITIONS_FOLLOW_EACH_OTHER",
      [[hello(), snapshot(), created(), created(2)]],
    ],
    [
      "an event after the deletion",
      "TRANSITIONS_FOLLOW_EACH_OTHER",
      [
        [
          hello(),
          snapshot(),
          created(),
          move(2, State.PENDING, State.DELETING),
          deleted(3),
          move(4, State.DELETED, State.PENDING),
        ],
      ],
    ],
    [
      "an update that moves a sandbox",
      "TRANSITIONS_FOLLOW_EACH_OTHER",
      [[hello(), snapshot(), created(), move(2, State.PENDING, State.CREATING, EventType.SANDBOX_UPDATED)]],
    ],
    ["anything before Hello", "HELLO_FIRST_AND_ONCE", [[event(1)]]],
    ["a second Hello", "HELLO_FIRST_AND_ONCE", [[hello(), hello()]]],
    [
      "anything after Goodbye",
      "NOTHING_AFTER_GOODBYE",
      [[hello(), snapshot(), request({ case: "goodbye", value: {} }), heartbeat(1)]],
    ],
  ])("finds %s", (_name, rule, sessions) => {
    expect(brokenBy(...sessions)).toEqual([rule]);
  });

  test.each<[string, readonly State[]]>([
    ["paused and let go on", [State.PAUSING, State.PAUSED, State.RESUMING, State.RUNNING]],
    ["started again by its policy", [State.BACKING_OFF, State.CREATING, State.RUNNING]],
    ["stopped as unhealthy, and started again", [State.STOPPING, State.BACKING_OFF, State.CREATING]],
  ])("finds nothing in a sandbox that is %s", (_name, states) => {
    const life = [State.PENDING, State.CREATING, State.RUNNING, ...states];
    const moves = life.slice(1).map((to, index) => move(index + 2, life[index] ?? 0, to));
    expect(brokenBy([hello(), snapshot(), created(), ...moves])).toEqual([]);
  });

  test.each([
    EventType.SANDBOX_EXPIRING,
    EventType.SANDBOX_RENEWED,
    EventType.SANDBOX_HEALTH_CHANGED,
    EventType.SANDBOX_STUCK,
  ])("finds nothing in event %s of a sandbox that stays where it is, and a move in it", (type) => {
    const staying = move(2, State.UNSPECIFIED, State.PENDING, type);
    const next = move(3, State.PENDING, State.CREATING);
    expect(brokenBy([hello(), snapshot(), created(), staying, next])).toEqual([]);
    const moving = move(2, State.PENDING, State.CREATING, type);
    expect(brokenBy([hello(), snapshot(), created(), moving])).toEqual(["TRANSITIONS_FOLLOW_EACH_OTHER"]);
  });

  test("takes an id that is used again for another sandbox, and asks nothing of what it was not told", () => {
    const going = move(2, State.PENDING, State.DELETING);
    expect(brokenBy([hello(), snapshot(), created(), going, deleted(3), created(4)])).toEqual([]);
    expect(brokenBy([hello(7), snapshot(), move(8, State.RUNNING, State.PAUSED)])).toEqual([]);
    const after = [gap(2, 4), move(5, State.RUNNING, State.PAUSED)];
    expect(brokenBy([hello(), snapshot(), created(), ...after])).toEqual([]);
  });

  test("finds an event that is told differently the second time", () => {
    const changed = request({ case: "event", value: { ...eventAt(1), tenant: "other" } });
    expect(brokenBy([hello(), snapshot(), event(1)], [hello(), snapshot(), changed])).toEqual([
      "EVENTS_NEVER_CHANGE",
    ]);
  });

  test("knows what was told for the first time", () => {
    const checker = createContractChecker();
    const first = checker.session();
    const news = [hello(), snapshot(), event(1), event(2)].map((message) => first.request(message));
    expect(news).toEqual([false, false, true, true]);
    const second = checker.session();
    expect([hello(1), snapshot(), event(2), event(3)].map((message) => second.request(message))).toEqual([
      false,
      false,
      false,
      true,
    ]);
    expect(checker.record("h", "e")).toMatchObject({ highest: 3, unique: 3, repeats: 1, gaps: [] });
  });

  test("lets a host leave out what was acknowledged meanwhile", () => {
    const checker = createContractChecker();
    const session = checker.session();
    session.request(hello());
    session.welcomed(2);
    session.request(snapshot());
    session.request(event(3));
    session.acknowledged(10);
    session.request(event(11));
    expect(checker.violations()).toEqual([]);
    session.request(event(13));
    expect(checker.violations().map(({ rule }) => rule)).toEqual(["EVENTS_RISE_BY_ONE"]);
  });
});
