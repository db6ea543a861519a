// The host's own figures out of /proc text: CPU, memory, load, pressure. Pure functions over bytes.
import { keysOf, nextLine, nextWord, numberAt, scanKeys } from "./bytes.ts";

const usecPerTick = 10_000;
const bytesPerKib = 1024;
const letterC = 99;
const letterP = 112;
const letterU = 117;

export interface HostCpuTimes {
  /** CPU time spent on anything but idling and waiting for I/O, stolen time included. Unit: microseconds; rising. */
  readonly busyUsec: number;
  /** busyUsec, idle and waiting. Unit: microseconds; rising. */
  readonly totalUsec: number;
  /** CPUs online. */
  readonly cpus: number;
}

/** Reads /proc/stat. */
export function parseCpuTimes(bytes: Uint8Array, end: number): HostCpuTimes {
  let at = nextWord(bytes, 0, end);
  const ticks: number[] = [];
  // user, nice, system, idle, iowait, irq, softirq, steal; guest time, which follows, is in user already
  for (let column = 0; column < 8; column++) {
    ticks.push(numberAt(bytes, at, end));
    at = nextWord(bytes, at, end);
  }
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = ticks;
  const busy = user + nice + system + irq + softirq + steal;
  let cpus = 0;
  for (let line = nextLine(bytes, 0, end); isCpuLine(bytes, line, end); line = nextLine(bytes, line, end)) {
    cpus++;
  }
  return {
    busyUsec: busy * usecPerTick,
    totalUsec: (busy + idle + iowait) * usecPerTick,
    cpus: Math.max(1, cpus),
  };
}

function isCpuLine(bytes: Uint8Array, at: number, end: number): boolean {
  return at < end && bytes[at] === letterC && bytes[at + 1] === letterP && bytes[at + 2] === letterU;
}

export interface HostMemory {
  /** Unit: bytes. */
  readonly totalBytes: number;
  /** What could be had without swapping, as the kernel estimates it. Unit: bytes. */
  readonly availableBytes: number;
  /** Unit: bytes. */
  readonly swapTotalBytes: number;
  /** Unit: bytes. */
  readonly swapFreeBytes: number;
}

const memoryKeys = keysOf("MemTotal:", "MemAvailable:", "SwapTotal:", "SwapFree:");
const memoryValues = new Float64Array(memoryKeys.length);

/** Reads /proc/meminfo. */
export function parseMemory(bytes: Uint8Array, end: number): HostMemory {
  scanKeys(bytes, end, memoryKeys, memoryValues);
  const [total = 0, available = 0, swapTotal = 0, swapFree = 0] = memoryValues;
  return {
    totalBytes: total * bytesPerKib,
    availableBytes: available * bytesPerKib,
    swapTotalBytes: swapTotal * bytesPerKib,
    swapFreeBytes: swapFree * bytesPerKib,
  };
}

export interface HostLoad {
  /** Tasks running or in uninterruptible sleep, averaged over 1, 5 and 15 minutes. */
  readonly load1: number;
  readonly load5: number;
  readonly load15: number;
  /** Processes and threads that exist. */
  readonly tasks: number;
}

/** Reads /proc/loadavg: "0.12 0.35 0.23 2/98 8229". */
export function parseLoad(text: string): HostLoad {
  const [load1, load5, load15, running] = text.split(" ");
  return {
    load1: amountIn(load1),
    load5: amountIn(load5),
    load15: amountIn(load15),
    tasks: amountIn(running?.split("/")[1]),
  };
}

/** Pressure stall information of one resource: how long tasks waited for it. */
export interface Pressure {
  readonly some: Stall;
  /** Absent for the CPU on kernels before 5.13. */
  readonly full?: Stall;
}

/** Time in which some, or all, tasks that could have run waited. */
export interface Stall {
  /** Share of the last 10 seconds. Unit: percent. */
  readonly avg10: number;
  /** Share of the last 60 seconds. Unit: percent. */
  readonly avg60: number;
  /** Unit: microseconds; rising. */
  readonly totalUsec: number;
}

/** Reads a file of /proc/pressure. */
export function parsePressure(text: string): Pressure {
  const full = stallIn(text, "full");
  return {
    some: stallIn(text, "some") ?? { avg10: 0, avg60: 0, totalUsec: 0 },
    ...(full === undefined ? undefined : { full }),
  };
}

function stallIn(text: string, kind: "some" | "full"): Stall | undefined {
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${kind} `));
  if (line === undefined) {
    return undefined;
  }
  const fields = new Map(line.split(" ").map((field) => field.split("=") as [string, string | undefined]));
  return {
    avg10: amountIn(fields.get("avg10")),
    avg60: amountIn(fields.get("avg60")),
    totalUsec: amountIn(fields.get("total")),
  };
}

function amountIn(text: string | undefined): number {
  const amount = Number(text);
  return Number.isFinite(amount) && amount >= 0 ? amount : 0;
}
