// One life of the stream, from Hello to whatever ends it. Any failure ends the whole session; the next one starts anew
// with a full snapshot and everything that was not acknowledged.

import { create } from "@bufbuild/protobuf";
import type { Logger } from "pino";
import {
  type ConnectRequest,
  ConnectRequestSchema,
  type ConnectResponse,
  type Welcome,
} from "../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { messageOf } from "../errors.ts";
import { type Acknowledgements, createAcknowledgements } from "./acknowledgements.ts";
import type { Dial, SchedulerCall } from "./channel.ts";
import type { UplinkClock } from "./clock.ts";
import type { Endpoint } from "./endpoints.ts";
import { createLine, type Due, type Line } from "./line.ts";
import type { UplinkMetrics } from "./metrics.ts";
import { createOutbox, type EverTold, type Outbox } from "./outbox.ts";
import type { Outcome } from "./outcome.ts";
import { type Periods, periodsOf } from "./pace.ts";
import type { UplinkSource } from "./source.ts";

/** Where a session is in its life. Only ever forward. */
export type Phase =
  /** Hello is on its way; Welcome is awaited. */
  | { readonly kind: "greeting" }
  | {
      readonly kind: "live";
      readonly sessionId: string;
      readonly term: number;
      readonly sinceMs: number;
      readonly outbox: Outbox;
      readonly line: Line;
    }
  /** Goodbye is told as soon as the message before it went; the scheduler is given a moment to end the call. */
  | { readonly kind: "leaving"; readonly told: boolean }
  | { readonly kind: "ended" };

export interface SessionOptions {
  readonly endpoint: Endpoint;
  readonly dial: Dial;
  readonly source: UplinkSource;
  /** The pace where the scheduler asks for none. */
  readonly periods: Periods;
  readonly clock: UplinkClock;
  readonly log: Logger;
  readonly metrics: UplinkMetrics;
  readonly welcomeTimeoutMs: number;
  readonly leaveTimeoutMs: number;
  /** How long one message may wait for the scheduler to read. Unit: milliseconds. */
  readonly stallTimeoutMs: number;
  readonly window: number;
  /** Shared by all sessions. */
  readonly everTold: EverTold;
}

export interface SessionEnd {
  readonly outcome: Outcome;
  /** How long the session was live; 0 if it never was. Unit: milliseconds. */
  readonly liveMs: number;
}

export interface Session {
  /** Resolves, never rejects, when the session is over and its timers and connection are gone. */
  readonly ended: Promise<SessionEnd>;
  phase(): Phase;
  /** Says goodbye and ends, within `leaveTimeoutMs`. */
  leave(message: string): void;
}

const protocolVersion = 1;

