// Sends a caller's stream into a sandbox: no faster than it is taken, and no further once the inside has said its last word.

import { type Frame, frame, writer } from "../toolbox/protocol.ts";
import type { Exchange } from "./exchange.ts";

/** Frames that are sent together, in parts. */
export type Parts = readonly Uint8Array[];

/**
 * Sends all frames, then EOF, and returns the toolbox's last word. What `frames` throws ends it without EOF, so that what was
 * to be replaced stays. The memory of one is used by nobody else until the next is asked for.
 *
 * @throws SandboxdError what the toolbox says, as soon as it does; what `frames` throws.
 */
export async function sendAll(exchange: Exchange, frames: AsyncIterable<Parts>): Promise<Frame> {
  let isOver = false;
  let wake = () => {};
  // the sender may take its time
  const answer = exchange.receive("any").finally(() => {
    isOver = true;
    wake();
  });
  // told below, if the sender has not failed before
  answer.catch(() => {});
  /** Undefined once the answer is there. */
  const unlessOver = <T>(next: Promise<T>) =>
    new Promise<T | undefined>((resolve, reject) => {
      wake = () => resolve(undefined);
      next.then(resolve, reject);
    });

  const iterator = frames[Symbol.asyncIterator]();
  try {
    while (!isOver) {
      const next = await unlessOver(iterator.next());
      if (next === undefined) break;
      await unlessOver(exchange.send(next.done === true ? [writer().frame(frame.eof)] : next.value));
      if (next.done === true) break;
    }
  } finally {
    // not waited for: it may be waiting for its sender
    iterator.return?.().catch(() => {});
  }
  return exchange.within(answer, "work");
}
