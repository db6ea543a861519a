// One connection to the toolbox of a sandbox, or to the keeper of a process: frames out and in, no faster than they are taken.

import type { Duplex } from "node:stream";
import type { Waiting } from "../engine/runtime.ts";
import type { SandboxdError } from "../errors.ts";
import { type Frame, garbled, mostFrameBytes } from "./protocol.ts";

export interface Connection {
  /** Resolves when more may be sent. What is sent to one that has ended is dropped: `receive` tells. */
  send(frame: Buffer): Promise<void>;
  /** The same of a frame in parts, or of several; resolves when none of it is looked at any more, so that its memory may be used again. */
  sendOut(parts: readonly Uint8Array[]): Promise<void>;
  /** The next frame; undefined once the other side has ended. One at a time. @throws SandboxdError TOOLBOX_UNAVAILABLE for what is no frame. */
  receive(): Promise<Frame | undefined>;
  /** Nobody looks at this frame any more: the next may be put in its place. What comes in hundreds would else take new memory each time, which takes longer than all that is done with it. */
  release(frame: Frame): void;
  /** The next frame if it is here already, or undefined: what comes in hundreds is not waited for one by one. @throws as `receive`. */
  received(): Frame | undefined;
  /** Ends it at once. `receive` resolves to undefined then. */
  close(): void;
  /** Ends it once all that was sent is on its way. */
  finish(): void;
}

/** Where connections come from. */
export interface Link {
  /**
   * To the toolbox of a sandbox that runs; started if none answers. Each is for one request.
   *
   * @throws SandboxdError SANDBOX_NOT_FOUND, INVALID_STATE, TOOLBOX_UNAVAILABLE, PROCESS_LIMIT_REACHED, and what the engine says.
   */
  open(sandboxId: string, options?: Waiting): Promise<Connection>;
  /** To the keeper of a process; undefined if there is none. @throws as `open`. */
  openProcess(sandboxId: string, processId: string, options?: Waiting): Promise<Connection | undefined>;
}

/** With the way to the ports of sandboxes. */
export interface PortLink extends Link {
  /** To the forwarder of a sandbox; undefined if none runs. @throws as `open`. */
  openForwarder(sandboxId: string, options?: Waiting): Promise<Connection | undefined>;
}

const headerBytes = 4;
/** Of frames that are here and were not received yet; then no more is read. */
const mostQueuedBytes = 1024 * 1024;

/** `socket` may give out its data in a buffer that it uses again: all of it is copied at once. */
export function connectionOver(socket: Duplex): Connection {
  let hasEnded = false;
  let failure: SandboxdError | undefined;
  let wake = () => {};
  const queue: Buffer[] = [];
  let queuedBytes = 0;
  const places = createPlaces();
  const assembler = createAssembler(places.take, (frame) => {
    queue.push(frame);
    queuedBytes += frame.length;
    wake();
  });
  const ended = () => {
    hasEnded = true;
    wake();
  };
  socket.on("data", (chunk: Buffer) => {
    if (failure !== undefined) return;
    try {
      assembler(chunk);
    } catch (error) {
      failure = error as SandboxdError;
      socket.destroy();
      wake();
    }
    if (queuedBytes > mostQueuedBytes) socket.pause();
  });
  socket.on("end", ended);
  socket.on("close", ended);
  // how a connection broke tells nobody more than that it did
  socket.on("error", ended);
  /** What all who may not send more now wait for. */
  let drained: Promise<void> | undefined;

  function untilDrained(): Promise<void> {
    drained ??= new Promise((resolve) => {
      const done = () => {
        drained = undefined;
        socket.off("drain", done);
        socket.off("close", done);
        resolve();
      };
      socket.on("drain", done);
      socket.on("close", done);
    });
    return drained;
  }

  function next(): Frame | undefined {
    const frame = queue.shift();
    if (frame === undefined) return undefined;
    queuedBytes -= frame.length;
    if (queuedBytes <= mostQueuedBytes && socket.isPaused()) socket.resume();
    return { type: frame.readUInt8(0), payload: frame.subarray(1) };
  }

  return {
    send(frame) {
      if (hasEnded || socket.destroyed || socket.write(frame)) return Promise.resolve();
      return untilDrained();
    },
    sendOut(parts) {
      return new Promise((resolve) => {
        const last = parts.at(-1);
        if (last === undefined || hasEnded) return resolve();
        const done = () => {
          socket.off("close", done);
          resolve();
        };
        // not before its end was told: whoever sends on and on would else do so for ever
        socket.on("close", done);
        if (socket.destroyed) return;
        // together, since each that is sent on its own wakes who waits for it
        socket.cork();
        for (const part of parts.slice(0, -1)) socket.write(part);
        socket.write(last, (error) => {
          if (error === undefined || error === null) done();
        });
        socket.uncork();
      });
    },
    release: (frame) => places.give(frame.payload),
    async receive() {
      for (;;) {
        const frame = next();
        if (frame !== undefined) return frame;
        if (failure !== undefined) throw failure;
        if (hasEnded || socket.destroyed) return undefined;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    received: next,
    close() {
      socket.destroy();
    },
    finish() {
      socket.end(() => socket.destroy());
    },
  };
}

/** From this size on a frame has memory of its own, which can be released; smaller ones are made faster than kept. Unit: bytes. */
const leastKeptBytes = 32 * 1024;

/** Of one connection: what large frames that wait together take, and a few in the hands of who received them. */
const mostFreePlaces = 8;

/** Memory for frames. */
interface Places {
  take(length: number): Buffer;
  give(payload: Buffer): void;
}

/** Large ones have memory of their own, which is used again once it was given back. It has room for more, since no two frames are of one length. */
function createPlaces(): Places {
  const free: ArrayBufferLike[] = [];
  return {
    take(length) {
      if (length < leastKeptBytes) return Buffer.allocUnsafe(length);
      const at = free.findIndex(({ byteLength }) => byteLength >= length);
      const [place] = at < 0 ? [] : free.splice(at, 1);
      return Buffer.from(place ?? Buffer.allocUnsafeSlow(roomFor(length)).buffer, 0, length);
    },
    give({ buffer, length }) {
      if (length < leastKeptBytes) return;
      free.push(buffer);
      if (free.length <= mostFreePlaces) return;
      free.sort((one, other) => other.byteLength - one.byteLength);
      free.pop();
    },
  };
}

/** The next power of two, or what the largest frame needs. */
const roomFor = (length: number): number => Math.min(2 ** Math.ceil(Math.log2(length)), mostFrameBytes);

/** Puts frames together from pieces that are cut anywhere; each frame is in a place of its own, of its size. */
function createAssembler(
  take: (length: number) => Buffer,
  onFrame: (frame: Buffer) => void,
): (piece: Buffer) => void {
  const header = Buffer.alloc(headerBytes);
  /** Of the header, or of the frame once that is known. */
  let filled = 0;
  let frame: Buffer | undefined;

  return (piece) => {
    for (let at = 0; at < piece.length; ) {
      const target = frame ?? header;
      const copied = piece.copy(target, filled, at);
      at += copied;
      filled += copied;
      if (filled < target.length) return;
      filled = 0;
      if (frame === undefined) {
        const length = header.readUInt32LE(0);
        if (length < 1 || length > mostFrameBytes) throw garbled(`a frame of ${length} bytes`);
        frame = take(length);
      } else {
        onFrame(frame);
        frame = undefined;
      }
    }
  };
}
