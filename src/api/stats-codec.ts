// From samples to the contract's stats.

import { create } from "@bufbuild/protobuf";
import {
  type HostStats,
  HostStatsSchema,
  type SandboxStats,
  SandboxStatsSchema,
  type SandboxStatsSummary,
  SandboxStatsSummarySchema,
} from "../../gen/sandboxd/v1/stats_pb.ts";
import type { Pressure } from "../monitor/host-figures.ts";
import type { HostSample } from "../monitor/host-sampler.ts";
import type { SandboxSample } from "../monitor/sample.ts";
import type { WindowSummary } from "../monitor/window.ts";
import type { Metered } from "../tenant/metering.ts";
import { durationOf, timestampOf } from "./time-codec.ts";

const big = (value: number | undefined) => BigInt(Math.round(value ?? 0));

/** What was used, up to when it was last written. */
export function usageOf({ timeMs, runningMs, memoryByteSeconds, ...usage }: Metered) {
  return {
    time: timestampOf(timeMs),
    cpuUsageUsec: big(usage.cpuUsageUsec),
    memoryByteSeconds,
    blockReadBytes: big(usage.blockReadBytes),
    blockWriteBytes: big(usage.blockWriteBytes),
    runningTime: durationOf(Math.round(runningMs)),
    diskByteSeconds: usage.diskByteSeconds ?? 0,
    networkReceiveBytes: big(usage.networkReceiveBytes ?? 0),
    networkTransmitBytes: big(usage.networkTransmitBytes ?? 0),
  };
}

/** `cpuUsageMillis` is the use since the sample before, which a sample alone does not tell. */
export function statsOf(
  sandboxId: string,
  sample: SandboxSample,
  cpuUsageMillis: number,
  usage: Metered | undefined,
): SandboxStats {
  const { cpu, memory, pids, blockIo, network } = sample;
  return create(SandboxStatsSchema, {
    sandboxId,
    time: timestampOf(sample.wallMs),
    cpuUsageUsec: big(cpu.usageUsec),
    cpuUsageMillis: big(cpuUsageMillis),
    cpuPeriods: big(cpu.periods),
    cpuThrottledPeriods: big(cpu.throttledPeriods),
    cpuThrottledUsec: big(cpu.throttledUsec),
    memoryUsageBytes: big(memory.usageBytes),
    memoryWorkingSetBytes: big(memory.workingSetBytes),
    memoryLimitBytes: big(memory.limitBytes),
    oomKills: big(memory.oomKills),
    pids: big(pids.current),
    pidsLimit: big(pids.limit),
    pidsRefused: big(pids.refusedForks),
    blockReadBytes: big(blockIo?.readBytes),
    blockWriteBytes: big(blockIo?.writeBytes),
    blockReadOperations: big(blockIo?.readOperations),
    blockWriteOperations: big(blockIo?.writeOperations),
    ...(network === undefined ? {} : { network: networkOf(network) }),
    ...(usage === undefined ? {} : { usage: usageOf(usage) }),
  });
}

export function summaryOf(summary: WindowSummary): SandboxStatsSummary {
  return create(SandboxStatsSummarySchema, {
    window: durationOf(summary.toMonotonicMs - summary.fromMonotonicMs),
    samples: big(summary.samples),
    cpuUsageMillisAverage: big(summary.cpu.averageMillis),
    cpuUsageMillisMax: big(summary.cpu.maxMillis),
    cpuThrottledRatio: summary.cpu.throttledShare,
    memoryWorkingSetBytesAverage: big(summary.memory.averageWorkingSetBytes),
    memoryWorkingSetBytesMax: big(summary.memory.maxWorkingSetBytes),
    pidsMax: big(summary.pids.max),
  });
}

export function hostStatsOf(sample: HostSample): HostStats {
  return create(HostStatsSchema, {
    time: timestampOf(sample.wallMs),
    cpuUsageMillis: big(sample.cpu.usageMillis),
    memoryTotalBytes: big(sample.memory.totalBytes),
    memoryAvailableBytes: big(sample.memory.availableBytes),
    load1: sample.load.load1,
    load5: sample.load.load5,
    load15: sample.load.load15,
    ...pressureField("cpuPressure", sample.pressure.cpu),
    ...pressureField("memoryPressure", sample.pressure.memory),
    ...pressureField("ioPressure", sample.pressure.io),
    disks: sample.disks.map((disk) => ({
      path: disk.path,
      totalBytes: big(disk.space?.totalBytes),
      availableBytes: big(disk.space?.availableBytes),
      totalInodes: big(disk.space?.totalInodes),
      availableInodes: big(disk.space?.availableInodes),
    })),
    network: networkOf(sample.network),
    pids: big(sample.pids.current),
    pidsLimit: big(sample.pids.limit),
  });
}

interface Traffic {
  readonly rxBytes: number;
  readonly txBytes: number;
  readonly rxPackets: number;
  readonly txPackets: number;
}

function networkOf(traffic: Traffic) {
  return {
    receiveBytes: big(traffic.rxBytes),
    transmitBytes: big(traffic.txBytes),
    receivePackets: big(traffic.rxPackets),
    transmitPackets: big(traffic.txPackets),
  };
}

function pressureField<K extends string>(key: K, pressure: Pressure | undefined) {
  if (pressure === undefined) return {};
  const { some, full } = pressure;
  const value = {
    someAvg10: some.avg10,
    someAvg60: some.avg60,
    fullAvg10: full?.avg10 ?? 0,
    fullAvg60: full?.avg60 ?? 0,
  };
  return { [key]: value } as Record<K, typeof value>;
}
