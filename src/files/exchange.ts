// One request to the toolbox and what comes back, with an end for all that can go wrong: a refusal, a silence, a stranger, a caller that is gone.

import type { Waiting } from "../engine/runtime.ts";
import { SandboxdError } from "../errors.ts";
import type { Connection, Link } from "../toolbox/connection.ts";
import { type Frame, frame, garbled } from "../toolbox/protocol.ts";
import { fileError, type Subject, type Told, toldOf } from "./errors.ts";

export interface Exchange {
  /** Resolves when the parts of a frame, or of several, are sent, or nothing more is taken; their memory may be used again then. @throws SandboxdError TOOLBOX_UNAVAILABLE where nothing moves. */
  send(parts: readonly Uint8Array[]): Promise<void>;
  /** The next frame. One at a time. @throws SandboxdError what the toolbox says, or TOOLBOX_UNAVAILABLE. */
  receive(silence?: Silence): Promise<Frame>;
  /** This frame is done with, and its memory may be used for another. */
  release(frame: Frame): void;
  /** As receive, and it must be of this type. */
  expect(type: number, silence?: Silence): Promise<Frame>;
  /** The same, not waited for any longer than that. @throws SandboxdError TOOLBOX_UNAVAILABLE */
  within<T>(next: Promise<T>, silence: Silence): Promise<T>;
  close(): void;
}

/** How long the inside may take for its next word: for one step, for many, or for ever. */
export type Silence = keyof typeof mostSilenceMs;

const mostSilenceMs = {
  step: 60_000,
  /** A large tree is removed, or a large file synced to a slow disk. */
  work: 600_000,
  any: undefined,
} as const;

export interface ExchangeOptions extends Waiting {
  readonly subject: Subject;
  /** What an ERROR means here. Default: as fileError. */
  readonly explain?: (told: Told) => SandboxdError;
}

/** Sends the request. @throws as Link.open */
export async function openExchange(
  link: Link,
  sandboxId: string,
  request: Buffer,
  { signal, subject, explain = (told) => fileError(told, subject) }: ExchangeOptions,
): Promise<Exchange> {
  signal?.throwIfAborted();
  const connection = await link.open(sandboxId, signal === undefined ? {} : { signal });
  const onAbort = () => connection.close();
  signal?.addEventListener("abort", onAbort, { once: true });
  // it may have been aborted while it was opened
  if (signal?.aborted) connection.close();
  void connection.send(request);

  const self: Exchange = {
    send: (parts) => unlessSilent(connection, connection.sendOut(parts), mostSilenceMs.step),
    release: (frame) => connection.release(frame),
    async receive(silence = "step") {
      const next =
        connection.received() ??
        (await unlessSilent(connection, connection.receive(), mostSilenceMs[silence]));
      signal?.throwIfAborted();
      if (next === undefined) throw endedEarly();
      if (next.type === frame.error) throw explain(toldOf(next.payload));
      return next;
    },
    async expect(type, silence) {
      const next = await self.receive(silence);
      if (next.type !== type) throw garbled(`a frame of type ${next.type}`);
      return next;
    },
    within: (next, silence) => unlessSilent(connection, next, mostSilenceMs[silence]),
    close() {
      signal?.removeEventListener("abort", onAbort);
      connection.close();
    },
  };
  return self;
}

/** For one request: closed when `use` is over, however it ends. */
export async function exchanging<T>(
  link: Link,
  sandboxId: string,
  request: Buffer,
  options: ExchangeOptions,
  use: (exchange: Exchange) => Promise<T>,
): Promise<T> {
  const exchange = await openExchange(link, sandboxId, request, options);
  try {
    return await use(exchange);
  } finally {
    exchange.close();
  }
}

async function unlessSilent<T>(
  connection: Connection,
  next: Promise<T>,
  mostMs: number | undefined,
): Promise<T> {
  if (mostMs === undefined) return next;
  let timer: NodeJS.Timeout | undefined;
  const silent = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(
        new SandboxdError("TOOLBOX_UNAVAILABLE", `nothing came from inside of the sandbox for ${mostMs} ms`, {
          hint: "it may be paused, or out of CPU or disk throughput",
        }),
      );
      connection.close();
    }, mostMs);
  });
  try {
    return await Promise.race([next, silent]);
  } finally {
    clearTimeout(timer);
  }
}

function endedEarly(): SandboxdError {
  return new SandboxdError("TOOLBOX_UNAVAILABLE", "the toolbox ended before its work was done", {
    hint: "the sandbox was stopped, or is at its memory limit",
  });
}
