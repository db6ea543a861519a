// Reads one sandbox's counters from cgroup v1, where each controller has a hierarchy of its own.
import { at, keysOf, limitAt, nextLine, nextWord, numberAt, scanKeys } from "./bytes.ts";
import { type Descriptors, page, readContent, readOnce } from "./descriptors.ts";
import {
  type BlockIoCounters,
  type CgroupCounters,
  type CgroupReader,
  idleUsec,
  type V1Controller,
} from "./sample.ts";

const nsPerUsec = 1000;

/** cpuacct.stat counts in USER_HZ, which is 100 on every architecture that Node runs on. */
const usecPerTick = 10_000;

// values are read at the index that their name has here
const cpuKeys = keysOf("nr_periods", "nr_throttled", "throttled_time");
const cpuacctKeys = keysOf("user", "system");
const memoryKeys = keysOf("total_cache", "total_rss", "total_inactive_file");
const oomKeys = keysOf("oom_kill");
const pidsKeys = keysOf("max");

const capitalR = 82;
const capitalW = 87;

/** Opens all files. Throws the system's error when one of the four needed controllers is not there. */
export function openCgroupV1(paths: Readonly<Record<V1Controller, string>>, kept: Descriptors): CgroupReader {
  const cpuacctUsage = kept.open(`${paths.cpuacct}/cpuacct.usage`);
  const cpuacctStat = kept.open(`${paths.cpuacct}/cpuacct.stat`);
  const cpuStat = kept.open(`${paths.cpu}/cpu.stat`);
  const memoryUsage = kept.open(`${paths.memory}/memory.usage_in_bytes`);
  const memoryStat = kept.open(`${paths.memory}/memory.stat`);
  const memoryLimit = kept.open(`${paths.memory}/memory.limit_in_bytes`);
  const memoryFailures = kept.open(`${paths.memory}/memory.failcnt`);
  const oomControl = kept.open(`${paths.memory}/memory.oom_control`);
  const pidsCurrent = kept.open(`${paths.pids}/pids.current`);
  const pidsMax = kept.open(`${paths.pids}/pids.max`);
  const pidsEvents = kept.open(`${paths.pids}/pids.events`);
  const ioBytes = kept.openIfPresent(`${paths.blkio}/blkio.throttle.io_service_bytes_recursive`);
  const ioOperations = kept.openIfPresent(`${paths.blkio}/blkio.throttle.io_serviced_recursive`);

  const cpu = new Float64Array(cpuKeys.length);
  const cpuacct = new Float64Array(cpuacctKeys.length);
  const memory = new Float64Array(memoryKeys.length);
  const oom = new Float64Array(oomKeys.length);
  const pids = new Float64Array(pidsKeys.length);
  const bytes: ReadWrite = { read: 0, write: 0 };
  const operations: ReadWrite = { read: 0, write: 0 };
  let limitBytes: number | undefined;
  let limitHits = 0;
  let oomKills = 0;
  let pidsLimit: number | undefined;
  let latest: CgroupCounters | undefined;

  function readSlow(): void {
    scanKeys(page, readContent(cpuacctStat), cpuacctKeys, cpuacct);
    limitBytes = limitAt(page, readContent(memoryLimit));
    limitHits = numberIn(memoryFailures);
    pidsLimit = limitAt(page, readContent(pidsMax));
    if (ioOperations !== undefined) {
      sumThrottle(page, readOnce(ioOperations), operations);
    }
  }

  function readBlockIo(): BlockIoCounters | undefined {
    if (ioBytes === undefined) {
      return undefined;
    }
    sumThrottle(page, readOnce(ioBytes), bytes);
    return {
      readBytes: bytes.read,
      writeBytes: bytes.write,
      readOperations: operations.read,
      writeOperations: operations.write,
    };
  }

  return {
    read(everything) {
      const usageUsec = Math.trunc(numberIn(cpuacctUsage) / nsPerUsec);
      if (!everything && latest !== undefined && usageUsec - latest.cpu.usageUsec < idleUsec) {
        return { ...latest, cpu: { ...latest.cpu, usageUsec } };
      }
      scanKeys(page, readContent(cpuStat), cpuKeys, cpu);
      const usageBytes = numberIn(memoryUsage);
      scanKeys(page, readContent(memoryStat), memoryKeys, memory);
      scanKeys(page, readContent(oomControl), oomKeys, oom);
      const current = numberIn(pidsCurrent);
      scanKeys(page, readContent(pidsEvents), pidsKeys, pids);
      // a kill may be the last thing seen of the sandbox, so what led to it is read with it
      if (everything || at(oom, 0) !== oomKills) {
        readSlow();
      }
      oomKills = at(oom, 0);
      latest = {
        cpu: {
          usageUsec,
          userUsec: at(cpuacct, 0) * usecPerTick,
          systemUsec: at(cpuacct, 1) * usecPerTick,
          periods: at(cpu, 0),
          throttledPeriods: at(cpu, 1),
          throttledUsec: Math.trunc(at(cpu, 2) / nsPerUsec),
        },
        memory: {
          usageBytes,
          workingSetBytes: Math.max(0, usageBytes - at(memory, 2)),
          rssBytes: at(memory, 1),
          cacheBytes: at(memory, 0),
          limitBytes,
          oomEvents: oomKills,
          oomKills,
          limitHits,
        },
        pids: { current, limit: pidsLimit, refusedForks: at(pids, 0) },
        blockIo: readBlockIo(),
      };
      return latest;
    },
  };
}

function numberIn(descriptor: number): number {
  return numberAt(page, 0, readContent(descriptor));
}

interface ReadWrite {
  read: number;
  write: number;
}

/** Adds up the "major:minor Read N" and "major:minor Write N" lines of all devices. */
function sumThrottle(contents: Uint8Array, end: number, into: ReadWrite): void {
  into.read = 0;
  into.write = 0;
  for (let line = 0; line < end; line = nextLine(contents, line, end)) {
    const word = nextWord(contents, line, end);
    if (contents[word] === capitalR) {
      into.read += numberAt(contents, nextWord(contents, word, end), end);
    } else if (contents[word] === capitalW) {
      into.write += numberAt(contents, nextWord(contents, word, end), end);
    }
  }
}
