// Cuts a schedule that violates something down to what it takes: the steps without which it would not.

import type { Schedule, Step } from "./schedule.ts";

/** Delta debugging (Zeller, "Yesterday, my program worked. Today, it does not. Why?", 1999), on the list of steps. */
export async function shrink(
  schedule: Schedule,
  isViolated: (candidate: Schedule) => Promise<boolean>,
): Promise<Schedule> {
  let { steps } = schedule;
  const holds = (candidate: readonly Step[]) => isViolated({ ...schedule, steps: candidate });
  for (let size = Math.ceil(steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < steps.length; ) {
      const without = [...steps.slice(0, from), ...steps.slice(from + size)];
      if (await holds(without)) steps = without;
      else from += size;
    }
  }
  // what remains, as close together as it can be
  for (const index of steps.keys()) {
    const hasten = (afterMs: number) => steps.map((step, at) => (at === index ? { ...step, afterMs } : step));
    if (await holds(hasten(0))) steps = hasten(0);
  }
  return { ...schedule, steps };
}
