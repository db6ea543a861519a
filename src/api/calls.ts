// The calls that a listener has open, so that it can stop: streams are told at once, the rest may finish first.
import type { ContextKey } from "@connectrpc/connect";
import { createContextKey } from "@connectrpc/connect";
import { SandboxdError } from "../errors.ts";
import { interruption } from "./error-translation.ts";

/** One open call, as its listener sees it. */
interface OpenCall {
  /** Whether it may last: anything but unary. */
  readonly stream: boolean;
  /** Ends it with this error. */
  end(error: SandboxdError): void;
}

/** The open calls of one listener. */
export interface Calls {
  /** Whether the listener is stopping. */
  readonly draining: boolean;
  /** Registers a call; the function returned takes it out again. Throws SHUTTING_DOWN while draining. */
  enter(call: OpenCall): () => void;
  /** From now on no new calls; streams end with SHUTTING_DOWN. */
  drain(): void;
  /** Ends what is still open with SHUTTING_DOWN. */
  endAll(): void;
}

const retryDelayMs = 1000;

/** No calls yet. */
export function createCalls(): Calls {
  const open = new Set<OpenCall>();
  let draining = false;
  function endThose(chosen: (call: OpenCall) => boolean): void {
    for (const call of [...open]) {
      if (chosen(call)) {
        call.end(shuttingDown());
      }
    }
  }
  return {
    get draining() {
      return draining;
    },
    enter(call) {
      if (draining) {
        throw shuttingDown();
      }
      open.add(call);
      return () => {
        open.delete(call);
      };
    },
    drain() {
      draining = true;
      endThose((call) => call.stream);
    },
    endAll() {
      draining = true;
      endThose(() => true);
    },
  };
}

function shuttingDown(): SandboxdError {
  return new SandboxdError("SHUTTING_DOWN", "The daemon is stopping.", {
    hint: "Try again; sandboxes keep running meanwhile.",
    retryDelayMs,
  });
}

/**
 * Why the signal of a call aborts that has ended, or whose caller has gone. Made once: every call has such an end, and an error
 * is made with its stack.
 */
export const callIsOver: SandboxdError = interruption(undefined);

/** The open calls of the listener that a call came in on. */
export const callsKey: ContextKey<Calls | undefined> = createContextKey<Calls | undefined>(undefined, {
  description: "the listener's calls",
});
