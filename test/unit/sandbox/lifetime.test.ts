import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Action, decide, type Observed } from "../../../src/sandbox/decide.ts";
import { dueAt, endOfLife, expiryOf, isExpired, warningAt } from "../../../src/sandbox/lifetime.ts";
import type { Lifetime, SandboxRecord } from "../../../src/sandbox/record.ts";
import { bootId, containerOf, recordOf, startedAt, states } from "./fixture.ts";

const acceptedAtMs = 1_000_000;
const { spec } = recordOf();

/** A running sandbox, accepted at 1,000,000 ms. */
function living(lifetime: Partial<Lifetime>, change: Partial<SandboxRecord> = {}): SandboxRecord {
  const { ttlMs } = lifetime;
  return recordOf({
    spec: { ...spec, lifetime: { ...spec.lifetime, ...lifetime } },
    acceptedAtMs,
    ...(ttlMs === undefined ? {} : { expiresAtMs: acceptedAtMs + ttlMs }),
    ...change,
  });
}

const at = (ms: number) => acceptedAtMs + ms;

function seen(record: SandboxRecord, idleSinceMs?: number): Observed {
  const state = record.state === "PAUSED" ? "paused" : "running";
  return {
    kind: "present",
    container: containerOf({ state, startedAt }),
    oomKills: 0,
    touchedExternally: false,
    ...(idleSinceMs === undefined ? {} : { idleSinceMs }),
  };
}

function decideAt(record: SandboxRecord, nowMs: number, idleSinceMs?: number): Action {
  return decide(record, seen(record, idleSinceMs), { bootId, nowMs });
}

/** The step in short. */
function short(action: Action): string {
  if (action.do !== "settle") return action.do;
  const { state, wanted, reason } = action.settlement;
  return `${state} ${wanted} ${reason}`;
}

describe("a lease", () => {
  const record = living({ ttlMs: 10_000, warningMs: 0 });

  test("lets it live until its end, and no longer", () => {
    expect(short(decideAt(record, at(9_999)))).toBe("nothing");
    expect(short(decideAt(record, at(10_000)))).toBe("DELETING DELETED EXPIRED");
  });

  test("that was renewed counts from the renewal, whatever its ttl", () => {
    const renewed = { ...record, expiresAtMs: at(60_000) };
    expect(short(decideAt(renewed, at(59_999)))).toBe("nothing");
    expect(short(decideAt(renewed, at(60_000)))).toBe("DELETING DELETED EXPIRED");
  });

  test("never outlasts max_lifetime, which is told as the reason", () => {
    const bounded = living({ ttlMs: 10_000, maxLifetimeMs: 30_000 }, { expiresAtMs: at(90_000) });
    expect(expiryOf(bounded)).toBe(at(30_000));
    expect(short(decideAt(bounded, at(30_000)))).toBe("DELETING DELETED MAX_LIFETIME");
  });

  test("of a sandbox without one never ends", () => {
    expect(expiryOf(living({}))).toBe(Number.POSITIVE_INFINITY);
    expect(isExpired(living({}), Number.MAX_SAFE_INTEGER)).toBe(false);
  });

  test("of a record of an earlier release counts from its creation", () => {
    const { acceptedAtMs: _, ...earlier } = living({ maxLifetimeMs: 5_000 });
    expect(expiryOf(earlier)).toBe(earlier.createdAtMs + 5_000);
  });
});

