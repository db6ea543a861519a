import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Container } from "../../../src/engine/runtime.ts";
import { type Action, decide, type Observed } from "../../../src/sandbox/decide.ts";
import { exitOf } from "../../../src/sandbox/ending.ts";
import type { SandboxRecord, State } from "../../../src/sandbox/record.ts";
import { moved } from "../../../src/sandbox/transition.ts";
import { bootId, containerOf, recordOf, startedAt, states } from "./fixture.ts";

const now = { bootId, nowMs: 1_700_000_001_000 };

const absent: Observed = { kind: "absent" };

function seen(change: Partial<Container> = {}, more: Partial<Observed & { kind: "present" }> = {}): Observed {
  return {
    kind: "present",
    container: containerOf(change),
    oomKills: 0,
    touchedExternally: false,
    ...more,
  };
}

/** The step in short: a settlement is told by its state and reason. */
function short(action: Action): string {
  if (action.do === "settle") return `${action.settlement.state} ${action.settlement.reason}`;
  if (action.do === "stop" && action.settle !== undefined) return `stop ${action.settle.reason}`;
  return action.do;
}

const step = (record: Partial<SandboxRecord>, observed: Observed) =>
  short(decide(recordOf(record), observed, now));

const seenStates = ["absent", "created", "running", "paused", "exited"] as const;
type SeenState = (typeof seenStates)[number];

const observedAs = (state: SeenState): Observed =>
  state === "absent" ? absent : seen({ state, startedAt: state === "created" ? "" : startedAt });

/** Columns in the order of `seenStates`. */
type Row = readonly [string, string, string, string, string];

const starting: Row = ["create", "start", "verify", "PAUSED EXTERNAL", "STOPPED COMPLETED"];
const lost = "FAILED CONTAINER_LOST";
const paused = "PAUSED EXTERNAL";
const ended = "STOPPED COMPLETED";
const stopped = "STOPPED REQUESTED";
const beingStopped: Row = [stopped, stopped, "stop", "stop", stopped];
const atRest: Row = ["nothing", "nothing", "stop EXTERNAL", "stop EXTERNAL", "nothing"];
const unexpected: Row = [lost, lost, "verify", paused, ended];
const beingPaused: Row = [lost, lost, "pause", "PAUSED REQUESTED", ended];
const removal: Row = ["forget", "remove", "remove", "remove", "remove"];

const expectedSteps: Readonly<Record<SandboxRecord["wanted"], Readonly<Record<State, Row>>>> = {
  RUNNING: {
    PENDING: starting,
    PULLING: starting,
    CREATING: starting,
    RUNNING: [lost, lost, "nothing", paused, ended],
    BACKING_OFF: [lost, "start", "verify", paused, ended],
    PAUSING: unexpected,
    PAUSED: [lost, lost, "verify", "nothing", ended],
    RESUMING: [lost, lost, "verify", "resume", ended],
    STOPPING: [lost, lost, "stop", paused, "FAILED PROGRESS"],
    STOPPED: unexpected,
    FAILED: unexpected,
    DELETING: unexpected,
    DELETED: unexpected,
  },
  PAUSED: {
    PENDING: beingPaused,
    PULLING: beingPaused,
    CREATING: beingPaused,
    RUNNING: beingPaused,
    BACKING_OFF: beingPaused,
    PAUSING: beingPaused,
    PAUSED: [lost, lost, "verify", "nothing", ended],
    RESUMING: beingPaused,
    STOPPING: [lost, lost, "pause", "PAUSED REQUESTED", "FAILED PROGRESS"],
    STOPPED: beingPaused,
    FAILED: beingPaused,
    DELETING: beingPaused,
    DELETED: beingPaused,
  },
  STOPPED: {
    PENDING: beingStopped,
    PULLING: beingStopped,
    CREATING: beingStopped,
    RUNNING: beingStopped,
    BACKING_OFF: beingStopped,
    PAUSING: beingStopped,
    PAUSED: beingStopped,
    RESUMING: beingStopped,
    STOPPING: beingStopped,
    STOPPED: atRest,
    FAILED: atRest,
    DELETING: beingStopped,
    DELETED: beingStopped,
  },
  DELETED: {
    PENDING: removal,
    PULLING: removal,
    CREATING: removal,
    RUNNING: removal,
    BACKING_OFF: removal,
    PAUSING: removal,
    PAUSED: removal,
    RESUMING: removal,
    STOPPING: removal,
    STOPPED: removal,
    FAILED: removal,
    DELETING: removal,
    DELETED: removal,
  },
};

