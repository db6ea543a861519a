// Whether the host is short of something: functions of a sample, of the thresholds, and of what held before.

import type { Config } from "../config/config.ts";
import { formatSize } from "../config/unit.ts";
import type { Pressure as Stalls } from "../monitor/host-figures.ts";
import type { HostSample } from "../monitor/host-sampler.ts";
import type { ConditionType } from "../sandbox/repository.ts";

export type Thresholds = Config["pressure"];

/** Conditions that are made from samples. */
export const pressureTypes = [
  "MEMORY_PRESSURE",
  "DISK_PRESSURE",
  "INODE_PRESSURE",
  "PID_PRESSURE",
  "STALLED",
] as const satisfies readonly ConditionType[];

export type PressureType = (typeof pressureTypes)[number];

/** How what a condition is about stands in one sample. */
export interface Measure {
  readonly type: PressureType;
  /** Beyond the threshold at which the condition begins. */
  readonly isShort: boolean;
  /** Beyond the second threshold, at which it may end. Between the two nothing changes. */
  readonly isRelieved: boolean;
  /** The figure and the threshold, in words. */
  readonly evidence: string;
  /** Directories whose file systems are not relieved. */
  readonly directories: readonly string[];
}

/** What the sample tells. Absent is what it does not: a figure that the kernel or a file system has not given changes nothing. */
export function measure(sample: HostSample, thresholds: Thresholds): readonly Measure[] {
  const { recovery } = thresholds;
  const { memory, pids, pressure } = sample;
  const disks = sample.disks.flatMap(({ path, space }) => (space === undefined ? [] : [{ path, ...space }]));
  const measures = [
    worst("MEMORY_PRESSURE", [
      {
        left: memory.availableBytes,
        threshold: thresholds.memoryAvailable,
        recovery,
        words: `${mebibytes(memory.availableBytes)} of memory are available; the threshold is ${formatSize(thresholds.memoryAvailable)}`,
      },
    ]),
    worst(
      "DISK_PRESSURE",
      disks.map(({ path, availableBytes, totalBytes }) =>
        share(availableBytes, totalBytes, thresholds.diskAvailablePercent, recovery, `of ${path}`, path),
      ),
    ),
    worst(
      "INODE_PRESSURE",
      disks.map(({ path, availableInodes, totalInodes }) =>
        share(
          availableInodes,
          totalInodes,
          thresholds.inodesAvailablePercent,
          recovery,
          `of the inodes of ${path}`,
          path,
        ),
      ),
    ),
    worst("PID_PRESSURE", [
      share(
        pids.limit - pids.current,
        pids.limit,
        thresholds.pidsAvailablePercent,
        recovery,
        "of process ids",
      ),
    ]),
    worst("STALLED", [
      // "full" of the CPU means nothing for a whole machine, and its "some" is high wherever CPU is overcommitted
      stalls(pressure.cpu?.some, thresholds.stalledCpuPercent, recovery, "some task waited for a CPU"),
      stalls(pressure.memory?.full, thresholds.stalledPercent, recovery, "all tasks waited for memory"),
      stalls(pressure.io?.full, thresholds.stalledPercent, recovery, "all tasks waited for disks"),
    ]),
  ];
  return measures.filter((one) => one !== undefined);
}

/** One figure, that may not get below its threshold. */
interface Figure {
  readonly left: number;
  readonly threshold: number;
  readonly recovery: number;
  readonly words: string;
  /** Whose file system it is of. */
  readonly directory?: string;
}

/** The condition of several figures: short if one is, relieved once all are; what is told is the worst. */
function worst(type: PressureType, figures: readonly (Figure | undefined)[]): Measure | undefined {
  const known = figures.filter((figure) => figure !== undefined).filter(({ threshold }) => threshold > 0);
  const nearness = ({ left, threshold }: Figure) => left / threshold;
  const isRelieved = (figure: Figure) => nearness(figure) >= figure.recovery;
  const [told] = known.toSorted((a, b) => nearness(a) - nearness(b));
  if (told === undefined) return undefined;
  return {
    type,
    isShort: told.left < told.threshold,
    isRelieved: known.every(isRelieved),
    evidence: told.words,
    directories: known.flatMap((figure) => (isRelieved(figure) ? [] : (figure.directory ?? []))),
  };
}

/** Undefined where nothing is counted, as inodes on btrfs. */
function share(
  left: number,
  total: number,
  threshold: number,
  recovery: number,
  what: string,
  directory?: string,
): Figure | undefined {
  if (total <= 0) return undefined;
  const percent = (Math.max(0, left) / total) * 100;
  const words = `${rounded(percent)} % ${what} are free; the threshold is ${threshold} %`;
  return { left: percent, threshold, recovery, words, ...(directory === undefined ? {} : { directory }) };
}

/** Time that was not lost to waiting is what may not get short; it is relieved below the threshold divided by `recovery`. */
function stalls(
  stall: Stalls["some"] | undefined,
  threshold: number,
  recovery: number,
  what: string,
): Figure | undefined {
  if (stall === undefined || threshold >= 100) return undefined;
  const words = `${what} for ${rounded(stall.avg10)} % of the last 10 s; the threshold is ${threshold} %`;
  const left = 100 - threshold;
  const relieved = 100 - threshold / recovery;
  return { left: 100 - stall.avg10, threshold: left, recovery: relieved / left, words };
}

/** A condition as it has come so far. */
export interface Course {
  readonly active: boolean;
  /** When it last began or ended. Steady time. */
  readonly sinceMs: number;
  /** Samples in a row that spoke for a change. */
  readonly streak: number;
}

/** What one more sample makes of it. */
export function follow(
  { active, sinceMs, streak }: Course,
  { isShort, isRelieved }: Pick<Measure, "isShort" | "isRelieved">,
  { samples, minimumTimeMs }: Pick<Thresholds, "samples" | "minimumTimeMs">,
  nowMs: number,
): Course {
  if (active ? !isRelieved : !isShort) return { active, sinceMs, streak: 0 };
  const isHeld = active && nowMs - sinceMs < minimumTimeMs;
  return streak + 1 >= samples && !isHeld
    ? { active: !active, sinceMs: nowMs, streak: 0 }
    : { active, sinceMs, streak: streak + 1 };
}

const mebibytes = (bytes: number): string => `${Math.floor(bytes / 2 ** 20)}MiB`;

const rounded = (percent: number): number => Math.round(percent * 10) / 10;
