// The input of one process: calls in the order in which they came, each sent once the one before is, never more ahead of the
// program than the keeper takes, and sent again over a new connection until it was taken.

import { SandboxdError } from "../errors.ts";
import { mostOutputBytes } from "../toolbox/protocol.ts";
import { ask } from "./keeper.ts";

/** Sent and not taken: the keeper holds no more. */
export const windowBytes = 262_144;

export interface InputCall {
  readonly data: Uint8Array;
  /** Where it begins in the input. Default: after what was accepted or is being sent. */
  readonly offset?: number;
  /** Whether the input ends after it. */
  readonly closes: boolean;
  /** Aborting takes back what was not sent. */
  readonly signal?: AbortSignal;
}

export interface Input {
  /**
   * Resolves, once all of it was taken, to the offset after it.
   *
   * @throws SandboxdError INVALID_STATE, INPUT_OUT_OF_ORDER, and the signal's reason.
   */
  send(call: InputCall): Promise<number>;
  /** A connection to the keeper is there, which tells where the input is. */
  attached(send: (frame: Buffer) => void, takenBytes: number, isOpen: boolean): void;
  detached(): void;
  taken(takenBytes: number, isOpen: boolean): void;
  /** Nothing will be taken any more. */
  end(): void;
  readonly takenBytes: number;
  readonly isOpen: boolean;
}

interface Call extends InputCall {
  /** Its bytes that were sent, or had been before it. Undefined before its turn. */
  sentBytes: number | undefined;
  endBytes: number;
  readonly resolve: (offset: number) => void;
  readonly reject: (error: unknown) => void;
}

export interface InputOptions {
  /** Whether it has one at all. */
  readonly isOpen: boolean;
  /** Why there is nothing to be sent to: `ended`, or its input is closed. */
  readonly refusal: (why: "ended" | "closed") => SandboxdError;
}

export function createInput(options: InputOptions): Input {
  /** In order; only the first is being sent. */
  const calls: Call[] = [];
  /** Sent as a whole, and not taken. */
  const awaiting = new Set<Call>();
  /** Sent and not taken. */
  let untaken: { readonly offset: number; readonly data: Uint8Array }[] = [];
  let takenBytes = 0;
  let sentBytes = 0;
  let isOpen = options.isOpen;
  let isClosing = false;
  let hasEnded = false;
  let transmit: ((frame: Buffer) => void) | undefined;

  /** Sends what there is room for. */
  function pump(): void {
    for (;;) {
      const [call] = calls;
      if (call === undefined || transmit === undefined || hasEnded) return;
      if (call.sentBytes === undefined && !begin(call)) {
        calls.shift();
        continue;
      }
      if (!sendRest(call, transmit)) return;
      calls.shift();
      awaiting.add(call);
      if (call.closes && !isClosing) {
        isClosing = true;
        transmit(ask.closeInput(sentBytes));
      }
    }
  }

  /** Its turn has come; false if it was refused. */
  function begin(call: Call): boolean {
    const offset = call.offset ?? sentBytes;
    call.endBytes = offset + call.data.length;
    if (offset > sentBytes) {
      call.reject(outOfOrder(offset, sentBytes));
      return false;
    }
    call.sentBytes = Math.min(sentBytes - offset, call.data.length);
    if (isClosing && call.sentBytes < call.data.length) {
      call.reject(options.refusal("closed"));
      return false;
    }
    return true;
  }

  /** Whether all of it was sent. */
  function sendRest(call: Call, send: (frame: Buffer) => void): boolean {
    for (;;) {
      const from = call.sentBytes ?? 0;
      const leftBytes = call.data.length - from;
      if (leftBytes === 0) return true;
      const roomBytes = windowBytes - (sentBytes - takenBytes);
      const size = Math.min(leftBytes, roomBytes, mostOutputBytes);
      if (size <= 0) return false;
      const data = call.data.subarray(from, from + size);
      send(ask.input(sentBytes, data));
      untaken.push({ offset: sentBytes, data });
      sentBytes += size;
      call.sentBytes = from + size;
    }
  }

  function settle(): void {
    for (const call of awaiting) {
      if (call.endBytes > takenBytes || (call.closes && isOpen)) continue;
      awaiting.delete(call);
      call.resolve(takenBytes);
    }
    if (isOpen && !hasEnded) return;
    const error = () => options.refusal(hasEnded ? "ended" : "closed");
    for (const call of [...awaiting, ...calls.splice(0)]) call.reject(error());
    awaiting.clear();
    untaken = [];
  }

  function forget(call: Call): void {
    const index = calls.indexOf(call);
    if (index >= 0) calls.splice(index, 1);
    awaiting.delete(call);
    pump();
  }

  return {
    send(asked) {
      const { signal } = asked;
      return new Promise<number>((resolve, reject) => {
        signal?.throwIfAborted();
        const isNothing =
          asked.data.length === 0 || (asked.offset ?? takenBytes) + asked.data.length <= takenBytes;
        if (hasEnded) throw options.refusal("ended");
        if (!isOpen) {
          // what was taken, or closed, already is success
          if (isNothing && (asked.closes || asked.data.length > 0)) resolve(takenBytes);
          else reject(options.refusal("closed"));
          return;
        }
        const over = () => signal?.removeEventListener("abort", onAbort);
        const call: Call = {
          ...asked,
          sentBytes: undefined,
          endBytes: 0,
          resolve(offset) {
            over();
            resolve(offset);
          },
          reject(error) {
            over();
            reject(error);
          },
        };
        const onAbort = () => {
          forget(call);
          reject(signal?.reason);
        };
        signal?.addEventListener("abort", onAbort, { once: true });
        calls.push(call);
        pump();
        settle();
      });
    },
    attached(send, taken, isInputOpen) {
      transmit = send;
      takenBytes = Math.max(takenBytes, taken);
      sentBytes = Math.max(sentBytes, takenBytes);
      isOpen = isInputOpen;
      untaken = untaken.filter(({ offset, data }) => offset + data.length > takenBytes);
      if (isOpen) {
        for (const { offset, data } of untaken) send(ask.input(offset, data));
        if (isClosing) send(ask.closeInput(sentBytes));
      }
      settle();
      pump();
    },
    detached() {
      transmit = undefined;
    },
    taken(bytes, isInputOpen) {
      takenBytes = Math.min(Math.max(takenBytes, bytes), sentBytes);
      isOpen = isOpen && isInputOpen;
      while (untaken[0] !== undefined && untaken[0].offset + untaken[0].data.length <= takenBytes)
        untaken.shift();
      settle();
      pump();
      settle();
    },
    end() {
      hasEnded = true;
      isOpen = false;
      transmit = undefined;
      settle();
    },
    get takenBytes() {
      return takenBytes;
    },
    get isOpen() {
      return isOpen && !isClosing;
    },
  };
}

function outOfOrder(offset: number, expected: number): SandboxdError {
  return new SandboxdError(
    "INPUT_OUT_OF_ORDER",
    `offset: ${offset} is beyond ${expected}, where the input is`,
    {
      hint: "send the bytes before first, or leave the offset out",
      metadata: { offset: String(offset), expected_offset: String(expected) },
    },
  );
}
