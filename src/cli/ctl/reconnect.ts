// Streams that go on where they were when the connection breaks: while a daemon is restarted, say.

import { Code, ConnectError } from "@connectrpc/connect";
import type { Context } from "./context.ts";
import { isInterruption } from "./failure.ts";

/** From the moment that nothing came any more. Milliseconds. */
const patienceMs = 30_000;

/** Between tries; doubles. Milliseconds. */
const firstPauseMs = 100;
const longestPauseMs = 2_000;

export interface Reconnecting {
  readonly signal?: AbortSignal | undefined;
}

/**
 * What the stream yields, over as many connections as it takes: `open` is asked for a new one, from where the caller is by then. Ends
 * as the stream does. Throws what cannot be mended: an answer of the daemon's, or that it was away for 30 s, or was never there.
 */
export async function* withReconnection<Message>(
  context: Pick<Context, "warn">,
  open: () => AsyncIterable<Message>,
  { signal }: Reconnecting = {},
): AsyncGenerator<Message> {
  const retry = createRetry({ signal });
  while (true) {
    try {
      for await (const message of open()) {
        if (retry.succeeded()) context.warn("sandboxctl: connected again");
        yield message;
      }
      return;
    } catch (error) {
      if (!(await retry.after(error))) throw error;
      if (retry.isFirst()) context.warn("sandboxctl: the connection broke; trying again");
    }
  }
}

/** A stream that should have gone on. */
export function endedEarly(): ConnectError {
  return new ConnectError("the stream ended early", Code.Unavailable);
}

export interface Retry {
  /** Call it after each success. Whether there was a failure before. */
  succeeded(): boolean;
  /** Waits, and resolves to whether to try again after this error. */
  after(error: unknown): Promise<boolean>;
  /** Whether the failure was the first one since a success. */
  isFirst(): boolean;
}

/** `everReached`: whether the daemon is known to be there; one that never was is not waited for. */
export function createRetry({
  signal,
  everReached = false,
}: Reconnecting & { readonly everReached?: boolean } = {}): Retry {
  let reached = everReached;
  let since: number | undefined;
  let failures = 0;
  return {
    succeeded() {
      const failedBefore = failures > 0;
      reached = true;
      failures = 0;
      since = undefined;
      return failedBefore;
    },
    async after(error) {
      if (!reached || signal?.aborted || !isInterruption(error)) return false;
      since ??= performance.now();
      const pauseMs = Math.min(firstPauseMs * 2 ** failures, longestPauseMs);
      if (performance.now() + pauseMs - since > patienceMs) return false;
      failures += 1;
      await pause(pauseMs, signal);
      return !signal?.aborted;
    },
    isFirst: () => failures === 1,
  };
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
  });
}
