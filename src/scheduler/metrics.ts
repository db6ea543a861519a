// What the uplink counts; the daemon gives these numbers their names.

import type { Outcome } from "./outcome.ts";

export interface UplinkMetrics {
  /** A scheduler has accepted the host. */
  sessionLive(): void;
  /** A session, live or not, is over. */
  sessionEnded(outcome: Outcome["kind"]): void;
  /** One event was given to the transport; repeats count again. */
  eventTold(): void;
  /** Events that retention removed before the scheduler had them. */
  eventsLost(count: number): void;
  /** A stats batch was dropped because the scheduler read slowly. */
  statsDropped(): void;
}

export const noUplinkMetrics: UplinkMetrics = {
  sessionLive: () => undefined,
  sessionEnded: () => undefined,
  eventTold: () => undefined,
  eventsLost: () => undefined,
  statsDropped: () => undefined,
};
