// The nameservers outside: which is asked, and which next when it does not answer.

import { messageOf } from "../../errors.ts";
import type { Log } from "../../observe/log.ts";
import { type Answer, answerOf, failure } from "./answer.ts";
import { exchange, type Nameserver } from "./exchange.ts";
import type { Question } from "./message.ts";

export interface UpstreamsOptions {
  /** In order of preference; read for each question. */
  readonly servers: () => readonly Nameserver[];
  readonly nowMs: () => number;
  readonly log: Log;
  /** How long one is waited for. Default: 1,500 ms. */
  readonly patienceMs?: number;
}

export interface Upstreams {
  /** Never rejects: what nobody can answer is a failure. */
  ask(question: Question): Promise<Answer>;
  /** Ends what is being asked. */
  close(): void;
}

const defaultPatienceMs = 1_500;
/** Each is asked so often; then clients, which wait for 4 or 5 s, are told of the failure while they listen. */
const rounds = 2;
const mostPatiences = 2.4;
/** One that failed is asked after the others for so long. */
const lastForMs = 30_000;

export function createUpstreams({
  servers,
  nowMs,
  log,
  patienceMs = defaultPatienceMs,
}: UpstreamsOptions): Upstreams {
  const closing = new AbortController();
  /** Until when, of those that did not answer. */
  const lastUntilMs = new Map<string, number>();

  const keyOf = ({ address, port }: Nameserver) => `${address} port ${port}`;
  const isLast = (server: Nameserver) => nowMs() < (lastUntilMs.get(keyOf(server)) ?? 0);

  function inOrder(): readonly Nameserver[] {
    const all = servers();
    return [...all.filter((server) => !isLast(server)), ...all.filter(isLast)];
  }

  function failed(server: Nameserver, error: unknown): void {
    if (closing.signal.aborted) return;
    const key = keyOf(server);
    if (!lastUntilMs.has(key)) {
      log.warn({ err: messageOf(error) }, `nameserver ${key} does not answer; others are asked before it`);
    }
    lastUntilMs.set(key, nowMs() + lastForMs);
  }

  function answered(server: Nameserver): void {
    const key = keyOf(server);
    if (lastUntilMs.delete(key)) log.info({}, `nameserver ${key} answers again`);
  }

  /** Undefined if it knows nothing; rejects if it does not answer. */
  async function askOne(
    server: Nameserver,
    question: Question,
    withinMs: number,
  ): Promise<Answer | undefined> {
    const signal = AbortSignal.any([closing.signal, AbortSignal.timeout(Math.max(1, Math.round(withinMs)))]);
    const response = await exchange(server, question, signal);
    answered(server);
    return answerOf(question, response);
  }

  return {
    async ask(question) {
      const untilMs = performance.now() + patienceMs * mostPatiences;
      let left = inOrder();
      for (let round = 0; round < rounds; round += 1) {
        const silent: Nameserver[] = [];
        for (const server of left) {
          const leftMs = untilMs - performance.now();
          if (closing.signal.aborted || leftMs <= 0) return failure;
          try {
            const answer = await askOne(server, question, Math.min(patienceMs, leftMs));
            if (answer !== undefined) return answer;
          } catch (error) {
            failed(server, error);
            silent.push(server);
          }
        }
        left = silent;
      }
      return failure;
    },
    close: () => closing.abort(new Error("the resolver is closed")),
  };
}
