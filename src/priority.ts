// Who comes first where processors are short: the daemon's thread before what it watches. It uses little, and with everybody's priority
// it waits behind busy sandboxes and the engine for each answer that it has to act on.

import { setPriority } from "node:os";

/** As nice(2): three times the share of a process with 0, and woken before it. */
const nice = -5;

/** Gives this thread its priority. Without the right to it, it has that of its service (`Nice=`) or everybody's. */
export function comeFirst(): void {
  orAsItIs(() => setPriority(nice));
}

/** Takes it back from a program that this thread has started, which got it with everything else. */
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
