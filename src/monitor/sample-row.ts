// What a summary needs of a sample, as a row of numbers, so that minutes of samples are one flat block of memory and no
// objects. Absent figures are NaN.
import type { SandboxSample } from "./sample.ts";

/** Where each figure stands in its row. */
export const column = {
  monotonicMs: 0,
  cpuUsageUsec: 1,
  cpuPeriods: 2,
  cpuThrottledPeriods: 3,
  cpuThrottledUsec: 4,
  memoryUsageBytes: 5,
  memoryWorkingSetBytes: 6,
  memoryOomEvents: 7,
  memoryOomKills: 8,
  memoryLimitHits: 9,
  pidsCurrent: 10,
  pidsRefusedForks: 11,
  blockReadBytes: 12,
  blockWriteBytes: 13,
  rxBytes: 14,
  txBytes: 15,
} as const;

/** Numbers per row. */
export const rowLength = 16;

/** Writes a sample to `rows` from index `at` on. */
export function writeRow(rows: Float64Array, at: number, sample: SandboxSample): void {
  const { cpu, memory, pids, blockIo, network } = sample;
  rows[at + column.monotonicMs] = sample.monotonicMs;
  rows[at + column.cpuUsageUsec] = cpu.usageUsec;
  rows[at + column.cpuPeriods] = cpu.periods;
  rows[at + column.cpuThrottledPeriods] = cpu.throttledPeriods;
  rows[at + column.cpuThrottledUsec] = cpu.throttledUsec;
  rows[at + column.memoryUsageBytes] = memory.usageBytes;
  rows[at + column.memoryWorkingSetBytes] = memory.workingSetBytes;
  rows[at + column.memoryOomEvents] = memory.oomEvents;
  rows[at + column.memoryOomKills] = memory.oomKills;
  rows[at + column.memoryLimitHits] = memory.limitHits;
  rows[at + column.pidsCurrent] = pids.current;
  rows[at + column.pidsRefusedForks] = pids.refusedForks;
  rows[at + column.blockReadBytes] = blockIo?.readBytes ?? Number.NaN;
  rows[at + column.blockWriteBytes] = blockIo?.writeBytes ?? Number.NaN;
  rows[at + column.rxBytes] = network?.rxBytes ?? Number.NaN;
  rows[at + column.txBytes] = network?.txBytes ?? Number.NaN;
}