const wantedStates = ["RUNNING", "PAUSED", "STOPPED", "DELETED"] as const;

describe.each(wantedStates)("wanted %s", (wanted) => {
  const cells = states.flatMap((state) =>
    seenStates.map((saw, column) => [state, saw, expectedSteps[wanted][state][column]] as const),
  );
  test.each(cells)("%s, seen %s: %s", (state, saw, expected) => {
    expect(step({ wanted, state }, observedAs(saw))).toBe(expected);
  });
});

describe("how a run ended", () => {
  const running = recordOf();

  test.each([
    ["COMPLETED", {}, {}],
    ["EXITED", { exitCode: 3 }, {}],
    ["EXITED", { exitCode: 128 }, {}],
    ["EXITED", { exitCode: 255 }, {}],
    ["SIGNALED", { exitCode: 137 }, {}],
    ["SIGNALED", { exitCode: 139 }, {}],
    ["OOM_KILLED", { exitCode: 137, oomKilled: true }, {}],
    ["OOM_KILLED", { exitCode: 137 }, { oomKills: 1 }],
    // the kernel killed a child; the main command went on and ended by itself
    ["EXITED", { exitCode: 1, oomKilled: true }, {}],
    ["COMPLETED", { exitCode: 0 }, { oomKills: 2 }],
    ["EXTERNAL", { exitCode: 137 }, { touchedExternally: true }],
    ["EXTERNAL", { exitCode: 0 }, { touchedExternally: true }],
  ] as const)("is told as %s for %o, %o", (reason, container, more) => {
    const action = decide(running, seen({ state: "exited", ...container }, more), now);
    expect(action).toMatchObject({ do: "settle", settlement: { reason, wanted: "STOPPED" } });
  });

  test("in an earlier boot is told as a reboot, whatever its exit code", () => {
    for (const exitCode of [0, 1, 137]) {
      const record = recordOf({ bootId: "earlier-boot" });
      const action = decide(
        record,
        seen({ state: "exited", exitCode }, { touchedExternally: true, oomKills: 1 }),
        now,
      );
      expect(action).toMatchObject({
        settlement: { state: "STOPPED", reason: "HOST_REBOOT", endedRun: startedAt },
      });
    }
  });

  test("before it was ever seen running is not told as a reboot", () => {
    expect(step({ bootId: "" }, seen({ state: "exited", exitCode: 1 }))).toBe("FAILED EXITED");
  });

  test("at once, of a sandbox that last ran in an earlier boot, is not told as a reboot", () => {
    const record = { state: "CREATING", bootId: "earlier-boot", endedRun: "2025-12-31T10:00:00Z" } as const;
    expect(step(record, seen({ state: "exited", exitCode: 1 }))).toBe("FAILED EXITED");
  });

  test("is not taken for the end of the run before it", () => {
    const again = { state: "PENDING", endedRun: startedAt } as const;
    expect(step(again, seen({ state: "exited" }))).toBe("start");
    expect(step(again, seen({ state: "exited", startedAt: "2026-01-01T11:00:00Z" }))).toBe(
      "STOPPED COMPLETED",
    );
  });

  test("is told with its code, signal and time", () => {
    const container = containerOf({ exitCode: 143, finishedAt: "2026-01-01T10:00:01.5Z" });
    expect(exitOf(container, 0)).toEqual({
      code: 143,
      signal: 15,
      oomKilled: false,
      oomKills: 0,
      finishedAtMs: Date.UTC(2026, 0, 1, 10, 0, 1, 500),
    });
  });

  test("counts one kill for memory where only the engine saw it", () => {
    expect(exitOf(containerOf({ exitCode: 137, oomKilled: true }), 0)).toMatchObject({
      oomKilled: true,
      oomKills: 1,
    });
    expect(exitOf(containerOf({ exitCode: 137, oomKilled: true }), 3)).toMatchObject({ oomKills: 3 });
  });
});

