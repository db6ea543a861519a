// A real scheduler for development and tests: accepts hosts, stores what they tell, checks that they keep the contract,
// and can misbehave on demand. It schedules nothing.

import { once } from "node:events";
import { createSecureServer, createServer, type Http2Server, type Http2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createContextKey, createContextValues } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import type { Logger } from "pino";
import type { Event } from "../../gen/sandboxd/v1/event_pb.ts";
import {
  AckSchema,
  type Hello,
  type Pace,
  PaceSchema,
  RedirectSchema,
  ResyncSchema,
  SchedulerService,
  type Welcome,
  WelcomeSchema,
} from "../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { messageOf } from "../errors.ts";
import type { Change } from "./change.ts";
import { type ContractChecker, createContractChecker } from "./checker.ts";
import { createHostEntry, type HostEntry, type HostView } from "./host-view.ts";
import { type Answer, createHostSession, type Greeting, type HostSession } from "./session.ts";
import { type AckStore, createMemoryStore } from "./store.ts";

/** PEM. With it the scheduler speaks TLS alone and demands certificates of hosts. */
export interface DevSchedulerTls {
  readonly certificate: Buffer;
  readonly key: Buffer;
  /** Authorities that hosts' certificates must be from. */
  readonly ca: Buffer;
}

export interface DevSchedulerOptions {
  /** Port 0: any that is free. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly tls?: DevSchedulerTls;
  /** Default: in memory. Closed with the scheduler. */
  readonly store?: AckStore;
  readonly log: Logger;
  readonly onChange?: (change: Change) => void;
  /** Events kept per host; 1,000 by default. All are checked. */
  readonly keepEvents?: number;
  /** Answers Hello; gets what the scheduler would say by itself. */
  readonly greet?: (hello: Hello, welcome: Welcome) => Greeting;
}

/** Times between two reports of a host. Unit: milliseconds; absent is the host's own. */
export interface DevPace {
  readonly heartbeatMs?: number;
  readonly statsMs?: number;
}

export interface DevScheduler {
  /** As hosts configure it: "http://127.0.0.1:7071". */
  readonly url: string;
  readonly checker: ContractChecker;
  hosts(): readonly HostView[];
  /** Undefined for a host that never came. */
  host(hostId: string): HostView | undefined;
  /** The newest events of a host in its epoch, oldest first. */
  events(hostId: string): readonly Event[];
  /** For all hosts, now and when they connect. */
  setPace(pace: DevPace): void;
  /** For hosts that connect from now on; 0 is none. */
  setTerm(term: number): void;
  resync(hostId: string): void;
  /** Sends a connected host elsewhere. */
  redirect(hostId: string, endpoint: string): void;
  /** Stores on, but acknowledges nothing. */
  stopAcking(): void;
  startAcking(): void;
  /** Acknowledges whatever number it is told, true or not. Nothing is stored. */
  ackTo(hostId: string, sequence: number): void;
  /** Cuts a host's connection without a word. */
  dropSession(hostId: string): void;
  /** Ends a host's call with a status. */
  endSession(hostId: string, error: ConnectError): void;
  /** Reads nothing from any host until `resumeReading`; with a delay, one message each time it passes. */
  stallReading(everyMs?: number): void;
  resumeReading(): void;
  /** Ends all sessions UNAVAILABLE and stops listening. */
  close(): Promise<void>;
}

interface Connected {
  readonly session: HostSession;
  readonly connection: Http2Session | undefined;
}

const connectionKey = createContextKey<Http2Session | undefined>(undefined);

