// The daemon's side of the stream to the scheduler: one session after another for as long as the daemon lives.

import type { Logger } from "pino";
import { type Backoff, createBackoff } from "./backoff.ts";
import { createGrpcDial, type Dial, type UplinkCredentials } from "./channel.ts";
import { systemUplinkClock, type UplinkClock } from "./clock.ts";
import { createEndpoints, type Endpoint } from "./endpoints.ts";
import { noUplinkMetrics, type UplinkMetrics } from "./metrics.ts";
import type { EverTold } from "./outbox.ts";
import type { Outcome } from "./outcome.ts";
import { defaultPeriods, type Periods } from "./pace.ts";
import { openSession, type Session, type SessionEnd } from "./session.ts";
import type { UplinkSource } from "./source.ts";

/** Bounds of the uplink. Unit: milliseconds where the name says so. */
export interface UplinkLimits {
  /** From the first attempt to connect until Welcome. The contract's bound. */
  readonly welcomeTimeoutMs: number;
  /** What Goodbye may take. */
  readonly leaveTimeoutMs: number;
  /** How long one message may wait for a scheduler that answers pings but reads nothing. */
  readonly stallTimeoutMs: number;
  readonly keepaliveMs: number;
  readonly keepaliveTimeoutMs: number;
  readonly backoffBaseMs: number;
  readonly backoffCapMs: number;
  /** A session that lived this long makes the next back-off begin anew. */
  readonly healthyAfterMs: number;
  /** Events that may be told before one of them is acknowledged. */
  readonly window: number;
}

const defaultUplinkLimits: UplinkLimits = {
  welcomeTimeoutMs: 10_000,
  leaveTimeoutMs: 1_000,
  stallTimeoutMs: 60_000,
  keepaliveMs: 10_000,
  keepaliveTimeoutMs: 5_000,
  backoffBaseMs: 500,
  backoffCapMs: 30_000,
  healthyAfterMs: 60_000,
  window: 1_000,
};

export interface UplinkOptions {
  readonly source: UplinkSource;
  /** Tried in turn: "https://host:port", or "http://host:port" without TLS. At least one. */
  readonly endpoints: readonly string[];
  /** Asked for at each session. Needed for https:// endpoints; may throw, which costs that attempt. */
  readonly credentials?: () => UplinkCredentials;
  readonly log: Logger;
  readonly metrics?: UplinkMetrics;
  /** The host's own pace, for a scheduler that asks for none. */
  readonly periods?: Periods;
  readonly limits?: Partial<UplinkLimits>;
  readonly clock?: UplinkClock;
  /** From 0 inclusive to 1 exclusive. */
  readonly random?: () => number;
  /** How to reach an endpoint. Default: grpc-js. */
  readonly dial?: Dial;
}

/** What the uplink does now, for people and for health. */
export type UplinkStatus = { readonly lastFailure: string | undefined } & (
  | { readonly state: "idle" | "closed" }
  | { readonly state: "connecting" | "leaving"; readonly endpoint: string }
  | { readonly state: "waiting"; readonly attempts: number }
  | {
      readonly state: "live";
      readonly endpoint: string;
      readonly sessionId: string;
      readonly term: number;
      readonly liveMs: number;
      readonly toldSequence: number;
      readonly acknowledgedSequence: number;
      readonly droppedStats: number;
    }
);

export interface Uplink {
  /** Begins to connect; returns at once. */
  start(): void;
  /** Says goodbye and stops, within `leaveTimeoutMs`. Never rejects. The same promise for every call. */
  close(): Promise<void>;
  status(): UplinkStatus;
}

// A scheduler's answer "not me" costs no wait, unless schedulers send the host round in a circle.
const redirectsInARow = 3;

