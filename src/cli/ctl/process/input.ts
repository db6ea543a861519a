// Sends what is typed, or piped, to a process: in order, by offset, so that what was under way when the connection broke is sent again
// and never twice.

import type { Client } from "@connectrpc/connect";
import type { ProcessService } from "../../../../gen/sandboxd/v1/process_service_pb.ts";
import { reasonOf } from "../failure.ts";
import { createRetry } from "../reconnect.ts";

export interface InputOptions {
  readonly client: Pick<Client<typeof ProcessService>, "sendInput">;
  readonly sandboxId: string;
  readonly processId: string;
  /** Bytes that the process was sent before. */
  readonly offset: bigint;
  readonly source: AsyncIterable<Uint8Array>;
  /** Whether the process is told the end of the source. */
  readonly closes: boolean;
  readonly signal: AbortSignal;
}

/** Read ahead of what the process has taken. */
const windowBytes = 1024 * 1024;

const mostPieceBytes = 256 * 1024;

/**
 * Resolves when all was taken, when the process takes no more, or at the abort. What it was not told is lost by then, as with a pipe
 * whose reader is gone.
 */
export async function sendInput(options: InputOptions): Promise<void> {
  const { client, sandboxId, processId, source, closes, signal } = options;
  const queue = createQueue(signal);
  const reading = readInto(queue, source);
  const retry = createRetry({ signal, everReached: true });
  let { offset } = options;
  try {
    for (let piece = await queue.take(); piece !== undefined; ) {
      const close = piece.isLast && closes;
      if (piece.isLast && !close && piece.data.length === 0) break;
      try {
        const answer = await client.sendInput(
          { sandboxId, processId, data: piece.data, offset, close },
          { signal },
        );
        retry.succeeded();
        offset = answer.offset;
      } catch (error) {
        if (signal.aborted || isOver(error)) return;
        if (!(await retry.after(error))) throw error;
        continue;
      }
      if (piece.isLast) break;
      piece = await queue.take();
    }
  } finally {
    queue.close();
    reading.catch(() => {});
  }
}

/** The process has ended, or its input has: what is left has no reader. */
function isOver(error: unknown): boolean {
  return ["INVALID_STATE", "PROCESS_NOT_FOUND", "SANDBOX_NOT_FOUND"].includes(reasonOf(error) ?? "");
}

async function readInto(queue: Queue, source: AsyncIterable<Uint8Array>): Promise<void> {
  try {
    for await (const chunk of source) if (!(await queue.put(chunk))) return;
  } finally {
    queue.end();
  }
}

interface Piece {
  readonly data: Uint8Array;
  /** Nothing comes after it. */
  readonly isLast: boolean;
}

interface Queue {
  /** Resolves once there is room for more; to false when nobody takes any more. */
  put(chunk: Uint8Array): Promise<boolean>;
  end(): void;
  /** All that there is, up to the most of one piece; waits for some. Undefined once it is closed. */
  take(): Promise<Piece | undefined>;
  close(): void;
}

function createQueue(signal: AbortSignal): Queue {
  const held: Uint8Array[] = [];
  let heldBytes = 0;
  let isEnded = false;
  let isClosed = false;
  let wake: () => void = () => {};
  let changed = new Promise<void>((resolve) => {
    wake = resolve;
  });
  const change = () => {
    wake();
    changed = new Promise<void>((resolve) => {
      wake = resolve;
    });
  };
  const close = () => {
    isClosed = true;
    change();
  };
  signal.addEventListener("abort", close, { once: true });
  return {
    async put(chunk) {
      held.push(chunk);
      heldBytes += chunk.length;
      change();
      while (heldBytes >= windowBytes && !isClosed) await changed;
      return !isClosed;
    },
    end() {
      isEnded = true;
      change();
    },
    async take() {
      while (heldBytes === 0 && !isEnded && !isClosed) await changed;
      if (isClosed) return undefined;
      const data = takeFrom(held, mostPieceBytes);
      heldBytes -= data.length;
      change();
      return { data, isLast: isEnded && heldBytes === 0 };
    },
    close,
  };
}

/** The first bytes of the chunks, which lose them. */
function takeFrom(chunks: Uint8Array[], most: number): Uint8Array {
  const taken: Uint8Array[] = [];
  for (let left = most; left > 0; ) {
    const chunk = chunks.shift();
    if (chunk === undefined) break;
    taken.push(chunk.subarray(0, left));
    if (chunk.length > left) chunks.unshift(chunk.subarray(left));
    left -= chunk.length;
  }
  const [only] = taken;
  return taken.length === 1 && only !== undefined ? only : Buffer.concat(taken);
}
