// Tells what this daemon does to containers from what somebody else does, for the engine's events tell nobody's name.

import type { EngineEvent, Runtime } from "../engine/runtime.ts";

/** Whose doing it is what the engine tells of containers. */
export interface Touches {
  /** Starts or ends a container by `send`, so that the engine's events of it are known to be ours. */
  byUs<T>(what: "start" | "end", containerId: string, send: () => Promise<T>): Promise<T>;
  /** Whether it tells of what this daemon does, or did, itself: that is looked at by whoever does it. */
  isOurs(event: Pick<EngineEvent, "containerId" | "action" | "timeNanos">): boolean;
  /** It was sent a signal, and not by this daemon. */
  signalled(containerId: string): void;
  /** Whether somebody sent it a signal since that was last forgotten: not this daemon, and not the engine as it goes down. */
  wasBySomeoneElse(containerId: string): Promise<boolean>;
  /** What was done to one run of the container says nothing about the next. */
  forget(containerId: string): void;
}

/** The runtime is asked whether the engine is going down. */
export function createTouches(runtime: Pick<Runtime, "isOpen">): Touches {
  /** Containers that this daemon is starting, and those that it is ending. */
  const ours = { start: new Set<string>(), end: new Set<string>() };
  /**
   * The end of the millisecond in which each was last started, by the wall clock, which is the engine's too: the event of a start
   * may come after its answer. Whoever else starts it has to see it end before, which is told.
   */
  const startedMs = new Map<string, number>();
  /** Containers that were sent a signal, or removed, by someone else: whether that was not the engine as it goes down. */
  const touched = new Map<string, Promise<boolean>>();
  let knocking: Promise<boolean> | undefined;

  return {
    async byUs(what, containerId, send) {
      ours[what].add(containerId);
      try {
        const sent = await send();
        if (what === "start") startedMs.set(containerId, Date.now() + 1);
        return sent;
      } finally {
        ours[what].delete(containerId);
      }
    },
    isOurs({ containerId, action, timeNanos }) {
      if (action === "kill") return ours.end.has(containerId);
      if (action !== "start") return false;
      return ours.start.has(containerId) || timeNanos <= BigInt(startedMs.get(containerId) ?? 0) * 1_000_000n;
    },
    signalled(containerId) {
      // the engine signals its containers as it goes down, as an operator might
      knocking ??= runtime.isOpen().finally(() => {
        knocking = undefined;
      });
      const looks = Promise.all([touched.get(containerId), knocking]);
      touched.set(
        containerId,
        looks.then((found) => found.includes(true)),
      );
    },
    wasBySomeoneElse: (containerId) => touched.get(containerId) ?? Promise.resolve(false),
    forget(containerId) {
      touched.delete(containerId);
      startedMs.delete(containerId);
    },
  };
}
