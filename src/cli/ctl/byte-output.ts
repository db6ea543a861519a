// Writes bytes to a descriptor, waiting as long as its reader takes: what a sandbox writes goes through here, whole and in order. Node's own
// streams would hold up the whole program meanwhile, signals and input included.

import { write } from "node:fs";

export interface ByteOutput {
  /** Resolves once all of it was taken. @throws OutputClosed when nobody reads it any more. */
  write(bytes: Uint8Array | string): Promise<void>;
}

/** As a program that is ended by SIGPIPE: quiet. */
export class OutputClosed extends Error {
  override readonly name = "OutputClosed";
}

/** Between tries where somebody made the descriptor non-blocking. Milliseconds. */
const againMs = 5;

export function createByteOutput(fd: number): ByteOutput {
  let last: Promise<unknown> = Promise.resolve();

  async function writeAll(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const taken = await writeSome(fd, bytes, done);
      if (taken === 0) await new Promise((resolve) => setTimeout(resolve, againMs));
      done += taken;
    }
  }

  return {
    write(data) {
      const bytes = typeof data === "string" ? Buffer.from(data) : data;
      const written = last.then(() => writeAll(bytes));
      last = written.catch(() => {});
      return written;
    },
  };
}

function writeSome(fd: number, bytes: Uint8Array, from: number): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, bytes, from, bytes.length - from, null, (error, taken) => {
      if (error === null) resolve(taken);
      else if (error.code === "EAGAIN") resolve(0);
      else if (error.code === "EPIPE") reject(new OutputClosed("nobody reads the output"));
      else reject(error);
    });
  });
}
