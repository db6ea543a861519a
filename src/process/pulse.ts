// One timer for everything that is due at some time, as there are as many streams and processes as callers like.

import type { Clock } from "../sandbox/clock.ts";

/** Something that is to be done at a time, which it may move. */
export interface Due {
  /** Steady time; infinite while nothing is due. */
  dueMs: number;
  /** Its time has come. Moves it on. */
  due(nowMs: number): void;
}

export interface Pulse {
  add(one: Due): void;
  remove(one: Due): void;
  close(): void;
}

const periodMs = 200;

export function createPulse(clock: Pick<Clock, "nowMs">): Pulse {
  const all = new Set<Due>();
  let timer: NodeJS.Timeout | undefined;

  function look(): void {
    const nowMs = clock.nowMs();
    for (const one of all) if (one.dueMs <= nowMs) one.due(nowMs);
  }

  function stop(): void {
    clearInterval(timer);
    timer = undefined;
  }

  return {
    add(one) {
      all.add(one);
      timer ??= setInterval(look, periodMs);
    },
    remove(one) {
      all.delete(one);
      if (all.size === 0) stop();
    },
    close() {
      all.clear();
      stop();
    },
  };
}
