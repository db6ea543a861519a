// What happens in a schedule, in words for people.

import type { Log } from "../../src/observe/log.ts";
import type { Call } from "./ledger.ts";
import type { ModelContainer } from "./model-engine.ts";
import { labels } from "./model-host.ts";

export const idOf = (container: ModelContainer) => labels.decode(container.labels)?.id ?? "foreign";

/** Of an event's document. */
export function wordsOf(document: string): string {
  const { type, sandbox, ...rest } = JSON.parse(document);
  if (sandbox === undefined) return `${type} ${JSON.stringify(rest)}`;
  const { reason, message, from } = sandbox.transition;
  const what =
    type === "SANDBOX_STATE_CHANGED" || type === "SANDBOX_DELETED"
      ? `${from} to ${sandbox.state}: ${reason}, ${message}`
      : `${type} in ${sandbox.state}`;
  return `${sandbox.id} ${what} (wanted ${sandbox.wanted}, generation ${sandbox.generation})`;
}

export function wordsOfCall(action: Call["action"]): string {
  const { do: verb, id, ...rest } = action;
  return `${verb} ${id} ${JSON.stringify(rest)}`;
}

export const silent: Log = loggingTo(() => undefined);

/** Warnings and worse alone: the rest is told by commits. */
export function loggingTo(write: (fields: Readonly<Record<string, unknown>>, message: string) => void): Log {
  const log = {
    trace: () => undefined,
    debug: () => undefined,
    info: () => undefined,
    warn: write,
    error: write,
    fatal: write,
    child: () => log,
  } as unknown as Log;
  return log;
}
