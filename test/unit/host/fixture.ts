// What the tests of the host share.

import type { HostSample } from "../../../src/monitor/host-sampler.ts";
import { createLog, type Log } from "../../../src/observe/log.ts";

/** Says nothing. */
export const silentLog: Log = createLog({ level: "fatal", destination: { write: () => undefined } });

/** A sample of a host that has enough of everything, with some of it changed. */
export function sampleOf(change: Partial<HostSample> = {}): HostSample {
  const space = {
    totalBytes: 2 ** 40,
    availableBytes: 2 ** 39,
    totalInodes: 1_000_000,
    availableInodes: 900_000,
    monotonicMs: 0,
  };
  const idle = { avg10: 0, avg60: 0, totalUsec: 0 };
  return {
    monotonicMs: 0,
    wallMs: 0,
    cpu: { busyUsec: 0, totalUsec: 0, cpus: 2, usageMillis: 0 },
    memory: { totalBytes: 2 ** 34, availableBytes: 2 ** 33, swapTotalBytes: 0, swapFreeBytes: 0 },
    load: { load1: 0, load5: 0, load15: 0 },
    pressure: {
      cpu: { some: idle },
      memory: { some: idle, full: idle },
      io: { some: idle, full: idle },
    },
    disks: [{ path: "/var/lib/sandboxd", space }],
    network: { rxBytes: 0, txBytes: 0, rxPackets: 0, txPackets: 0, rxDropped: 0, txDropped: 0 },
    pids: { current: 200, limit: 32_768 },
    ...change,
  };
}
