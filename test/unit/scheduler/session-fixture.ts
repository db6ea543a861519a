// One session on a wire and a clock that are moved by hand.

import { expect } from "vitest";
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

export function sessionOf({ window = 1_000, everTold = 0, events = 0, ...options }: Options = {}) {
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
export function liveSession(options: Options = {}) {
  const all = sessionOf(options);
  all.wire.say({ case: "welcome", value: { sessionId: "x" } });
  all.wire.kinds();
  return all;
}

export async function outcomeOf(session: Session) {
  expect(session.phase().kind).toBe("ended");
  return (await session.ended).outcome;
}
