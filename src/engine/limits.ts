// Reads from the kernel which limits hold a running container, and tells which of the plan's do not. The engine's
// word is not enough: a limit that cannot be enforced must stop the sandbox.

import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { CgroupPaths } from "./cgroup-path.ts";
import type { BlockIoLimits, ContainerPlan } from "./container-plan.ts";
import type { LiveLimits } from "./runtime.ts";

type BlockIoRates = Omit<BlockIoLimits, "device">;

/** What the kernel holds a container to. Unlimited is `Infinity`; `undefined` is a file that this host lacks. */
export interface ReadBackLimits {
  readonly cgroupVersion: 1 | 2;
  readonly memoryBytes: number | undefined;
  /** Version 1: memory and swap together. Version 2: swap alone. */
  readonly swapBytes: number | undefined;
  readonly cpuQuotaMicros: number | undefined;
  readonly cpuPeriodMicros: number | undefined;
  /** Version 1: shares. Version 2: weight. */
  readonly cpuWeight: number | undefined;
  readonly pids: number | undefined;
  readonly blockIo: BlockIoRates;
}

/** One limit of the plan that the kernel doesn't hold. */
export interface Unenforced {
  readonly limit: string;
  readonly expected: number;
  readonly actual: number | undefined;
}

/**
 * Reads the container's limits synchronously: some small kernel files, microseconds each.
 *
 * @param device the throttled disk as `major:minor`, from `deviceNumberOf`.
 * @throws what reading throws, but for an absent file, which is an absent limit.
 */
export function readBackLimits(options: {
  readonly paths: CgroupPaths;
  readonly device?: string;
}): ReadBackLimits {
  return options.paths.version === 1 ? readVersion1(options) : readVersion2(options);
}

/** `major:minor` of a block device, as the kernel names it in throttle files. */
export function deviceNumberOf(path: string): string {
  const { rdev } = statSync(path);
  // glibc's encoding: 12 + 20 bits of major around 8 + 24 bits of minor; only the lower 32 bits occur on Linux
  return `${(rdev >>> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >>> 12) & 0xfff00)}`;
}

/** Every limit that is not what the kernel holds; none means that all are enforced. */
export function findUnenforced(
  { limits }: { readonly limits: LiveLimits & Pick<ContainerPlan["limits"], "blockIo"> },
  read: ReadBackLimits,
): readonly Unenforced[] {
  const isMemory = (expected: number, actual: number) =>
    actual <= expected && actual > expected - largestPageBytes;
  const swapExpected = read.cgroupVersion === 1 ? limits.memoryBytes : 0;
  const weights = read.cgroupVersion === 1 ? [limits.cpuWeight] : weightsOf(limits.cpuWeight);
  const quota = read.cpuQuotaMicros;
  const cpuMillis = quota === undefined ? undefined : (quota * 1_000) / (read.cpuPeriodMicros ?? Number.NaN);
  return [
    ...unlessHeld("memoryBytes", limits.memoryBytes, read.memoryBytes, isMemory),
    ...unlessHeld("swapBytes", swapExpected, read.swapBytes, swapExpected === 0 ? isEqual : isMemory),
    ...unlessHeld("cpuMillis", limits.cpuMillis, cpuMillis, isEqual),
    ...unlessHeld("cpuWeight", limits.cpuWeight, read.cpuWeight, (_, actual) => weights.includes(actual)),
    ...unlessHeld("pids", limits.pids, read.pids, isEqual),
    ...blockIoNames.flatMap((name) => {
      const expected = limits.blockIo?.[name];
      return expected === undefined
        ? []
        : unlessHeld(`blockIo.${name}`, expected, read.blockIo[name], isEqual);
    }),
  ];
}

/** The kernel rounds memory limits down to pages; 64 KiB are the largest in use. */
const largestPageBytes = 65_536;

const blockIoNames = [
  "readBytesPerSecond",
  "writeBytesPerSecond",
  "readOperationsPerSecond",
  "writeOperationsPerSecond",
] as const satisfies readonly (keyof BlockIoRates)[];

const isEqual = (expected: number, actual: number): boolean => expected === actual;

function unlessHeld(
  limit: string,
  expected: number,
  actual: number | undefined,
  holds: (expected: number, actual: number) => boolean,
): readonly Unenforced[] {
  return actual !== undefined && holds(expected, actual) ? [] : [{ limit, expected, actual }];
}

/**
 * The weights that runtimes make of shares: the linear map of runc before 1.4 and crun before 1.24, and the
 * logarithmic one since (https://github.com/opencontainers/cgroups, ConvertCPUSharesToCgroupV2Value).
 */
function weightsOf(shares: number): readonly number[] {
  const log = Math.log2(shares);
  const linear = 1 + Math.floor(((shares - 2) * 9_999) / 262_142);
  return [linear, Math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))];
}

function readVersion1({ paths, device }: { paths: CgroupPaths; device?: string }): ReadBackLimits {
  const throttle = (name: string) =>
    device === undefined ? undefined : rateOf(read(paths.blkio, `blkio.throttle.${name}_device`), device);
  return {
    cgroupVersion: 1,
    memoryBytes: number(read(paths.memory, "memory.limit_in_bytes")),
    swapBytes: number(read(paths.memory, "memory.memsw.limit_in_bytes")),
    cpuQuotaMicros: number(read(paths.cpu, "cpu.cfs_quota_us")?.replace("-1", "max")),
    cpuPeriodMicros: number(read(paths.cpu, "cpu.cfs_period_us")),
    cpuWeight: number(read(paths.cpu, "cpu.shares")),
    pids: number(read(paths.pids, "pids.max")),
    blockIo: {
      readBytesPerSecond: throttle("read_bps"),
      writeBytesPerSecond: throttle("write_bps"),
      readOperationsPerSecond: throttle("read_iops"),
      writeOperationsPerSecond: throttle("write_iops"),
    },
  };
}

function readVersion2({ paths, device }: { paths: CgroupPaths; device?: string }): ReadBackLimits {
  const [quota, period] = read(paths.cpu, "cpu.max")?.split(" ") ?? [];
  const ioLine = device === undefined ? undefined : lineOf(read(paths.blkio, "io.max"), device);
  const rate = (key: string) =>
    number(
      ioLine
        ?.split(" ")
        .find((word) => word.startsWith(`${key}=`))
        ?.slice(key.length + 1),
    );
  return {
    cgroupVersion: 2,
    memoryBytes: number(read(paths.memory, "memory.max")),
    swapBytes: number(read(paths.memory, "memory.swap.max")),
    cpuQuotaMicros: number(quota),
    cpuPeriodMicros: number(period),
    cpuWeight: number(read(paths.cpu, "cpu.weight")),
    pids: number(read(paths.pids, "pids.max")),
    blockIo: {
      readBytesPerSecond: rate("rbps"),
      writeBytesPerSecond: rate("wbps"),
      readOperationsPerSecond: rate("riops"),
      writeOperationsPerSecond: rate("wiops"),
    },
  };
}

function read(directory: string, file: string): string | undefined {
  try {
    return readFileSync(join(directory, file), "utf8").trim();
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

function number(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  return text === "max" ? Number.POSITIVE_INFINITY : Number(text);
}

function lineOf(text: string | undefined, device: string): string | undefined {
  return text?.split("\n").find((line) => line.startsWith(`${device} `));
}

function rateOf(text: string | undefined, device: string): number | undefined {
  return number(lineOf(text, device)?.split(" ")[1]);
}
