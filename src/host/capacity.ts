// What the machine has to share out, and what is kept from it.

import { readFileSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import type { Config } from "../config/config.ts";
import { reserveOf } from "../config/reserve.ts";
import type { Capacity } from "../sandbox/admission.ts";

/** Read once: a machine that grows is restarted or its daemon is. */
export function readCapacity(config: Config["capacity"]): Capacity {
  const pids = Math.min(number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max"));
  const capacity = {
    cpuMillis: availableParallelism() * 1_000,
    memoryBytes: totalmem(),
    pids,
    sandboxes: config.maxSandboxes,
  };
  const reserve = reserveOf(config, capacity);
  return {
    capacity,
    allocatable: {
      cpuMillis: Math.max(0, capacity.cpuMillis - reserve.cpuMillis),
      memoryBytes: Math.max(0, capacity.memoryBytes - reserve.memoryBytes),
      pids: Math.max(0, capacity.pids - reserve.pids),
      sandboxes: capacity.sandboxes,
    },
    cpuOvercommit: config.cpuOvercommit,
    memoryOvercommit: config.memoryOvercommit,
  };
}

/** Processors that this machine may ever have, from a list like "0-3" or "0,2-5". */
export function possibleCpus(): number {
  const last = readFileSync("/sys/devices/system/cpu/possible", "utf8").trim().split(/[,-]/).at(-1);
  return Number(last) + 1;
}

function number(file: string): number {
  return Number(readFileSync(file, "utf8"));
}
