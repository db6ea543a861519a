// Sends what the buffer holds to the receiver, and goes on trying: a receiver that is away, slow or not in its senses costs nothing but
// what the buffer has no room for.

import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import { createBackoff } from "../scheduler/backoff.ts";
import { orAborted } from "../waiting.ts";
import type { ForwardBuffer } from "./forward-buffer.ts";
import { connectReceiver, type ReceiverLink, type ReceiverOptions } from "./receiver-link.ts";

export interface ForwarderOptions {
  readonly receiver: ReceiverOptions;
  readonly buffer: ForwardBuffer;
  /** Records have arrived. */
  readonly sent: (records: number) => void;
  readonly log: Log;
}

export interface Forwarder {
  /** Why the receiver is not connected; undefined while it is. */
  problem(): string | undefined;
  /** There may be something to send. */
  wake(): void;
  /** Waits a moment for what is on its way to arrive, and ends the connection. What has not arrived stays in the buffer. */
  close(): Promise<void>;
}

const backoffMs = { baseMs: 200, capMs: 30_000 };
/** How long an orderly end waits for a confirmation, so that nothing is sent twice for it. */
const graceMs = 2_000;
const warningsEveryMs = 60_000;

export function createForwarder({ receiver, buffer, sent, log }: ForwarderOptions): Forwarder {
  const closing = new AbortController();
  const { signal } = closing;
  const cutting = new AbortController();
  const backoff = createBackoff({ ...backoffMs, random: Math.random });
  let problem: string | undefined = "it is being connected to";
  let wake = () => {};
  let warnedAtMs = Number.NEGATIVE_INFINITY;

  /** Until there is, or may be, something to send. */
  function until(dueInMs: number | undefined): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        // not that of a later wait, if a connection that ended has cut this one short
        if (wake === end) wake = () => {};
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = dueInMs === undefined ? undefined : setTimeout(end, Math.ceil(dueInMs));
      wake = end;
      signal.addEventListener("abort", end, { once: true });
      if (signal.aborted) end();
    });
  }

  async function serve(link: ReceiverLink): Promise<void> {
    while (!signal.aborted) {
      const chunk = buffer.take();
      if (chunk === undefined) {
        await orAborted(until(buffer.dueInMs()), link.ended);
        continue;
      }
      const { tag, records } = chunk;
      await link.send({ tag, records, data: chunk.data.subarray(0, chunk.bytes) }, cutting.signal);
      buffer.done();
      sent(records);
      backoff.reset();
    }
  }

  function failed(error: unknown): void {
    problem = messageOf(error);
    if (performance.now() < warnedAtMs + warningsEveryMs) return;
    warnedAtMs = performance.now();
    log.warn(
      { err: problem, attempt: backoff.attempts() + 1, hint: "look at the receiver and at [logs.forward]" },
      "logs cannot be sent to their receiver; it is tried again",
    );
  }

  async function run(): Promise<void> {
    while (!signal.aborted) {
      let link: ReceiverLink | undefined;
      try {
        link = await connectReceiver(receiver, signal);
        problem = undefined;
        await serve(link);
      } catch (error) {
        if (signal.aborted) break;
        failed(error);
      } finally {
        link?.close();
      }
      await sleep(backoff.nextMs(), undefined, { signal }).catch(() => undefined);
    }
    problem = "it is no longer connected to";
  }

  const running = run();
  return {
    problem: () => problem,
    wake: () => wake(),
    async close() {
      closing.abort();
      const timer = setTimeout(() => cutting.abort(), graceMs);
      await running;
      clearTimeout(timer);
    },
  };
}
