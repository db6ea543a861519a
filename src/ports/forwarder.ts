// Connections to ports, through the forwarder inside of the sandbox, which is started where none runs. Whatever is said there is a stranger's.

import type { Waiting } from "../engine/runtime.ts";
import type { SandboxdError } from "../errors.ts";
import { toldOf } from "../files/errors.ts";
import type { Connection, PortLink } from "../toolbox/connection.ts";
import { type Frame, frame, garbled, request } from "../toolbox/protocol.ts";
import { orAborted } from "../waiting.ts";
import {
  brokenOff,
  nobodyListens,
  type Port,
  portUnreachable,
  tooManyConnections,
  withoutForwarder,
} from "./refusals.ts";

/** Bytes both ways, each of which ends by itself. */
export interface PortConnection {
  /** Resolves when more may be sent. @throws SandboxdError PORT_UNREACHABLE once it is broken. */
  send(bytes: Uint8Array): Promise<void>;
  /** Sends no more. The other direction goes on. */
  end(): void;
  /** What comes next; undefined at its end. One at a time. @throws SandboxdError PORT_UNREACHABLE, TOOLBOX_UNAVAILABLE. */
  receive(): Promise<Buffer | undefined>;
  /** Nobody looks at what was received any more: its memory may be used for what comes. */
  release(bytes: Buffer): void;
  /**
   * Lets go of it; breaks it off for the program inside, unless both directions have ended. Closed already is success. `why` is what
   * who still uses it is told.
   */
  close(why?: SandboxdError): void;
}

export interface Forwarders {
  /** @throws SandboxdError PORT_UNREACHABLE, and as Link.open. */
  connect(port: Port, options?: Waiting): Promise<PortConnection>;
}

/** Without connections a forwarder ends after that time. */
const defaultIdleMs = 60_000;

/** One that has just ended, or is ended from inside, is replaced so often. */
const mostTries = 4;

export interface ForwardersOptions {
  readonly link: PortLink;
  readonly idleMs?: number;
}

export function createForwarders({ link, idleMs = defaultIdleMs }: ForwardersOptions): Forwarders {
  const starts = new Map<string, Promise<void>>();

  /** One at a time of a sandbox; who comes meanwhile waits for the same. */
  function start(sandboxId: string): Promise<void> {
    const known = starts.get(sandboxId);
    if (known !== undefined) return known;
    const started = startForwarder(link, sandboxId, idleMs).finally(() => starts.delete(sandboxId));
    starts.set(sandboxId, started);
    return started;
  }

  return {
    async connect(port, waiting = {}) {
      for (let tries = 0; tries < mostTries; tries += 1) {
        const connection = await link.openForwarder(port.sandboxId, waiting);
        if (connection === undefined) {
          await orAborted(start(port.sandboxId), waiting.signal);
          continue;
        }
        const answer = await asked(connection, port, waiting);
        if (answer?.type === frame.ready) return portConnection(connection, port);
        connection.close();
        // otherwise it has ended since it was found
        if (answer !== undefined) throw refusalOf(answer, port);
      }
      throw withoutForwarder(port.sandboxId, "it ends at once");
    },
  };
}

async function startForwarder(link: PortLink, sandboxId: string, idleMs: number): Promise<void> {
  const connection = await link.open(sandboxId);
  try {
    void connection.send(request().u32(idleMs).frame(frame.forward));
    const answer = await connection.receive();
    if (answer?.type === frame.ready) return;
    if (answer?.type !== frame.error) throw withoutForwarder(sandboxId, "it ended before it served");
    const { errno } = toldOf(answer.payload);
    // another has just been started
    if (errno !== "EEXIST") throw withoutForwarder(sandboxId, errno);
  } finally {
    connection.close();
  }
}

/** The first answer; undefined if there is none. */
async function asked(
  connection: Connection,
  { port }: Port,
  { signal }: Waiting,
): Promise<Frame | undefined> {
  const onAbort = () => connection.close();
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted) onAbort();
  try {
    void connection.send(request().u16(port).frame(frame.connect));
    const answer = await connection.receive();
    signal?.throwIfAborted();
    return answer;
  } catch (error) {
    connection.close();
    throw error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

function refusalOf({ type, payload }: Frame, port: Port): SandboxdError {
  if (type !== frame.error) return garbled(`a frame of type ${type} from the forwarder`);
  const { errno, operation } = toldOf(payload);
  if (errno === "ECONNREFUSED") return nobodyListens(port);
  if (operation === "connections") return tooManyConnections(mostOfForwarder, port.sandboxId);
  return portUnreachable(port, errno);
}

/** Its own bound; fewer where the sandbox may open fewer files. */
const mostOfForwarder = 1_024;

const headerBytes = 5;
/** The allocator takes blocks of 32 KiB and more from the kernel each time. */
const pieceBytes = 32_000 - headerBytes;

function dataFrame(bytes: Uint8Array): Buffer {
  const whole = Buffer.allocUnsafe(headerBytes + bytes.length);
  whole.writeUInt32LE(bytes.length + 1);
  whole.writeUInt8(frame.data, 4);
  whole.set(bytes, headerBytes);
  return whole;
}

const endFrame = Buffer.from([1, 0, 0, 0, frame.eof]);

function portConnection(connection: Connection, port: Port): PortConnection {
  let hasReceivedAll = false;
  let hasSentAll = false;
  let isClosed = false;
  let failure: SandboxdError | undefined;

  function fail(error: SandboxdError): SandboxdError {
    failure ??= error;
    connection.close();
    return failure;
  }

  function bytesOf(next: Frame | undefined): Buffer | undefined {
    if (next === undefined) throw fail(brokenOff(port));
    switch (next.type) {
      case frame.data:
        return next.payload;
      case frame.eof:
        hasReceivedAll = true;
        void watchEnd();
        return undefined;
      case frame.error:
        throw fail(brokenOff(port, toldOf(next.payload).errno));
      default:
        throw fail(garbled(`a frame of type ${next.type} from the forwarder`));
    }
  }

  /** What comes after the end is how the other direction broke, if it did. */
  async function watchEnd(): Promise<void> {
    const next = await connection.receive().catch(() => undefined);
    if (hasSentAll && next === undefined) return;
    fail(brokenOff(port, next?.type === frame.error ? toldOf(next.payload).errno : undefined));
  }

  return {
    async send(bytes) {
      for (let from = 0; from < bytes.length; from += pieceBytes) {
        if (failure !== undefined) throw failure;
        await connection.send(dataFrame(bytes.subarray(from, from + pieceBytes)));
      }
      if (failure !== undefined) throw failure;
    },
    end() {
      if (hasSentAll) return;
      hasSentAll = true;
      void connection.send(endFrame);
    },
    async receive() {
      if (failure !== undefined) throw failure;
      if (hasReceivedAll) return undefined;
      return bytesOf(connection.received() ?? (await connection.receive()));
    },
    release: (payload) => connection.release({ type: frame.data, payload }),
    close(why) {
      if (isClosed) return;
      isClosed = true;
      if (hasReceivedAll && hasSentAll) connection.finish();
      else fail(why ?? brokenOff(port));
    },
  };
}
