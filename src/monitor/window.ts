// Condenses the samples of a window into what people and schedulers ask: averages, peaks, and how often a limit
// was met.
import { column } from "./sample-row.ts";

/** What one sandbox did between two moments. Rates come from counters and monotonic time; none is ever negative. */
export interface WindowSummary {
  /** Time of the first and the last sample. Unit: milliseconds of the monotonic clock. */
  readonly fromMonotonicMs: number;
  readonly toMonotonicMs: number;
  /** How many samples it is made from. With one there are levels but no rates: those are 0. */
  readonly samples: number;
  readonly cpu: {
    /** Unit: millicores. */
    readonly averageMillis: number;
    /** Highest between two neighbouring samples. Unit: millicores. */
    readonly maxMillis: number;
    /** Between the last two samples. Unit: millicores. */
    readonly latestMillis: number;
    /** Share of enforcement periods in which the limit was reached. Bounds: 0 to 1. */
    readonly throttledShare: number;
    /** Unit: microseconds, summed over CPUs. */
    readonly throttledUsec: number;
  };
  readonly memory: {
    /** Plain mean of the samples. Unit: bytes. */
    readonly averageWorkingSetBytes: number;
    readonly maxWorkingSetBytes: number;
    readonly maxUsageBytes: number;
    /** In the window, as of SandboxSample. */
    readonly oomEvents: number;
    readonly oomKills: number;
    readonly limitHits: number;
  };
  readonly pids: {
    readonly max: number;
    /** In the window. */
    readonly refusedForks: number;
  };
  /** Absent where no sample has block I/O. */
  readonly blockIo?: { readonly read: Throughput; readonly write: Throughput };
  /** Absent where no sample has a network. */
  readonly network?: { readonly rx: Throughput; readonly tx: Throughput };
}

/** Bytes that went one way. */
export interface Throughput {
  /** In the window. */
  readonly bytes: number;
  readonly averageBytesPerSecond: number;
  /** Highest between two neighbouring samples. */
  readonly maxBytesPerSecond: number;
}

/** How much a counter rose between its readings, and how fast. */
interface Rise {
  readonly total: number;
  readonly averagePerMs: number;
  readonly maxPerMs: number;
  readonly latestPerMs: number;
}

/**
 * Summarizes `count` rows (1 or more), of which the `index`th starts at `at(index)`, in order of time.
 */
export function summarize(rows: Float64Array, count: number, at: (index: number) => number): WindowSummary {
  const value = (index: number, offset: number): number => rows[at(index) + offset] as number;
  const rise = (offset: number): Rise => riseOf(count, value, offset);
  const level = (offset: number): { max: number; average: number } => levelOf(count, value, offset);
  const has = (offset: number): boolean => !Number.isNaN(value(count - 1, offset));
  const throughput = (offset: number): Throughput => {
    const { total, averagePerMs, maxPerMs } = rise(offset);
    return {
      bytes: total,
      averageBytesPerSecond: Math.round(averagePerMs * 1000),
      maxBytesPerSecond: Math.round(maxPerMs * 1000),
    };
  };
  // microseconds of CPU per millisecond are millicores
  const cpu = rise(column.cpuUsageUsec);
  const periods = rise(column.cpuPeriods).total;
  const throttledPeriods = rise(column.cpuThrottledPeriods).total;
  const workingSet = level(column.memoryWorkingSetBytes);
  return {
    fromMonotonicMs: value(0, column.monotonicMs),
    toMonotonicMs: value(count - 1, column.monotonicMs),
    samples: count,
    cpu: {
      averageMillis: Math.round(cpu.averagePerMs),
      maxMillis: Math.round(cpu.maxPerMs),
      latestMillis: Math.round(cpu.latestPerMs),
      throttledShare: periods === 0 ? 0 : Math.min(1, throttledPeriods / periods),
      throttledUsec: rise(column.cpuThrottledUsec).total,
    },
    memory: {
      averageWorkingSetBytes: Math.round(workingSet.average),
      maxWorkingSetBytes: workingSet.max,
      maxUsageBytes: level(column.memoryUsageBytes).max,
      oomEvents: rise(column.memoryOomEvents).total,
      oomKills: rise(column.memoryOomKills).total,
      limitHits: rise(column.memoryLimitHits).total,
    },
    pids: { max: level(column.pidsCurrent).max, refusedForks: rise(column.pidsRefusedForks).total },
    ...(has(column.blockReadBytes)
      ? { blockIo: { read: throughput(column.blockReadBytes), write: throughput(column.blockWriteBytes) } }
      : undefined),
    ...(has(column.rxBytes)
      ? { network: { rx: throughput(column.rxBytes), tx: throughput(column.txBytes) } }
      : undefined),
  };
}

type Values = (index: number, offset: number) => number;

function riseOf(count: number, value: Values, offset: number): Rise {
  let total = 0;
  let elapsedMs = 0;
  let maxPerMs = 0;
  let latestPerMs = 0;
  for (let index = 1; index < count; index++) {
    const rose = increase(value(index - 1, offset), value(index, offset));
    const tookMs = value(index, column.monotonicMs) - value(index - 1, column.monotonicMs);
    latestPerMs = rose / tookMs;
    maxPerMs = Math.max(maxPerMs, latestPerMs);
    total += rose;
    elapsedMs += tookMs;
  }
  return { total, averagePerMs: elapsedMs === 0 ? 0 : total / elapsedMs, maxPerMs, latestPerMs };
}

/**
 * How much a rising counter rose. A counter that fell started again from 0 (the sandbox was started again), so its
 * value is what it rose by since, as Prometheus counts it. An absent reading is no rise.
 */
export function increase(before: number, after: number): number {
  if (Number.isNaN(before) || Number.isNaN(after)) {
    return 0;
  }
  return after >= before ? after - before : after;
}

function levelOf(count: number, value: Values, offset: number): { max: number; average: number } {
  let max = 0;
  let sum = 0;
  for (let index = 0; index < count; index++) {
    const level = value(index, offset);
    max = Math.max(max, level);
    sum += level;
  }
  return { max, average: sum / count };
}
