import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { EventSchema, EventType } from "../../../gen/sandboxd/v1/event_pb.ts";
import { SandboxState, TransitionReason } from "../../../gen/sandboxd/v1/sandbox_pb.ts";
import { ConnectRequestSchema, HelloSchema } from "../../../gen/sandboxd/v1/scheduler_service_pb.ts";
import type { Change } from "../../../src/dev-scheduler/change.ts";
import { createHostEntry } from "../../../src/dev-scheduler/host-view.ts";
import { jsonOf, lineOf, tableOf } from "../../../src/dev-scheduler/report.ts";
import { eventAt, sandboxNamed } from "./fixture.ts";

function changeTo(message: string): Change {
  const event = create(EventSchema, {
    sequence: 7n,
    type: EventType.SANDBOX_STATE_CHANGED,
    sandboxId: "s-1",
    tenant: "t",
    sandbox: {
      status: {
        transition: {
          from: SandboxState.RUNNING,
          to: SandboxState.FAILED,
          reason: TransitionReason.OOM_KILLED,
          message,
        },
      },
    },
  });
  return { kind: "event", hostId: "h", event };
}

function hostWith(sandboxes: number) {
  const entry = createHostEntry("host-1", 10);
  entry.begin(create(HelloSchema, { host: { hostId: "host-1", stateEpoch: "e" } }));
  const told = (message: object) => entry.apply(create(ConnectRequestSchema, { message } as never), true);
  const all = Array.from({ length: sandboxes }, (_, index) => sandboxNamed(`s-${index}`));
  told({ case: "snapshot", value: { sandboxes: all, last: true } });
  told({ case: "event", value: eventAt(1) });
  return entry.view;
}

describe("what the dev scheduler prints", () => {
  test("is one line per change in words", () => {
    expect(lineOf(changeTo("too much"))).toBe(
      "h #7 SANDBOX_STATE_CHANGED s-1 of t: RUNNING → FAILED (OOM_KILLED) too much",
    );
  });

  test("is one JSON object per change for programs", () => {
    expect(JSON.parse(jsonOf(changeTo("too much")))).toMatchObject({
      kind: "event",
      hostId: "h",
      event: { sequence: "7", type: "EVENT_TYPE_SANDBOX_STATE_CHANGED", sandboxId: "s-1" },
    });
    expect(jsonOf(changeTo("a\nb"))).not.toContain("\n");
  });

  test("never lets a host write to the terminal or begin a line of its own", () => {
    const line = lineOf(changeTo("\x1b[2J\nh2 connected\x9b31m"));
    expect(line).toContain("·[2J·h2 connected·31m");
  });

  test("names violations loudly", () => {
    const violation = {
      hostId: "h",
      epoch: "e",
      rule: "EVENTS_RISE_BY_ONE",
      message: "event 3, expected 2",
    } as const;
    expect(lineOf({ kind: "violation", violation })).toBe(
      "VIOLATION of the contract by h: EVENTS_RISE_BY_ONE: event 3, expected 2",
    );
  });

  test("is a table of hosts and sandboxes that fits on the screen", () => {
    const lines = tableOf({
      url: "http://x:1",
      hosts: [hostWith(50)],
      violations: [],
      nowMs: 0,
      rows: 12,
      columns: 90,
    });
    expect(lines.length).toBe(12);
    expect(lines.every((line) => line.length <= 90)).toBe(true);
    expect(lines.find((line) => line.startsWith("host-1"))).toContain("connected");
    expect(lines.find((line) => line.startsWith("s-0"))).toContain("RUNNING");
    expect(lines.at(-1)).toMatch(/^… \d+ more$/);
  });
});
