// One call for each of several things: the failure of one is told, and does not keep the others.

import type { Context } from "./context.ts";
import { failureLines } from "./failure.ts";

/** Calls at a time. */
const atOnce = 16;

/** What was answered, in order, and 1 if any call failed. */
export async function forEach<Answer>(
  context: Context,
  ids: readonly string[],
  ask: (id: string) => Promise<Answer>,
): Promise<{ readonly found: readonly Answer[]; readonly exitCode: 0 | 1 }> {
  const found: Answer[] = [];
  let exitCode: 0 | 1 = 0;
  for (let at = 0; at < ids.length; at += atOnce) {
    for (const outcome of await Promise.allSettled(ids.slice(at, at + atOnce).map(ask))) {
      if (outcome.status === "fulfilled") {
        found.push(outcome.value);
        continue;
      }
      for (const line of failureLines(outcome.reason, context.host)) context.warn(line);
      exitCode = 1;
    }
  }
  return { found, exitCode };
}