/** Opens a session at once. */
export function openSession(options: SessionOptions): Session {
  const { clock, everTold, source, log, metrics, window } = options;
  const { promise: ended, resolve } = Promise.withResolvers<SessionEnd>();
  const cleanups = new Set<() => void>();
  let phase: Phase = { kind: "greeting" };
  let periods = options.periods;
  let call: SchedulerCall | undefined;
  let writingSinceMs: number | undefined;
  let goodbye = "";
  let cancelHeartbeat: (() => void) | undefined;
  let cancelStats: (() => void) | undefined;
  let acknowledgements: Acknowledgements | undefined;

  function end(outcome: Outcome): void {
    if (phase.kind === "ended") return;
    const liveMs = phase.kind === "live" ? clock.monotonicMs() - phase.sinceMs : 0;
    phase = { kind: "ended" };
    cancelHeartbeat?.();
    cancelStats?.();
    for (const cleanup of cleanups) cleanup();
    acknowledgements?.close();
    call?.close();
    resolve({ outcome, liveMs });
  }

  // Callbacks come from timers, sockets and the store: what they throw is this session's failure and nobody else's.
  function guarded<A extends readonly unknown[]>(step: (...args: A) => void): (...args: A) => void {
    return (...args) => {
      if (phase.kind === "ended") return;
      try {
        step(...args);
      } catch (error) {
        end({ kind: "failed", message: messageOf(error) });
      }
    };
  }

  function write(request: ConnectRequest): void {
    writingSinceMs = clock.monotonicMs();
    call?.write(request, written);
  }

  const written = guarded(() => {
    writingSinceMs = undefined;
    pump();
  });

  const pump = guarded(() => {
    if (writingSinceMs !== undefined) return;
    if (phase.kind === "leaving" && !phase.told) {
      phase = { kind: "leaving", told: true };
      write(create(ConnectRequestSchema, { message: { case: "goodbye", value: { message: goodbye } } }));
      call?.end();
    } else if (phase.kind === "live") {
      const request = phase.line.next();
      if (request === undefined) return;
      if (request.message.case === "event") metrics.eventTold();
      if (request.message.case === "eventGap") reportGap(request.message.value);
      write(request);
    }
  });

  function reportGap(gap: { readonly firstSequence: bigint; readonly lastSequence: bigint }): void {
    const [first, last] = [Number(gap.firstSequence), Number(gap.lastSequence)];
    metrics.eventsLost(last - first + 1);
    log.error({ sequence: first, count: last - first + 1 }, "events lost to retention before they were told");
  }

  const beat = guarded(() => {
    if (phase.kind !== "live") return;
    const stalledMs = writingSinceMs === undefined ? 0 : clock.monotonicMs() - writingSinceMs;
    if (stalledMs >= options.stallTimeoutMs) {
      end({ kind: "lost", message: `the scheduler has read nothing for ${Math.round(stalledMs / 1_000)} s` });
      return;
    }
    phase.line.mark("heartbeat");
    cancelHeartbeat = clock.after(periods.heartbeatMs, beat);
    pump();
  });

  const sample = guarded(() => {
    if (phase.kind !== "live") return;
    if (!phase.line.mark("stats")) metrics.statsDropped();
    cancelStats = clock.after(periods.statsMs, sample);
    pump();
  });

  function keepPace(next: Periods): void {
    const last = periods;
    periods = next;
    if (cancelHeartbeat === undefined || next.heartbeatMs !== last.heartbeatMs) {
      cancelHeartbeat?.();
      cancelHeartbeat = clock.after(next.heartbeatMs, beat);
    }
    if (cancelStats === undefined || next.statsMs !== last.statsMs) {
      cancelStats?.();
      cancelStats = clock.after(next.statsMs, sample);
      source.setStatsPeriod(next.statsMs);
    }
  }

  function mark(...due: readonly Due[]): void {
    if (phase.kind !== "live") return;
    for (const kind of due) phase.line.mark(kind);
    pump();
  }

  function welcome({ sessionId, term, pace, acknowledgedSequence }: Welcome): Outcome | undefined {
    if (phase.kind !== "greeting") return violation("a second Welcome");
    const kept = source.lastAcknowledgedSequence();
    const acknowledged = Number(acknowledgedSequence ?? kept);
    if (acknowledged < 0 || acknowledged > everTold.sequence) {
      return violation(`Welcome acknowledges ${acknowledged}, the newest event told is ${everTold.sequence}`);
    }
    if (term < 0n || term > Number.MAX_SAFE_INTEGER) return violation(`Welcome with the term ${term}`);
    if (term !== 0n && !source.acceptTerm(Number(term))) {
      return { kind: "fenced", message: `term ${term} is older than ${source.term()}` };
    }
    cancelWelcome();
    acknowledgements = createAcknowledgements({
      keep: (sequence) => source.acknowledge(sequence),
      kept,
      clock,
      failed: (error) => log.warn({ err: error }, "acknowledgement not kept"),
    });
    acknowledgements.note(acknowledged);
    const outbox = createOutbox({ events: source.events, acknowledged, everTold, window });
    const line = createLine({ source, outbox, wallMs: clock.wallMs });
    phase = { kind: "live", sessionId, term: Number(term), sinceMs: clock.monotonicMs(), outbox, line };
    cleanups.add(source.events.subscribe(pump));
    cleanups.add(source.subscribeHost(guarded(() => mark("host"))));
    keepPace(periodsOf(pace, options.periods));
    metrics.sessionLive();
    log.info(
      { endpoint: options.endpoint.url, session: sessionId, term: Number(term) },
      "scheduler connected",
    );
    mark("heartbeat", "stats");
    return undefined;
  }

  function acknowledge(outbox: Outbox, sequence: bigint): Outcome | undefined {
    const news = outbox.acknowledge(Number(sequence));
    if (sequence < 0n || news === "beyond") {
      return violation(`Ack of ${sequence}, the newest event told is ${everTold.sequence}`);
    }
    if (news === "advanced") acknowledgements?.note(Number(sequence));
    pump();
    return undefined;
  }

  /** Does what the scheduler says; returns how that ends the session, if it does. */
  function obey({ message }: ConnectResponse): Outcome | undefined {
    // What comes after Goodbye is too late; a message of a later version of the contract is not for us.
    if (phase.kind === "leaving" || message.case === undefined) return undefined;
    if (message.case === "redirect") return { kind: "redirected", endpoint: message.value.endpoint };
    if (message.case === "welcome") return welcome(message.value);
    if (phase.kind !== "live") return violation(`"${message.case}" before Welcome`);
    switch (message.case) {
      case "ack":
        return acknowledge(phase.outbox, message.value.sequence);
      case "pace":
        keepPace(periodsOf(message.value, options.periods));
        return undefined;
      case "resync":
        mark("snapshot");
        return undefined;
    }
  }

  const receive = guarded((response: ConnectResponse) => {
    const outcome = obey(response);
    if (outcome !== undefined) end(outcome);
  });

  const cancelWelcome = clock.after(options.welcomeTimeoutMs, () =>
    end({ kind: "lost", message: `no Welcome within ${options.welcomeTimeoutMs / 1_000} s` }),
  );
  cleanups.add(cancelWelcome);

  guarded(() => {
    call = options.dial(options.endpoint, {
      message: receive,
      malformed: (problem) => end(violation(`a message that cannot be decoded: ${problem}`)),
      ended: (code, message) =>
        end(phase.kind === "leaving" ? { kind: "left" } : { kind: "lost", message: `${code}: ${message}` }),
    });
    write(
      create(ConnectRequestSchema, {
        message: {
          case: "hello",
          value: {
            host: source.host(),
            lastAcknowledgedSequence: BigInt(source.lastAcknowledgedSequence()),
            lastSequence: BigInt(source.events.newest()),
            term: BigInt(source.term()),
            protocolVersion,
          },
        },
      }),
    );
  })();

  return {
    ended,
    phase: () => phase,
    leave: guarded((message: string) => {
      if (phase.kind === "greeting") end({ kind: "left" });
      if (phase.kind !== "live") return;
      phase = { kind: "leaving", told: false };
      goodbye = message;
      cleanups.add(clock.after(options.leaveTimeoutMs, () => end({ kind: "left" })));
      pump();
    }),
  };
}

function violation(message: string): Outcome {
  return { kind: "violation", message };
}
