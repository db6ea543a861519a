// A connection to a program inside as a stream of Node's, for its HTTP client, and past it.

import { Duplex } from "node:stream";
import type { PortConnection } from "../ports/forwarder.ts";

/** The client copies what it is given once more: in pieces that the allocator has without asking the kernel each time. Unit: bytes. */
const copiedBytes = 32_000;

/** The connection is closed when the stream is destroyed. */
export class PortStream extends Duplex {
  readonly #connection: PortConnection;
  /** What was asked for and has not come. */
  #next: Promise<Buffer | undefined> | undefined;
  #isTaken = false;

  constructor(connection: PortConnection) {
    // a program that closes has answered
    super({ allowHalfOpen: false });
    this.#connection = connection;
  }

  /**
   * What comes from now on, past whoever reads the stream. A piece is there until the next is asked for: its memory is used again then. @throws
   * what breaks the connection.
   */
  rest(): AsyncIterator<Buffer, void, undefined> {
    this.#isTaken = true;
    return this.#pieces();
  }

  async *#pieces(): AsyncGenerator<Buffer, void, undefined> {
    for (;;) {
      const piece = await (this.#next ?? this.#connection.receive());
      this.#next = undefined;
      if (piece === undefined) return;
      yield piece;
      this.#connection.release(piece);
    }
  }

  override _read(): void {
    if (this.#isTaken) return;
    this.#next = this.#connection.receive();
    this.#next.then(
      (piece) => {
        if (this.#isTaken) return;
        this.#next = undefined;
        if (piece === undefined) this.push(null);
        else this.#give(piece);
      },
      (error: Error) => this.destroy(error),
    );
  }

  #give(piece: Buffer): void {
    // has memory that is not used again
    if (piece.length <= copiedBytes) return void this.push(piece);
    for (let at = 0; at < piece.length; at += copiedBytes)
      this.push(Buffer.from(piece.subarray(at, at + copiedBytes)));
    this.#connection.release(piece);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#connection.send(chunk).then(() => done(), done);
  }

  override _final(done: () => void): void {
    this.#connection.end();
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#connection.close();
    done(error);
  }

  // Node calls these of a socket without asking whether it has them
  setKeepAlive(): void {}
  setNoDelay(): void {}
  setTimeout(): void {}
  ref(): void {}
  unref(): void {}
}