test("a sandbox that is seen running in another boot is verified anew", () => {
  expect(step({ bootId: "earlier-boot" }, seen())).toBe("verify");
});

test("a sandbox that was stopped is told as the caller's doing, with how its run ended", () => {
  const actor = { kind: "CALLER", identity: "alice" } as const;
  const record = recordOf({ wanted: "STOPPED", state: "STOPPING" });
  const action = decide(
    { ...record, transition: { ...record.transition, actor } },
    seen({ state: "exited", exitCode: 143 }),
    now,
  );
  expect(action).toMatchObject({
    settlement: { actor, endedRun: startedAt, exit: { code: 143, signal: 15 } },
  });
});

test("a sandbox that was stopped before it ever started has no exit", () => {
  const action = decide(
    recordOf({ wanted: "STOPPED", state: "STOPPING" }),
    seen({ state: "created", startedAt: "" }),
    now,
  );
  expect(action).toMatchObject({ settlement: { state: "STOPPED" } });
  expect(action).not.toHaveProperty("settlement.exit");
});

const anyRecord = fc
  .record({
    wanted: fc.constantFrom(...wantedStates),
    state: fc.constantFrom(...states),
    bootId: fc.constantFrom("", bootId, "earlier-boot"),
    endedRun: fc.constantFrom("", startedAt, "2025-12-31T10:00:00Z"),
  })
  .map(recordOf);

const anyObserved: fc.Arbitrary<Observed> = fc.oneof(
  fc.constant(absent),
  fc
    .record({
      state: fc.constantFrom<Container["state"]>("created", "running", "paused", "exited"),
      exitCode: fc.integer({ min: 0, max: 255 }),
      oomKilled: fc.boolean(),
      startedAt: fc.constantFrom("", startedAt),
    })
    .chain((container) =>
      fc
        .record({ oomKills: fc.nat(3), touchedExternally: fc.boolean() })
        .map((more) => seen(container, more)),
    ),
);

test("nothing is ever created or started that is not wanted to run", () => {
  fc.assert(
    fc.property(anyRecord, anyObserved, (record, observed) => {
      const action = decide(record, observed, now);
      fc.pre(record.wanted !== "RUNNING");
      // what was paused, and was let go on behind the daemon, is taken as it is
      const mayRun = record.wanted === "PAUSED" && record.state === "PAUSED";
      expect(["create", "start", ...(mayRun ? [] : ["verify"])]).not.toContain(action.do);
    }),
  );
});

test("nothing is ever removed or forgotten that is not wanted deleted", () => {
  fc.assert(
    fc.property(anyRecord, anyObserved, (record, observed) => {
      const action = decide(record, observed, now);
      expect(["remove", "forget"].includes(action.do)).toBe(record.wanted === "DELETED");
    }),
  );
});

test("only what is gone is forgotten", () => {
  fc.assert(
    fc.property(anyRecord, anyObserved, (record, observed) => {
      const action = decide(record, observed, now);
      expect(action.do === "forget").toBe(record.wanted === "DELETED" && observed.kind === "absent");
    }),
  );
});

test("a step on a container is on the one that was seen", () => {
  fc.assert(
    fc.property(anyRecord, anyObserved, (record, observed) => {
      const action = decide(record, observed, now);
      fc.pre("containerId" in action);
      expect(observed).toMatchObject({ container: { id: action.containerId } });
    }),
  );
});

test("what was told is told once: after it was recorded, the same view asks for no other telling", () => {
  fc.assert(
    fc.property(anyRecord, anyObserved, (record, observed) => {
      const action = decide(record, observed, now);
      fc.pre(action.do === "settle");
      expect(decide(moved(record, action.settlement), observed, now)).toEqual({ do: "nothing" });
    }),
  );
});
