// One connection to the toolbox of a sandbox, or to the keeper of a process: frames out and in, no faster than they are taken.

import type { Duplex } from "node:stream";
import type { Waiting } from "../engine/runtime.ts";
import { type Frame, garbled, mostFrameBytes } from "./protocol.ts";

export interface Connection {
  /** Resolves when more may be sent. What is sent to one that has ended is dropped: `receive` tells. */
  send(frame: Buffer): Promise<void>;
  /** The next frame; undefined once the other side has ended. One at a time. @throws SandboxdError TOOLBOX_UNAVAILABLE for what is no frame. */
  receive(): Promise<Frame | undefined>;
  /** Ends it at once. `receive` resolves to undefined then. */
  close(): void;
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

const headerBytes = 4;

export function connectionOver(socket: Duplex): Connection {
  let hasEnded = false;
  let wake = () => {};
  const ended = () => {
    hasEnded = true;
    wake();
  };
  socket.on("readable", () => wake());
  socket.on("end", ended);
  socket.on("close", ended);
  // how a connection broke tells nobody more than that it did
  socket.on("error", ended);
  let length: number | undefined;
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

  /** The next frame if all of it is here. */
  function next(): Frame | undefined {
    if (length === undefined) {
      const header = socket.read(headerBytes) as Buffer | null;
      if (header === null || header.length < headerBytes) return undefined;
      length = header.readUInt32LE(0);
      if (length < 1 || length > mostFrameBytes) {
        socket.destroy();
        throw garbled(`a frame of ${length} bytes`);
      }
    }
    const frame = socket.read(length) as Buffer | null;
    if (frame === null || frame.length < length) return undefined;
    length = undefined;
    return { type: frame.readUInt8(0), payload: frame.subarray(1) };
  }

  return {
    send(frame) {
      if (hasEnded || socket.destroyed || socket.write(frame)) return Promise.resolve();
      return untilDrained();
    },
    async receive() {
      for (;;) {
        const frame = next();
        if (frame !== undefined) return frame;
        if (hasEnded || socket.destroyed) return undefined;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    close() {
      socket.destroy();
    },
  };
}
