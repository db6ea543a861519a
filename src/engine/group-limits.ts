// The limits of a parent cgroup in the kernel's own terms: read from its files, and compared with what is wanted.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { CgroupPaths } from "./cgroup-path.ts";
import { readBackLimits } from "./limits.ts";

/** What a group may use as a whole. What is undefined is not bounded there. */
export interface GroupLimits {
  /** Thousandths of a CPU, as a CFS quota over the kernel's usual period of 100 ms. The kernel takes no less than 10. */
  readonly cpuMillis?: number;
  /** What it weighs beside its siblings: 2 to 262144 shares, of which one CPU is worth 1024. */
  readonly cpuWeight: number;
  /** Where the kernel accounts for swap, nothing of it comes on top: on version 1 this is of both together, on 2 there is none. */
  readonly memoryBytes?: number;
  /** The kernel takes no more than 4194304. */
  readonly pids?: number;
}

export interface GroupState {
  /** As the kernel has them: bytes in whole pages, a weight of version 2 as the fewest shares that make it. */
  readonly limits: GroupLimits;
  /** Since the group was made. */
  readonly cpuUsageUsec: number;
  readonly memoryBytes: number;
  readonly pids: number;
}

/** What the kernel's files say. Unbounded is `Infinity`. */
export interface KernelLimits {
  readonly memoryBytes: number;
  /** Version 1: memory and swap together. Version 2: swap alone. Undefined where the kernel does not account for it. */
  readonly swapBytes: number | undefined;
  readonly cpuMillis: number;
  /** Version 1: shares. Version 2: weight. */
  readonly cpuWeight: number;
  readonly pids: number;
}

/** One limit that is not as wanted. */
export interface Change {
  readonly limit: keyof KernelLimits;
  readonly from: number;
  readonly to: number;
}

export interface GroupReading extends Omit<GroupState, "limits"> {
  readonly limits: KernelLimits;
}

/** Undefined if there is no such group, or if one of its controllers is absent: what is not accounted for, is not held. */
export function readLimits(paths: CgroupPaths): KernelLimits | undefined {
  // of version 1, where it bounds nothing
  return existsSync(paths.cpuacct) ? unlessGone(() => kernelLimits(paths)) : undefined;
}

/** With what is in use. Undefined as of `readLimits`. */
export function readGroup(paths: CgroupPaths): GroupReading | undefined {
  return unlessGone(() => {
    const limits = kernelLimits(paths);
    if (limits === undefined) return undefined;
    const isVersion1 = paths.version === 1;
    return {
      limits,
      cpuUsageUsec: isVersion1
        ? Math.floor(Number(read(paths.cpuacct, "cpuacct.usage")) / 1_000)
        : Number(/^usage_usec (\d+)$/m.exec(read(paths.cpu, "cpu.stat"))?.[1]),
      memoryBytes: Number(read(paths.memory, isVersion1 ? "memory.usage_in_bytes" : "memory.current")),
      pids: Number(read(paths.pids, "pids.current")),
    };
  });
}

function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

/** Whether a group was removed before its file was opened (ENOENT), or between that and its being read or written (ENODEV). */
export function isGone(error: unknown): boolean {
  return error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENODEV");
}

export function stateOf({ limits, ...figures }: GroupReading, version: 1 | 2): GroupState {
  const { memoryBytes, cpuMillis, cpuWeight, pids } = limits;
  return {
    ...figures,
    limits: {
      cpuWeight: version === 1 ? cpuWeight : sharesOf(cpuWeight),
      ...(memoryBytes === unbounded ? {} : { memoryBytes }),
      ...(cpuMillis === unbounded ? {} : { cpuMillis }),
      ...(pids === unbounded ? {} : { pids }),
    },
  };
}

/** A group that was just made. Its weight is whatever it is. */
export function freshLimits(version: 1 | 2): KernelLimits {
  return {
    memoryBytes: unbounded,
    swapBytes: version === 1 ? undefined : unbounded,
    cpuMillis: unbounded,
    cpuWeight: Number.NaN,
    pids: unbounded,
  };
}

/** What the kernel is to say. */
export function wantedLimits(limits: GroupLimits, version: 1 | 2): KernelLimits {
  const memoryBytes = limits.memoryBytes ?? unbounded;
  return {
    memoryBytes,
    swapBytes: version === 1 || memoryBytes === unbounded ? memoryBytes : 0,
    cpuMillis: limits.cpuMillis ?? unbounded,
    cpuWeight: version === 1 ? limits.cpuWeight : weightOf(limits.cpuWeight),
    pids: limits.pids ?? unbounded,
  };
}

/** What has to change, in the order in which the kernel takes it. Empty if all is as wanted. */
export function changesBetween(from: KernelLimits, to: KernelLimits): readonly Change[] {
  // on version 1 memory may never exceed memory and swap together, so the larger one of them is raised first
  const raisesBoth = from.swapBytes !== undefined && to.memoryBytes > from.swapBytes;
  const memory = ["memoryBytes", "swapBytes"] as const;
  const names = [...(raisesBoth ? memory.toReversed() : memory), "cpuMillis", "cpuWeight", "pids"] as const;
  return names.flatMap((limit) => {
    const [held, wanted] = [from[limit], to[limit]];
    if (held === undefined || wanted === undefined) return [];
    const isHeld = held === wanted || (memory.some((name) => name === limit) && isInPages(wanted, held));
    return isHeld ? [] : [{ limit, from: held, to: wanted }];
  });
}

/** Of version 2, 1 to 10000, from shares: the linear map of runc and systemd before they had others, which keeps proportions. */
export function weightOf(shares: number): number {
  return 1 + Math.floor(((shares - leastShares) * mostWeightAboveOne) / mostSharesAboveLeast);
}

/** The fewest shares that `weightOf` makes a weight of. */
export function sharesOf(weight: number): number {
  return leastShares + Math.ceil(((weight - 1) * mostSharesAboveLeast) / mostWeightAboveOne);
}

const unbounded = Number.POSITIVE_INFINITY;

const leastShares = 2;
const mostSharesAboveLeast = 262_142;
const mostWeightAboveOne = 9_999;

/** The kernel rounds memory limits down to pages; 64 KiB are the largest in use. */
const largestPageBytes = 65_536;

const isInPages = (wanted: number, held: number): boolean =>
  held <= wanted && held > wanted - largestPageBytes;

/** Version 1 has no word for no limit: it shows the most pages that fit into 63 bits. */
const leastUnboundedBytes = 2 ** 60;

function kernelLimits(paths: CgroupPaths): KernelLimits | undefined {
  const { memoryBytes, swapBytes, cpuWeight, pids, ...cpu } = readBackLimits({ paths });
  const { cpuQuotaMicros: quota, cpuPeriodMicros: period } = cpu;
  if (memoryBytes === undefined || quota === undefined || period === undefined) return undefined;
  if (cpuWeight === undefined || pids === undefined) return undefined;
  const bytes = (count: number) => (count >= leastUnboundedBytes ? unbounded : count);
  return {
    memoryBytes: bytes(memoryBytes),
    swapBytes: swapBytes === undefined ? undefined : bytes(swapBytes),
    cpuMillis: (quota * 1_000) / period,
    cpuWeight,
    pids,
  };
}

function read(directory: string, file: string): string {
  return readFileSync(join(directory, file), "utf8");
}