describe("at its expiry a sandbox", () => {
  test.each([
    ["DELETE", "RUNNING", "RUNNING", "DELETING DELETED EXPIRED"],
    ["DELETE", "STOPPED", "STOPPED", "DELETING DELETED EXPIRED"],
    ["DELETE", "PAUSED", "PAUSED", "DELETING DELETED EXPIRED"],
    ["STOP", "RUNNING", "RUNNING", "STOPPING STOPPED EXPIRED"],
    ["STOP", "PAUSED", "PAUSED", "STOPPING STOPPED EXPIRED"],
    ["PAUSE", "RUNNING", "RUNNING", "PAUSING PAUSED EXPIRED"],
    // nothing runs that could be frozen
    ["PAUSE", "BACKING_OFF", "RUNNING", "STOPPING STOPPED EXPIRED"],
    ["PAUSE", "PAUSED", "PAUSED", "nothing"],
  ] as const)("with %s, in %s, wanted %s: %s", (onExpiry, state, wanted, expected) => {
    const record = living({ ttlMs: 1_000, warningMs: 0, onExpiry }, { state, wanted });
    expect(short(decideAt(record, at(1_000)))).toBe(expected);
  });

  test("that is stopped already is not stopped again", () => {
    const record = living({ ttlMs: 1_000, onExpiry: "STOP" }, { state: "STOPPED", wanted: "STOPPED" });
    expect(dueAt(record)).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("idleness", () => {
  const record = living({ idleTimeoutMs: 5_000 });

  test("ends a sandbox that did nothing for idle_timeout", () => {
    expect(short(decideAt(record, at(9_999), at(5_000)))).toBe("nothing");
    expect(short(decideAt(record, at(10_000), at(5_000)))).toBe("DELETING DELETED IDLE");
  });

  test("that is not known ends nothing", () => {
    expect(short(decideAt(record, at(1_000_000)))).toBe("nothing");
  });

  test.each(["PAUSED", "STOPPED", "BACKING_OFF", "CREATING"] as const)("does not count in %s", (state) => {
    expect(endOfLife({ ...record, state }, at(0), at(1_000_000))).toBeUndefined();
  });
});

describe("the warning of an expiry", () => {
  const record = living({ ttlMs: 100_000, warningMs: 10_000 });

  test("is due so long before it", () => {
    expect(short(decideAt(record, at(89_999)))).toBe("nothing");
    expect(short(decideAt(record, at(90_000)))).toBe("warn");
  });

  test("is told once for each expiry", () => {
    const warned = { ...record, warnedOfMs: expiryOf(record) };
    expect(short(decideAt(warned, at(95_000)))).toBe("nothing");
    expect(short(decideAt({ ...warned, expiresAtMs: at(104_000) }, at(95_000)))).toBe("warn");
  });

  test("is due at half of a short ttl at the soonest", () => {
    expect(warningAt(living({ ttlMs: 4_000, warningMs: 60_000 }))).toBe(at(2_000));
  });

  test("of 0 s is never told", () => {
    expect(warningAt(living({ ttlMs: 4_000, warningMs: 0 }))).toBe(Number.POSITIVE_INFINITY);
  });

  test("is not told any more once it expired", () => {
    expect(short(decideAt(record, at(100_000)))).toBe("DELETING DELETED EXPIRED");
  });
});

const anyLiving = fc
  .record({
    ttlMs: fc.option(fc.integer({ min: 1_000, max: 100_000 }), { nil: undefined }),
    maxLifetimeMs: fc.option(fc.integer({ min: 1_000, max: 100_000 }), { nil: undefined }),
    warningMs: fc.constantFrom(0, 1_000, 60_000),
    onExpiry: fc.constantFrom("DELETE", "STOP", "PAUSE"),
    state: fc.constantFrom(...states),
    wanted: fc.constantFrom("RUNNING", "PAUSED", "STOPPED", "DELETED"),
    isWarned: fc.boolean(),
    nextAtMs: fc.integer({ min: at(0), max: at(100_000) }),
  })
  .map(({ ttlMs, maxLifetimeMs, warningMs, onExpiry, state, wanted, isWarned, nextAtMs }) => {
    const times = {
      ...(ttlMs === undefined ? {} : { ttlMs }),
      ...(maxLifetimeMs === undefined ? {} : { maxLifetimeMs }),
    };
    const record = living({ ...times, warningMs, onExpiry }, { state, wanted });
    return {
      ...record,
      ...(isWarned ? { warnedOfMs: expiryOf(record) } : {}),
      ...(state === "BACKING_OFF" ? { restarts: { count: 1, recentMs: [at(0)], nextAtMs } } : {}),
    };
  });

const anyTime = fc.integer({ min: at(0), max: at(200_000) });

test("what is due is acted upon: a look at it is never in vain", () => {
  fc.assert(
    fc.property(anyLiving, anyTime, (record, nowMs) => {
      fc.pre(dueAt(record) <= nowMs);
      const observed: Observed =
        record.state === "BACKING_OFF"
          ? {
              kind: "present",
              container: containerOf({ state: "exited" }),
              oomKills: 0,
              touchedExternally: false,
            }
          : seen(record);
      const ended = { ...record, ...(record.state === "BACKING_OFF" ? { endedRun: startedAt } : {}) };
      expect(decide(ended, observed, { bootId, nowMs }).do).not.toBe("nothing");
    }),
  );
});

test("before it is due, time alone changes nothing", () => {
  fc.assert(
    fc.property(anyLiving, anyTime, (record, nowMs) => {
      fc.pre(nowMs < dueAt(record));
      const now = { bootId, nowMs };
      expect(decide(record, seen(record), now)).toEqual(
        decide(record, seen(record), { bootId, nowMs: at(0) }),
      );
    }),
  );
});
