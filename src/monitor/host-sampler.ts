// The host's sampler: CPU, memory, load, pressure, disks, network and tasks from /proc on kept descriptors.
import { numberAt } from "./bytes.ts";
import { type Clock, systemClock } from "./clock.ts";
import { keepDescriptors, page, readOnce, readWhole } from "./descriptors.ts";
import { createDiskProbe, type DiskProbe, type HostDisk } from "./host-disks.ts";
import {
  type HostCpuTimes,
  type HostMemory,
  type Pressure,
  parseCpuTimes,
  parseLoad,
  parseMemory,
  parsePressure,
} from "./host-figures.ts";
import { createInterfaceFilter } from "./host-interfaces.ts";
import { sumInterfaces } from "./network-counters.ts";
import type { NetworkCounters } from "./sample.ts";

/** One reading of the host. */
export interface HostSample {
  /** Unit: milliseconds of the monotonic clock. */
  readonly monotonicMs: number;
  /** Unit: milliseconds since 1970. */
  readonly wallMs: number;
  readonly cpu: HostCpuTimes & {
    /** CPU use since the sample before; since boot in the first one. Unit: millicores. */
    readonly usageMillis: number;
  };
  readonly memory: HostMemory;
  readonly load: { readonly load1: number; readonly load5: number; readonly load15: number };
  /** Absent, each, where the kernel keeps no such figures. */
  readonly pressure: { readonly cpu?: Pressure; readonly memory?: Pressure; readonly io?: Pressure };
  readonly disks: readonly HostDisk[];
  /**
   * All hardware interfaces; where there are none, all but loopback. Bridges, veth pairs and tunnels would count
   * the same packet again.
   */
  readonly network: NetworkCounters;
  readonly pids: {
    /** Processes and threads. */
    readonly current: number;
    /** The lower of kernel.pid_max and kernel.threads-max. */
    readonly limit: number;
  };
}

export interface HostSamplerOptions {
  /** Directories whose file systems are watched. */
  readonly directories: readonly string[];
  readonly clock?: Clock;
  /** Where the kernel shows itself. Default: /proc and /sys. */
  readonly procPath?: string;
  readonly sysPath?: string;
}

export interface HostSampler {
  /** Reads everything but disk space, which is asked for in the background and arrives in a later sample. */
  sample(): HostSample;
  /** Watches the file system of one more directory, from a later sample on. Watched already is success. */
  watch(directory: string): void;
  /** Closes all descriptors. May be called again; sample() throws after it. */
  close(): void;
}

/** How long opening waits for file systems to tell their space. Those that don't are left for later samples. */
const firstAnswerMs = 2000;

/** Opens all files. Rejects with the system's error when /proc can't be read, and when the signal aborts. */
export async function openHostSampler(
  options: HostSamplerOptions,
  { signal }: { readonly signal?: AbortSignal } = {},
): Promise<HostSampler> {
  signal?.throwIfAborted();
  const clock = options.clock ?? systemClock;
  const proc = options.procPath ?? "/proc";
  const isCounted = createInterfaceFilter(`${options.sysPath ?? "/sys"}/class/net`);
  const kept = keepDescriptors();
  const stat = kept.open(`${proc}/stat`);
  const meminfo = kept.open(`${proc}/meminfo`);
  const loadavg = kept.open(`${proc}/loadavg`);
  const netDev = kept.open(`${proc}/net/dev`);
  const pidMax = kept.open(`${proc}/sys/kernel/pid_max`);
  const threadsMax = kept.open(`${proc}/sys/kernel/threads-max`);
  const diskstats = kept.openIfPresent(`${proc}/diskstats`);
  const pressureCpu = kept.openIfPresent(`${proc}/pressure/cpu`);
  const pressureMemory = kept.openIfPresent(`${proc}/pressure/memory`);
  const pressureIo = kept.openIfPresent(`${proc}/pressure/io`);
  const probes = new Map<string, DiskProbe>();
  let before: { readonly busyUsec: number; readonly monotonicMs: number } | undefined;
  let closed = false;

  function watch(directory: string): void {
    if (probes.has(directory)) return;
    const probe = createDiskProbe(directory, `${proc}/self/mountinfo`, () => clock.monotonicMs());
    probes.set(directory, probe);
  }
  for (const directory of options.directories) watch(directory);

  function readCpu(monotonicMs: number): HostSample["cpu"] {
    const times = parseCpuTimes(page, readOnce(stat));
    const busyUsec = times.busyUsec - (before?.busyUsec ?? 0);
    // per CPU the kernel counts its time since boot: total over CPUs is the uptime
    const elapsedMs =
      before === undefined ? times.totalUsec / times.cpus / 1000 : monotonicMs - before.monotonicMs;
    const millis = elapsedMs > 0 ? Math.round(busyUsec / elapsedMs) : 0;
    before = { busyUsec: times.busyUsec, monotonicMs };
    return { ...times, usageMillis: Math.min(Math.max(0, millis), times.cpus * 1000) };
  }

  function readPressure(): HostSample["pressure"] {
    return {
      ...(pressureCpu === undefined ? undefined : { cpu: parsePressure(textOf(pressureCpu)) }),
      ...(pressureMemory === undefined ? undefined : { memory: parsePressure(textOf(pressureMemory)) }),
      ...(pressureIo === undefined ? undefined : { io: parsePressure(textOf(pressureIo)) }),
    };
  }

  function readDisks(): readonly HostDisk[] {
    const length = diskstats === undefined ? 0 : readWhole(diskstats);
    return [...probes.values()].map((probe) => probe.current(page, length));
  }

  const sampler: HostSampler = {
    sample() {
      if (closed) {
        throw new Error("host sampler is closed");
      }
      const monotonicMs = clock.monotonicMs();
      const wallMs = clock.wallMs();
      const cpu = readCpu(monotonicMs);
      const memory = parseMemory(page, readOnce(meminfo));
      const { tasks, load1, load5, load15 } = parseLoad(textOf(loadavg));
      const disks = readDisks();
      for (const probe of probes.values()) {
        void probe.refresh();
      }
      return {
        monotonicMs,
        wallMs,
        cpu,
        memory,
        load: { load1, load5, load15 },
        pressure: readPressure(),
        disks,
        network: sumInterfaces(page, readWhole(netDev), isCounted),
        pids: { current: tasks, limit: Math.min(numberIn(pidMax), numberIn(threadsMax)) },
      };
    },
    watch,
    close() {
      closed = true;
      kept.close();
    },
  };
  try {
    await answeredWithin(
      [...probes.values()].map((probe) => probe.refresh()),
      firstAnswerMs,
      signal,
    );
  } catch (error) {
    sampler.close();
    throw error;
  }
  return sampler;
}

function textOf(descriptor: number): string {
  return page.toString("latin1", 0, readOnce(descriptor));
}

function numberIn(descriptor: number): number {
  return numberAt(page, 0, readOnce(descriptor));
}

/** Waits until all have answered or the time is over. Rejects when the signal aborts. */
function answeredWithin(
  answers: readonly Promise<void>[],
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(finish, timeoutMs);
    function finish(): void {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      resolve();
    }
    function abort(): void {
      clearTimeout(timer);
      reject(signal?.reason);
    }
    signal?.addEventListener("abort", abort, { once: true });
    void Promise.all(answers).then(finish);
  });
}