/** Throws INVALID_FIELD for endpoints that are not URLs of hosts. Nothing happens before `start`. */
export function createUplink(options: UplinkOptions): Uplink {
  const { source, log } = options;
  const limits = { ...defaultUplinkLimits, ...options.limits };
  const clock = options.clock ?? systemUplinkClock;
  const metrics = options.metrics ?? noUplinkMetrics;
  const endpoints = createEndpoints(options.endpoints);
  const backoff: Backoff = createBackoff({
    baseMs: limits.backoffBaseMs,
    capMs: limits.backoffCapMs,
    random: options.random ?? Math.random,
  });
  const dial = options.dial ?? createGrpcDial({ ...limits, credentials: options.credentials });
  // what exists already may have been told before the daemon was restarted
  const everTold: EverTold = { sequence: source.events.newest() };
  const stop = new AbortController();
  let current: { readonly endpoint: Endpoint; readonly session: Session } | undefined;
  let running: Promise<void> | undefined;
  let lastFailure: string | undefined;
  let redirects = 0;

  async function run(): Promise<void> {
    while (!stop.signal.aborted) {
      const endpoint = endpoints.next();
      const session = openSession({
        ...limits,
        endpoint,
        dial,
        everTold,
        source,
        clock,
        log,
        metrics,
        periods: options.periods ?? defaultPeriods,
      });
      current = { endpoint, session };
      const end = await session.ended;
      current = undefined;
      metrics.sessionEnded(end.outcome.kind);
      if (stop.signal.aborted) break;
      await wait(delayAfter(endpoint, end), clock, stop.signal);
    }
  }

  function delayAfter(endpoint: Endpoint, { outcome, liveMs }: SessionEnd): number {
    if (liveMs >= limits.healthyAfterMs) {
      backoff.reset();
      redirects = 0;
    }
    const failure = failureOf(endpoint, outcome);
    const immediate = failure === undefined && ++redirects <= redirectsInARow;
    const delayMs = immediate ? 0 : backoff.nextMs();
    report(endpoint, outcome, failure, delayMs);
    return delayMs;
  }

  function failureOf(endpoint: Endpoint, outcome: Outcome): string | undefined {
    if (outcome.kind === "left") return "left";
    if (outcome.kind !== "redirected") return outcome.message;
    const problem = endpoints.redirect(endpoint, outcome.endpoint);
    return problem === undefined
      ? undefined
      : `the redirect to ${JSON.stringify(outcome.endpoint)} ${problem}`;
  }

  function report(endpoint: Endpoint, outcome: Outcome, failure: string | undefined, delayMs: number): void {
    const facts = { endpoint: endpoint.url, outcome: outcome.kind, delayMs: Math.round(delayMs) };
    if (failure === undefined) {
      log.info(facts, "scheduler names another endpoint");
      return;
    }
    const message = `${endpoint.url}: ${failure}`;
    // a scheduler that is away for a night says the same thing thousands of times
    log[message === lastFailure ? "debug" : "warn"](facts, `scheduler lost: ${failure}`);
    lastFailure = message;
  }

  return {
    start() {
      if (!stop.signal.aborted) running ??= run();
    },
    async close() {
      stop.abort();
      current?.session.leave("The daemon stops; its sandboxes keep running.");
      await running;
    },
    status() {
      if (running === undefined) return { state: stop.signal.aborted ? "closed" : "idle", lastFailure };
      if (current === undefined) {
        return stop.signal.aborted
          ? { state: "closed", lastFailure }
          : { state: "waiting", attempts: backoff.attempts(), lastFailure };
      }
      const endpoint = current.endpoint.url;
      const phase = current.session.phase();
      if (phase.kind !== "live") {
        return { state: phase.kind === "greeting" ? "connecting" : "leaving", endpoint, lastFailure };
      }
      return {
        state: "live",
        endpoint,
        sessionId: phase.sessionId,
        term: phase.term,
        liveMs: clock.monotonicMs() - phase.sinceMs,
        toldSequence: phase.outbox.told(),
        acknowledgedSequence: phase.outbox.acknowledged(),
        droppedStats: phase.line.droppedStats(),
        lastFailure,
      };
    },
  };
}

/** Resolves after the delay or when the signal is aborted, whichever comes first. */
function wait(delayMs: number, clock: UplinkClock, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  function finish(): void {
    cancel();
    signal.removeEventListener("abort", finish);
    resolve();
  }
  const cancel = clock.after(delayMs, finish);
  signal.addEventListener("abort", finish);
  return promise;
}
