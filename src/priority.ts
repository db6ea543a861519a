// Who comes first where processors are short: the daemon before what it watches. It uses little, and with everybody's priority it waits
// behind busy sandboxes and the engine for each answer that it has to act on.

import { readdirSync } from "node:fs";
import { setPriority } from "node:os";

/** As nice(2): three times the share of a process with 0, and woken before it. */
const nice = -5;

/**
 * Gives this process its priority. Without the right to it, it has that of its service (`Nice=`) or everybody's. Each thread has its own, and the
 * first would wait for the collector's, so all of them get it; later ones have that of who starts them.
 */
export function comeFirst(): void {
  orAsItIs(() => {
    for (const thread of readdirSync("/proc/self/task")) setPriority(Number(thread), nice);
  });
}

/** Takes it back from a program that this process has started, which got it with everything else. */
export function comeWithOthers(pid: number | undefined): void {
  // 0 would be this process itself
  if (pid !== undefined) orAsItIs(() => setPriority(pid, 0));
}

function orAsItIs(change: () => void): void {
  try {
    change();
  } catch {
    // no right to it, or it has ended: nothing depends on it
  }
}
