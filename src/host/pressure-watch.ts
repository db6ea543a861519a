// Turns samples into the host's conditions of pressure, and refuses new sandboxes while one holds.

import { SandboxdError } from "../errors.ts";
import type { HostSample } from "../monitor/host-sampler.ts";
import type { Clock } from "../sandbox/clock.ts";
import { clockChange, lookAtClock } from "./clock-change.ts";
import type { Host } from "./host.ts";
import {
  type Course,
  follow,
  type Measure,
  measure,
  type PressureType,
  type Thresholds,
} from "./pressure.ts";

export interface PressureWatchOptions {
  readonly host: Pick<Host, "conditionIs" | "pressure">;
  readonly thresholds: Thresholds;
  readonly clock: Clock;
  /** Default: the wall clock. */
  readonly wallClockMs?: () => number;
}

export interface PressureWatch {
  /** A new sample was taken. */
  look(sample: HostSample): void;
  /** What a condition that holds is about, in the newest sample; undefined if it does not hold. */
  active(type: PressureType): Measure | undefined;
  /** @throws SandboxdError HOST_PRESSURE while the host is short of something. */
  assertNone(): void;
}

const retryDelayMs = 30_000;

const hints: Readonly<Record<PressureType, string>> = {
  MEMORY_PRESSURE: "see which process outside of sandboxes grows, or raise [capacity] reserve_memory_bytes",
  DISK_PRESSURE: "free space there: old images, logs, stopped sandboxes",
  INODE_PRESSURE: "remove files there: old images, stopped sandboxes",
  PID_PRESSURE: "see which process outside of sandboxes forks, or raise kernel.pid_max",
  STALLED: "lower [capacity] cpu_overcommit or memory_overcommit, or throttle block I/O",
};

export function createPressureWatch({
  host,
  thresholds,
  clock,
  wallClockMs = Date.now,
}: PressureWatchOptions): PressureWatch {
  const courses = new Map<PressureType, Course>();
  const measures = new Map<PressureType, Measure>();
  // from now on, so that no jump comes before the first look
  let clockLook = lookAtClock(undefined, wallClockMs(), clock.nowMs());

  function lookAtWallClock(nowMs: number): void {
    clockLook = lookAtClock(clockLook, wallClockMs(), nowMs);
    const change = clockChange(clockLook, nowMs);
    const message = change ?? "the wall clock runs as it should";
    host.conditionIs("CLOCK_CHANGED", change !== undefined, message, "check the time service of the machine");
  }

  return {
    look(sample) {
      const nowMs = clock.nowMs();
      for (const found of measure(sample, thresholds)) {
        const { type, evidence } = found;
        const course = follow(
          courses.get(type) ?? { active: false, sinceMs: nowMs, streak: 0 },
          found,
          thresholds,
          nowMs,
        );
        courses.set(type, course);
        measures.set(type, found);
        host.conditionIs(type, course.active, evidence, hints[type]);
      }
      lookAtWallClock(nowMs);
    },
    active: (type) => (courses.get(type)?.active === true ? measures.get(type) : undefined),
    assertNone() {
      const condition = host.pressure();
      if (condition === undefined) return;
      const { type, message } = condition;
      throw new SandboxdError(
        "HOST_PRESSURE",
        `the host takes no new sandboxes, it has ${type}: ${message}`,
        {
          hint: "use another host, or try again once the condition has ended",
          retryDelayMs,
          metadata: { condition: type },
        },
      );
    },
  };
}
