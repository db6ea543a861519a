// Names for sandboxes: a resolver on the gateway of each bridge that answers what the asker's policy allows, and opens the way to the
// addresses of an answer before it gives it.

import type { Log } from "../../observe/log.ts";
import type { EffectiveEgress } from "../effective.ts";
import { hasAddress, setOf } from "../ranges.ts";
import { addressesOf, failure, withoutInside } from "./answer.ts";
import type { Nameserver } from "./exchange.ts";
import { createKnownAnswers, type Held } from "./known-answers.ts";
import { createLearning, type Found, type Learn } from "./learning.ts";
import { type Listener, openListener } from "./listener.ts";
import { type Query, type Question, type Reply, readQuery, type Transport, writeReply } from "./message.ts";
import { isByName, judge } from "./question.ts";
import { createSeats, type QueryCounts } from "./seats.ts";
import { createUpstreams } from "./upstreams.ts";

/** Who asks. `egress` is absent for one that reaches nothing outside. */
export interface Asker {
  readonly sandboxId: string;
  readonly egress?: EffectiveEgress;
}

type OutsideAsker = Required<Asker>;

/** "name": the policy does not allow it. "rebinding": it leads to addresses that are not public. */
export type NameDenial = "name" | "rebinding";

export interface ResolverOptions {
  /** The nameservers outside, in order of preference; read for each question that goes there. */
  readonly upstreams: () => readonly Nameserver[];
  /** Whose address that is; read for each question. */
  readonly asker: (address: string) => Asker | undefined;
  readonly learn: Learn;
  /** Called for each, which is at most as often as a sandbox may ask. */
  readonly onDenied: (sandboxId: string, name: string, reason: NameDenial) => void;
  readonly log: Log;
  /** Of each sandbox; twice as many may come at once after a pause. Default: 50. */
  readonly queriesPerSecond?: number;
  /** Default: 53. */
  readonly port?: number;
  /** How long each nameserver is waited for. Default: 1,500 ms. */
  readonly patienceMs?: number;
  /** A clock that is never set. Default: performance.now(). */
  readonly nowMs?: () => number;
}

export interface Resolver {
  /** Answers on port 53 of the gateway; already so is success. Rejects with NETWORK_UNAVAILABLE. */
  listen(gateway: string): Promise<void>;
  /** Not so is success. What was found out for that gateway is forgotten. */
  unlisten(gateway: string): Promise<void>;
  /**
   * The addresses that a name leads to and the asker's policy allows, whether or not it allows the name; empty if there are none. `gateway`:
   * whose answers are kept. Rejects where the sandbox asks for more than it may; what is known costs it nothing.
   */
  addressesOf(asker: Required<Asker>, gateway: string, name: string): Promise<readonly string[]>;
  /** By sandbox, over the life of this object. */
  counts(): ReadonlyMap<string, QueryCounts>;
  /** Drops what is kept of a sandbox. */
  forget(sandboxId: string): void;
  close(): Promise<void>;
}

/** A firewall that takes nothing is told of no more often than this: sandboxes go on asking. */
const quietMs = 10_000;
/** Stands for all whose address is nobody's, as an id that no sandbox has. */
const stranger = "";

