// What a process does, told in order and once, over as many connections as it takes.

import type { ProcessEvent } from "../../../../gen/sandboxd/v1/process_pb.ts";
import type { Context } from "../context.ts";
import { createRetry, endedEarly } from "../reconnect.ts";

interface Message {
  readonly event?: ProcessEvent | undefined;
}

export interface EventsOptions {
  /** A new stream. `after` is the last number that was seen; undefined while none was. */
  readonly open: (after: bigint | undefined) => AsyncIterable<Message>;
  readonly signal?: AbortSignal;
}

/** Ends with the event `exited`. Throws what cannot be mended by connecting again. */
export async function* processEvents(
  context: Pick<Context, "warn">,
  { open, signal }: EventsOptions,
): AsyncGenerator<ProcessEvent> {
  const retry = createRetry({ signal });
  let last: bigint | undefined;
  while (true) {
    try {
      for await (const { event } of open(last)) {
        if (retry.succeeded()) context.warn("sandboxctl: connected again");
        if (event === undefined || event.event.case === "keepalive") continue;
        if (event.event.case === "gap") {
          last = event.event.value.nextSequence - 1n;
        } else {
          if (last !== undefined && event.sequence <= last) continue;
          last = event.sequence;
        }
        yield event;
        if (event.event.case === "exited") return;
      }
      throw endedEarly();
    } catch (error) {
      if (!(await retry.after(error))) throw error;
      if (retry.isFirst()) context.warn("sandboxctl: the connection broke; trying again");
    }
  }
}
