// One session of one host, from the scheduler's side: greet, store, acknowledge.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  AckSchema,
  type ConnectRequest,
  type ConnectResponse,
  ConnectResponseSchema,
  type Hello,
  RedirectSchema,
  type Welcome,
} from "../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { messageOf } from "../errors.ts";
import type { Change } from "./change.ts";
import type { SessionChecker } from "./checker.ts";
import type { HostEntry } from "./host-view.ts";
import { createQueue } from "./queue.ts";
import type { AckStore } from "./store.ts";

/** What can be said to a host. */
export type Answer = ConnectResponse["message"];

/** What a scheduler may do with a Hello. */
export type Greeting =
  | { readonly kind: "welcome"; readonly welcome: Welcome }
  /** Redirect, and an end without an error. */
  | { readonly kind: "redirect"; readonly endpoint: string }
  | { readonly kind: "refuse"; readonly error: ConnectError }
  /** Never answers. */
  | { readonly kind: "silence" };

export interface HostSessionOptions {
  readonly requests: AsyncIterable<ConnectRequest>;
  readonly checker: SessionChecker;
  readonly store: AckStore;
  /** Whether acknowledgements are sent now. What comes is stored in any case. */
  readonly acking: () => boolean;
  /** Resolves when the next message may be read. */
  readonly mayRead: () => Promise<void>;
  /** Told of Hello; says which entry the host has, and how it is greeted. */
  readonly arrived: (
    hello: Hello,
    session: HostSession,
  ) => { readonly entry: HostEntry; readonly greeting: Greeting };
  readonly changed: (change: Change) => void;
  readonly left: (session: HostSession, reason: string) => void;
}

export interface HostSession {
  /** Sends one message now. */
  send(answer: Answer): void;
  /** Acknowledges everything stored now. */
  acknowledge(): void;
  /** Ends the call: with OK without an error. */
  end(error?: ConnectError): void;
  /** Resolves when nothing of the session is left. */
  readonly done: Promise<void>;
  /** All that goes down; ends with the session. */
  answers(): AsyncGenerator<ConnectResponse, void>;
}

// Acknowledgements are batched by count and by time: a host waits once 1,000 events are not acknowledged.
const ackEvery = 100;
const ackDelayMs = 20;

export function createHostSession(options: HostSessionOptions): HostSession {
  const { checker, store } = options;
  const queue = createQueue<ConnectResponse>();
  let entry: HostEntry | undefined;
  let unacknowledged = 0;
  let ackTimer: NodeJS.Timeout | undefined;

  const session: HostSession = {
    send(answer) {
      if (answer.case === "ack") checker.acknowledged(Number(answer.value.sequence));
      queue.push(create(ConnectResponseSchema, { message: answer }));
    },
    acknowledge() {
      clearTimeout(ackTimer);
      ackTimer = undefined;
      if (entry === undefined) return;
      unacknowledged = 0;
      const { view } = entry;
      // durable first, told then: what is told can never be taken back
      store.keep(view.hostId, view.epoch, view.receivedSequence);
      if (!options.acking()) return;
      view.acknowledgedSequence = store.acknowledged(view.hostId, view.epoch);
      const sequence = BigInt(view.acknowledgedSequence);
      session.send({ case: "ack", value: create(AckSchema, { sequence }) });
    },
    end: (error) => queue.end(error),
    done: Promise.resolve()
      .then(read)
      .then(
        () => finish(entry?.view.goodbye || "the host ended the call"),
        (error: unknown) => finish(messageOf(error), error),
      ),
    answers: () => queue.items(),
  };

  function greet(hello: Hello): void {
    const arrival = options.arrived(hello, session);
    const { greeting } = arrival;
    switch (greeting.kind) {
      case "welcome":
        entry = arrival.entry;
        entry.begin(hello);
        checker.welcomed(Number(greeting.welcome.acknowledgedSequence ?? hello.lastAcknowledgedSequence));
        session.send({ case: "welcome", value: greeting.welcome });
        options.changed({
          kind: "connected",
          hostId: entry.view.hostId,
          epoch: entry.view.epoch,
          sessionId: greeting.welcome.sessionId,
        });
        return;
      case "redirect":
        // An error right behind it could overtake the Redirect in some clients.
        session.send({ case: "redirect", value: create(RedirectSchema, { endpoint: greeting.endpoint }) });
        session.end();
        return;
      case "refuse":
        session.end(greeting.error);
        return;
      case "silence":
        return;
    }
  }

  function stored(): void {
    unacknowledged += 1;
    if (unacknowledged >= ackEvery) session.acknowledge();
    else ackTimer ??= setTimeout(session.acknowledge, ackDelayMs);
  }

  function take(request: ConnectRequest, from: HostEntry): void {
    const isNew = checker.request(request);
    from.apply(request, isNew);
    const change = changeOf(from.view.hostId, request, isNew);
    if (change !== undefined) options.changed(change);
    if (request.message.case === "event" || request.message.case === "eventGap") stored();
  }

  async function read(): Promise<void> {
    for await (const request of options.requests) {
      if (request.message.case === "hello" && entry === undefined) {
        checker.request(request);
        greet(request.message.value);
      } else if (entry === undefined) {
        throw new ConnectError("Hello comes first, and Welcome before all else", Code.InvalidArgument);
      } else {
        take(request, entry);
      }
      await options.mayRead();
    }
  }

  function finish(reason: string, error?: unknown): void {
    if (entry !== undefined) session.acknowledge();
    queue.end(error === undefined ? undefined : ConnectError.from(error));
    options.left(session, reason);
  }

  return session;
}

function changeOf(hostId: string, { message }: ConnectRequest, isNew: boolean): Change | undefined {
  switch (message.case) {
    case "snapshot":
      return {
        kind: "snapshot",
        hostId,
        sandboxes: message.value.sandboxes.length,
        sequence: Number(message.value.sequence),
      };
    case "event":
      return isNew ? { kind: "event", hostId, event: message.value } : undefined;
    case "eventGap":
      return {
        kind: "gap",
        hostId,
        first: Number(message.value.firstSequence),
        last: Number(message.value.lastSequence),
      };
    case "heartbeat":
      return { kind: "heartbeat", hostId, number: Number(message.value.number) };
    case "stats":
      return { kind: "stats", hostId, sandboxes: message.value.sandboxes.length };
    case "host":
      return { kind: "host", hostId };
    default:
      return undefined;
  }
}