export function createResolver(options: ResolverOptions): Resolver {
  const { asker: askerOf, log, onDenied, queriesPerSecond = 50, port = 53 } = options;
  const { nowMs = () => performance.now() } = options;
  const upstreams = createUpstreams({
    servers: options.upstreams,
    nowMs,
    log,
    ...(options.patienceMs === undefined ? {} : { patienceMs: options.patienceMs }),
  });
  const known = createKnownAnswers({ ask: upstreams.ask, nowMs });
  const learning = createLearning({ learn: options.learn, nowMs });
  const seats = createSeats({ nowMs, perSecond: queriesPerSecond });
  const listeners = new Map<string, Promise<Listener>>();
  let quietUntilMs = Number.NEGATIVE_INFINITY;

  async function respond(gateway: string, message: Buffer, from: string, transport: Transport) {
    const asker = askerOf(from);
    const seat = seats.take(asker?.sandboxId ?? stranger);
    if (seat === undefined) return undefined;
    try {
      const query = readQuery(message);
      if (query === undefined) return undefined;
      const reply = await replyTo(gateway, query, asker, from);
      if (reply.isBlocked) seat.refused();
      else seat.answered();
      return writeReply(query, reply, transport);
    } finally {
      seat.leave();
    }
  }

  async function replyTo(
    gateway: string,
    query: Query,
    asker: Asker | undefined,
    from: string,
  ): Promise<Reply> {
    const ruling = rulingOn(query, asker);
    if ("code" in ruling) return ruling;
    const held = known.held(gateway, query);
    if (held !== undefined) return shownTo(ruling, query, held);
    const found = await known.ask(gateway, query);
    // who has the address, and what is allowed to them, may be another by now
    const later = rulingOn(query, askerOf(from));
    return "code" in later ? later : shownTo(later, query, found);
  }

  /** What is said without asking anyone, or for whom somebody is asked. */
  function rulingOn(query: Query, asker: Asker | undefined): Reply | OutsideAsker {
    if (asker === undefined) return refusal;
    const { sandboxId, egress } = asker;
    switch (judge(query, egress)) {
      case "ASK":
        return egress === undefined ? denial : { sandboxId, egress };
      case "EMPTY":
        return empty;
      case "ABSENT":
        return absent;
      case "DENIED":
        onDenied(sandboxId, query.name, "name");
        return denial;
      case "REFUSED":
        return refusal;
    }
  }

  async function shownTo({ sandboxId, egress }: OutsideAsker, query: Query, held: Held): Promise<Reply> {
    const records = withoutInside(held.records, egress);
    if (records.length < held.records.length) {
      onDenied(sandboxId, query.name, "rebinding");
      if (!records.some(({ type }) => type === query.type)) return denial;
    }
    const found = { name: query.name, addresses: addressesOf(records), untilMs: held.untilMs };
    if (isByName(egress) && !(await hasLearnt(sandboxId, egress, found))) return unknown;
    const ttlSeconds = Math.max(1, Math.ceil((held.untilMs - nowMs()) / 1_000));
    return { code: held.code, records, ttlSeconds, isBlocked: false };
  }

  async function askFor(sandboxId: string, gateway: string, question: Question): Promise<Held> {
    const seat = seats.take(sandboxId);
    if (seat === undefined) throw new Error("it asks for more names than it may");
    try {
      const found = await known.ask(gateway, question);
      seat.answered();
      return found;
    } finally {
      seat.leave();
    }
  }

  async function hasLearnt(sandboxId: string, egress: EffectiveEgress, found: Found): Promise<boolean> {
    try {
      await learning.ensure(sandboxId, egress, found);
      return true;
    } catch (error) {
      if (nowMs() >= quietUntilMs) {
        quietUntilMs = nowMs() + quietMs;
        log.warn({ sandbox: sandboxId, err: error }, "the firewall did not take the addresses of a name");
      }
      return false;
    }
  }

  async function unlisten(gateway: string): Promise<void> {
    const listener = listeners.get(gateway);
    listeners.delete(gateway);
    known.drop(gateway);
    await listener?.then(
      (open) => open.close(),
      () => undefined,
    );
  }

  return {
    async listen(gateway) {
      const opening =
        listeners.get(gateway) ??
        openListener({
          address: gateway,
          port,
          respond: (message, from, transport) => respond(gateway, message, from, transport),
          log,
        });
      listeners.set(gateway, opening);
      try {
        await opening;
      } catch (error) {
        if (listeners.get(gateway) === opening) listeners.delete(gateway);
        throw error;
      }
    },
    unlisten,
    async addressesOf({ sandboxId, egress }, gateway, name) {
      const question = { name, type: "A" };
      const { records } = known.held(gateway, question) ?? (await askFor(sandboxId, gateway, question));
      const denied = setOf(egress.denyCidrs);
      return withoutInside(records, egress).flatMap(({ type, data }) =>
        type === "A" && !hasAddress(denied, String(data)) ? [String(data)] : [],
      );
    },
    counts: () => new Map([...seats.counts()].filter(([who]) => who !== stranger)),
    forget(sandboxId) {
      seats.forget(sandboxId);
      learning.forget(sandboxId);
    },
    async close() {
      upstreams.close();
      await Promise.all([...listeners.keys()].map(unlisten));
    },
  };
}

const nothing = { records: [], ttlSeconds: 0 } as const;
const empty: Reply = { code: "NOERROR", ...nothing, isBlocked: false };
const absent: Reply = { code: "NXDOMAIN", ...nothing, isBlocked: false };
const unknown: Reply = { code: failure.code, ...nothing, isBlocked: false };
/**
 * Clients take REFUSED for a nameserver in trouble and ask again, musl for 5 s. That a name does not exist they believe at once; and since
 * the answer has no SOA nobody keeps it, so that a policy that is widened is felt with the next question.
 */
const denial: Reply = { code: "NXDOMAIN", ...nothing, isBlocked: true };
const refusal: Reply = { code: "REFUSED", ...nothing, isBlocked: true };
