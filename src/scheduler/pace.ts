// How often the host reports: what the scheduler asks for, within the contract's bounds.

import type { Duration } from "@bufbuild/protobuf/wkt";
import type { Pace } from "../../gen/sandboxd/v1/scheduler_service_pb.ts";

/** Times between two reports. Unit: milliseconds. */
export interface Periods {
  readonly heartbeatMs: number;
  readonly statsMs: number;
}

/** What the contract promises a scheduler that asks for nothing. */
export const defaultPeriods: Periods = { heartbeatMs: 5_000, statsMs: 10_000 };

const bounds = {
  heartbeatMs: { min: 100, max: 5 * 60_000 },
  statsMs: { min: 1_000, max: 60 * 60_000 },
} as const;

/** An absent or zero period is the host's own, for an unset field must not mean the fastest pace there is. */
export function periodsOf(pace: Pace | undefined, own: Periods): Periods {
  return {
    heartbeatMs: periodMs(pace?.heartbeatPeriod, own.heartbeatMs, bounds.heartbeatMs),
    statsMs: periodMs(pace?.statsPeriod, own.statsMs, bounds.statsMs),
  };
}

function periodMs(
  asked: Duration | undefined,
  ownMs: number,
  { min, max }: { readonly min: number; readonly max: number },
): number {
  const askedMs = asked === undefined ? 0 : Number(asked.seconds) * 1_000 + asked.nanos / 1e6;
  return askedMs === 0 ? ownMs : Math.min(max, Math.max(min, askedMs));
}
