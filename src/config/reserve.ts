// What is kept from sandboxes where the configuration says nothing: by the size of the machine.

import type { Config } from "./config.ts";

/** What a machine has, or what is kept of it. */
export interface MachineAmounts {
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  readonly pids: number;
}

const mebibyte = 1024 ** 2;

/**
 * What to keep for the system. As configured; else, as Google keeps on its customers' own machines from the pods
 * of a node: 80 millicores and 1 % of the CPU; 330 MiB and 5 % of the memory, and 100 MiB at which it begins to
 * evict (https://cloud.google.com/anthos/clusters/docs/on-prem/1.15/how-to/resources-available-pods). Of process
 * ids a tenth, and at least 1000: an idle Debian with its engine has some 200, and kernel threads grow with the CPUs.
 * By default never more than half of the machine. Allocatable is the capacity less this.
 */
export function reserveOf(capacity: Config["capacity"], machine: MachineAmounts): MachineAmounts {
  const byDefault = (amount: number, whole: number) => Math.ceil(Math.min(amount, whole / 2));
  const { cpuMillis, memoryBytes, pids } = machine;
  return {
    cpuMillis: capacity.reserveCpuMillis ?? byDefault(80 + cpuMillis * 0.01, cpuMillis),
    memoryBytes: capacity.reserveMemoryBytes ?? byDefault(430 * mebibyte + memoryBytes * 0.05, memoryBytes),
    pids: capacity.reservePids ?? byDefault(Math.max(1_000, pids / 10), pids),
  };
}
