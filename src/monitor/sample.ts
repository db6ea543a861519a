// What one look at a sandbox yields, and where to look: the types that readers, history, stream and metrics share.

/**
 * One reading of a sandbox's cgroup. Every number is a finite integer, never negative; what the kernel does not
 * tell is absent, not zero. Fields said to be rising fall only when the sandbox is started again.
 */
export interface SandboxSample extends CgroupCounters {
  /** When it was read, by a clock that never jumps. The only clock that rates are computed from. Unit: milliseconds. */
  readonly monotonicMs: number;
  /** The same moment for people. Unit: milliseconds since 1970. */
  readonly wallMs: number;
  /** Traffic in the sandbox's network namespace without loopback. Absent where it has no network of its own. */
  readonly network?: NetworkCounters | undefined;
}

/**
 * What the cgroup files of one sandbox say at one moment. Figures said to be slow change rarely or matter little, and
 * each is a file of its own: they are up to five samples old.
 */
export interface CgroupCounters {
  readonly cpu: CpuCounters;
  readonly memory: MemoryCounters;
  readonly pids: PidsCounters;
  /** Absent where the host has no block I/O controller. */
  readonly blockIo?: BlockIoCounters | undefined;
}

export interface CpuCounters {
  /** CPU time of all processes. Unit: microseconds; rising. */
  readonly usageUsec: number;
  /** The part in user mode. v1 counts it in steps of 10 ms, and there it is slow. Unit: microseconds; rising. */
  readonly userUsec: number;
  /** The part in the kernel. v1 counts it in steps of 10 ms, and there it is slow. Unit: microseconds; rising. */
  readonly systemUsec: number;
  /** Enforcement periods (100 ms by default) in which something wanted to run under a CPU limit; rising. */
  readonly periods: number;
  /** Of those, the periods in which the limit was reached; rising. */
  readonly throttledPeriods: number;
  /** Time that run queues were held back, summed over CPUs. Unit: microseconds; rising. */
  readonly throttledUsec: number;
}

export interface MemoryCounters {
  /** All memory charged: anonymous, page cache, tmpfs, kernel. Unit: bytes. */
  readonly usageBytes: number;
  /** usageBytes less inactive file pages: what is hard to reclaim, as the kubelet counts it. Unit: bytes. */
  readonly workingSetBytes: number;
  /** Anonymous memory. Unit: bytes. */
  readonly rssBytes: number;
  /** Page cache, tmpfs included. Unit: bytes. */
  readonly cacheBytes: number;
  /** The limit that the kernel holds for this sandbox; slow. Absent when there is none. Unit: bytes. */
  readonly limitBytes?: number | undefined;
  /**
   * Times the kernel could not find memory within the limit; rising. v1 has no such counter: there it is
   * oomKills, a lower bound.
   */
  readonly oomEvents: number;
  /** Processes of the sandbox killed for want of memory, whoever's limit was reached; rising. */
  readonly oomKills: number;
  /** Times that usage met the limit and pages had to be reclaimed (or none could be); on v1 slow; rising. */
  readonly limitHits: number;
}

export interface PidsCounters {
  /** Processes and threads now. */
  readonly current: number;
  /** How many there may be; slow. Absent when there is no limit. */
  readonly limit?: number | undefined;
  /** Forks refused because of a limit; rising. */
  readonly refusedForks: number;
}

/** Block I/O. A device on top of another (loop, dm) counts the same bytes once more. */
export interface BlockIoCounters {
  /** Unit: bytes; rising. */
  readonly readBytes: number;
  /** Unit: bytes; rising. v1 leaves out buffered writes: the kernel flushes them in nobody's name. */
  readonly writeBytes: number;
  /** On v1 slow; rising. */
  readonly readOperations: number;
  /** On v1 slow; rising. */
  readonly writeOperations: number;
}

export interface NetworkCounters {
  /** Unit: bytes; rising. */
  readonly rxBytes: number;
  /** Unit: bytes; rising. */
  readonly txBytes: number;
  /** Rising. */
  readonly rxPackets: number;
  /** Rising. */
  readonly txPackets: number;
  /** Rising. */
  readonly rxDropped: number;
  /** Rising. */
  readonly txDropped: number;
}

/** The controllers that a sandbox is measured by on cgroup v1. */
export type V1Controller = "cpu" | "cpuacct" | "memory" | "pids" | "blkio";

/** Where a sandbox's cgroup is, as absolute directories. */
export type CgroupLocation =
  | { readonly version: 1; readonly paths: Readonly<Record<V1Controller, string>> }
  | { readonly version: 2; readonly path: string };

/**
 * CPU use below which a cgroup counts as idle since it was last read. The engine's init process wakes each second, for 40 to 50 µs on a slow machine; touching
 * memory takes the kernel half a microsecond a page, so that 2 MiB at most are new. Most sandboxes are idle most of the time.
 */
export const idleUsec = 250;

/** Reads the counters of one cgroup. Throws the system's error, or CgroupEmptyError, once the cgroup is gone. */
export interface CgroupReader {
  /**
   * With `everything` also the figures said to be slow in CgroupCounters; without, those are as read last. Without, so is all but
   * the use of CPU of a cgroup that is idle: `idleUsec` since are too little for anything in it to have changed the rest by much.
   * (What the kernel does by itself is seen by the next `everything`: memory reclaimed, pages written back.)
   */
  read(everything: boolean): CgroupCounters;
}
