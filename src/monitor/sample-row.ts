// A sample as a row of numbers, so that hours of samples are one flat block of memory and no objects. Absent
// figures are NaN in the row and absent again in the sample.
import type { BlockIoCounters, NetworkCounters, SandboxSample } from "./sample.ts";

/** Numbers per row. */
export const rowLength = 29;

/** Columns that are read without making the sample again. */
export const column = {
  monotonicMs: 0,
  cpuUsageUsec: 2,
  cpuPeriods: 5,
  cpuThrottledPeriods: 6,
  cpuThrottledUsec: 7,
  memoryUsageBytes: 8,
  memoryWorkingSetBytes: 9,
  memoryOomEvents: 13,
  memoryOomKills: 14,
  memoryLimitHits: 15,
  pidsCurrent: 16,
  pidsRefusedForks: 18,
  blockReadBytes: 19,
  blockWriteBytes: 20,
  rxBytes: 23,
  txBytes: 24,
} as const;

/** Writes a sample to `rows` from index `at` on. */
export function writeRow(rows: Float64Array, at: number, sample: SandboxSample): void {
  const { cpu, memory, pids, blockIo, network } = sample;
  rows[at] = sample.monotonicMs;
  rows[at + 1] = sample.wallMs;
  rows[at + 2] = cpu.usageUsec;
  rows[at + 3] = cpu.userUsec;
  rows[at + 4] = cpu.systemUsec;
  rows[at + 5] = cpu.periods;
  rows[at + 6] = cpu.throttledPeriods;
  rows[at + 7] = cpu.throttledUsec;
  rows[at + 8] = memory.usageBytes;
  rows[at + 9] = memory.workingSetBytes;
  rows[at + 10] = memory.rssBytes;
  rows[at + 11] = memory.cacheBytes;
  rows[at + 12] = memory.limitBytes ?? Number.NaN;
  rows[at + 13] = memory.oomEvents;
  rows[at + 14] = memory.oomKills;
  rows[at + 15] = memory.limitHits;
  rows[at + 16] = pids.current;
  rows[at + 17] = pids.limit ?? Number.NaN;
  rows[at + 18] = pids.refusedForks;
  rows[at + 19] = blockIo?.readBytes ?? Number.NaN;
  rows[at + 20] = blockIo?.writeBytes ?? Number.NaN;
  rows[at + 21] = blockIo?.readOperations ?? Number.NaN;
  rows[at + 22] = blockIo?.writeOperations ?? Number.NaN;
  rows[at + 23] = network?.rxBytes ?? Number.NaN;
  rows[at + 24] = network?.txBytes ?? Number.NaN;
  rows[at + 25] = network?.rxPackets ?? Number.NaN;
  rows[at + 26] = network?.txPackets ?? Number.NaN;
  rows[at + 27] = network?.rxDropped ?? Number.NaN;
  rows[at + 28] = network?.txDropped ?? Number.NaN;
}

/** The sample that writeRow wrote at index `at`. */
export function readRow(rows: Float64Array, at: number): SandboxSample {
  const value = (offset: number): number => rows[at + offset] ?? 0;
  const limitBytes = value(12);
  const pidsLimit = value(17);
  const blockIo: BlockIoCounters = {
    readBytes: value(19),
    writeBytes: value(20),
    readOperations: value(21),
    writeOperations: value(22),
  };
  const network: NetworkCounters = {
    rxBytes: value(23),
    txBytes: value(24),
    rxPackets: value(25),
    txPackets: value(26),
    rxDropped: value(27),
    txDropped: value(28),
  };
  return {
    monotonicMs: value(0),
    wallMs: value(1),
    cpu: {
      usageUsec: value(2),
      userUsec: value(3),
      systemUsec: value(4),
      periods: value(5),
      throttledPeriods: value(6),
      throttledUsec: value(7),
    },
    memory: {
      usageBytes: value(8),
      workingSetBytes: value(9),
      rssBytes: value(10),
      cacheBytes: value(11),
      limitBytes: Number.isNaN(limitBytes) ? undefined : limitBytes,
      oomEvents: value(13),
      oomKills: value(14),
      limitHits: value(15),
    },
    pids: {
      current: value(16),
      limit: Number.isNaN(pidsLimit) ? undefined : pidsLimit,
      refusedForks: value(18),
    },
    blockIo: Number.isNaN(blockIo.readBytes) ? undefined : blockIo,
    network: Number.isNaN(network.rxBytes) ? undefined : network,
  };
}