/** Resolves when the scheduler listens; rejects when it cannot. */
export async function createDevScheduler(options: DevSchedulerOptions): Promise<DevScheduler> {
  const { log } = options;
  const store = options.store ?? createMemoryStore();
  const changed = options.onChange ?? (() => undefined);
  const checker = createContractChecker((violation) => {
    log.error({ ...violation }, "the contract is violated");
    changed({ kind: "violation", violation });
  });
  const entries = new Map<string, HostEntry>();
  const connected = new Map<string, Connected>();
  const open = new Set<HostSession>();
  let pace: Pace | undefined;
  let term = 0;
  let acking = true;
  let sessions = 0;
  let gate:
    | { readonly open: Promise<void>; readonly pass: () => void; readonly everyMs?: number }
    | undefined;

  function welcomeFor({ host, lastAcknowledgedSequence }: Hello): Welcome {
    const stored = store.acknowledged(host?.hostId ?? "", host?.stateEpoch ?? "");
    sessions += 1;
    return create(WelcomeSchema, {
      sessionId: `session-${sessions}`,
      term: BigInt(term),
      // with a store in memory, a restart knows less than the host: then its word counts
      acknowledgedSequence: stored === 0 ? lastAcknowledgedSequence : BigInt(stored),
      ...(pace === undefined ? {} : { pace }),
    });
  }

  function arrive(hello: Hello, session: HostSession, connection: Http2Session | undefined) {
    const hostId = hello.host?.hostId ?? "";
    const welcome = welcomeFor(hello);
    const greeting: Greeting = options.greet?.(hello, welcome) ?? { kind: "welcome", welcome };
    const entry = entries.get(hostId) ?? createHostEntry(hostId, options.keepEvents ?? 1_000);
    entries.set(hostId, entry);
    if (greeting.kind === "welcome") {
      const before = connected.get(hostId);
      connected.set(hostId, { session, connection });
      before?.session.end(new ConnectError("replaced by a newer session of this host", Code.Aborted));
    }
    return { entry, greeting };
  }

  function leave(session: HostSession, reason: string): void {
    for (const [hostId, { session: other }] of connected) {
      if (other !== session) continue;
      connected.delete(hostId);
      const entry = entries.get(hostId);
      if (entry !== undefined) entry.view.connected = false;
      changed({ kind: "disconnected", hostId, reason });
    }
  }

  async function mayRead(): Promise<void> {
    if (gate === undefined) return;
    const { open, everyMs } = gate;
    const pause = everyMs === undefined ? undefined : Promise.withResolvers<void>();
    const timer = pause === undefined ? undefined : setTimeout(pause.resolve, everyMs);
    await Promise.race(pause === undefined ? [open] : [open, pause.promise]);
    clearTimeout(timer);
  }

  const handle = connectNodeAdapter({
    contextValues: (request) =>
      createContextValues().set(connectionKey, "stream" in request ? request.stream.session : undefined),
    readMaxBytes: 4 * 1024 * 1024,
    routes: (router) =>
      router.service(SchedulerService, {
        async *connect(requests, context) {
          const connection = context.values.get(connectionKey);
          const session = createHostSession({
            requests,
            checker: checker.session(),
            store,
            acking: () => acking,
            mayRead,
            arrived: (hello, arrived) => arrive(hello, arrived, connection),
            changed,
            left: leave,
          });
          open.add(session);
          void session.done.then(() => open.delete(session));
          context.signal.addEventListener("abort", () => session.end(), { once: true });
          yield* session.answers();
        },
      }),
  });

  const server = listenable(options.tls);
  const connections = new Set<Http2Session>();
  server.on("session", (connection: Http2Session) => {
    connections.add(connection);
    connection.once("close", () => connections.delete(connection));
    connection.on("error", (error) => log.debug({ err: error }, "connection failed"));
  });
  server.on("request", (request, response) => {
    try {
      handle(request, response);
    } catch (error) {
      // a malformed :authority throws before any handler
      log.warn({ reason: messageOf(error) }, "request refused");
      response.stream.close();
    }
  });
  server.listen(options.listen.port, options.listen.host);
  await once(server, "listening");
  const url = urlOf(server.address() as AddressInfo, options.tls !== undefined);
  changed({ kind: "listening", url });

  function connectedHost(hostId: string): Connected {
    const host = connected.get(hostId);
    if (host === undefined) throw new Error(`The host ${JSON.stringify(hostId)} is not connected.`);
    return host;
  }

  function tell(hostId: string, answer: Answer): void {
    connectedHost(hostId).session.send(answer);
  }

  return {
    url,
    checker,
    hosts: () => [...entries.values()].map(({ view }) => view),
    host: (hostId) => entries.get(hostId)?.view,
    events: (hostId) => entries.get(hostId)?.events() ?? [],
    setPace({ heartbeatMs, statsMs }) {
      const value = create(PaceSchema, {
        ...(heartbeatMs === undefined ? {} : { heartbeatPeriod: durationFromMs(heartbeatMs) }),
        ...(statsMs === undefined ? {} : { statsPeriod: durationFromMs(statsMs) }),
      });
      pace = value;
      for (const { session } of connected.values()) session.send({ case: "pace", value });
    },
    setTerm(next) {
      term = next;
    },
    resync: (hostId) => tell(hostId, { case: "resync", value: create(ResyncSchema) }),
    redirect: (hostId, endpoint) =>
      tell(hostId, { case: "redirect", value: create(RedirectSchema, { endpoint }) }),
    stopAcking() {
      acking = false;
    },
    startAcking() {
      acking = true;
      for (const { session } of connected.values()) session.acknowledge();
    },
    ackTo: (hostId, sequence) =>
      tell(hostId, { case: "ack", value: create(AckSchema, { sequence: BigInt(sequence) }) }),
    dropSession: (hostId) => connectedHost(hostId).connection?.destroy(),
    endSession: (hostId, error) => connectedHost(hostId).session.end(error),
    stallReading(everyMs) {
      gate?.pass();
      const { promise: open, resolve: pass } = Promise.withResolvers<void>();
      gate = { open, pass, ...(everyMs === undefined ? {} : { everyMs }) };
    },
    resumeReading() {
      gate?.pass();
      gate = undefined;
    },
    async close() {
      gate?.pass();
      gate = undefined;
      const closed = once(server, "close");
      server.close();
      const ending = [...open];
      for (const session of ending) {
        session.end(new ConnectError("the scheduler stops", Code.Unavailable));
      }
      // one turn of the event loop, in which the statuses go out
      await new Promise((resolve) => setImmediate(resolve));
      for (const connection of connections) connection.close();
      const cut = setTimeout(() => {
        for (const connection of connections) connection.destroy();
      }, 200);
      await closed;
      clearTimeout(cut);
      await Promise.all(ending.map(({ done }) => done));
      store.close();
    },
  };
}

function listenable(tls: DevSchedulerTls | undefined): Http2Server {
  if (tls === undefined) return createServer();
  const { certificate: cert, key, ca } = tls;
  return createSecureServer({ cert, key, ca, requestCert: true, rejectUnauthorized: true });
}

function urlOf({ address, family, port }: AddressInfo, secure: boolean): string {
  return `${secure ? "https" : "http"}://${family === "IPv6" ? `[${address}]` : address}:${port}`;
}
