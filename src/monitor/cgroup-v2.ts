// Reads one sandbox's counters from cgroup v2, where all controllers share one directory.
import { at, keysOf, limitAt, numberAt, scanKeys, sumPairs } from "./bytes.ts";
import { type Descriptors, page, readContent, readOnce } from "./descriptors.ts";
import { type BlockIoCounters, type CgroupCounters, type CgroupReader, idleUsec } from "./sample.ts";

// values are read at the index that their name has here
const cpuKeys = keysOf(
  "usage_usec",
  "user_usec",
  "system_usec",
  "nr_periods",
  "nr_throttled",
  "throttled_usec",
);
const memoryKeys = keysOf("anon", "file", "inactive_file");
const memoryEventKeys = keysOf("max", "oom", "oom_kill");
const pidsKeys = keysOf("max");
const ioKeys = keysOf("rbytes=", "wbytes=", "rios=", "wios=");

/** Opens all files. Throws the system's error when the memory or pids controller is not enabled for the cgroup. */
export function openCgroupV2(path: string, kept: Descriptors): CgroupReader {
  const cpuStat = kept.open(`${path}/cpu.stat`);
  const memoryCurrent = kept.open(`${path}/memory.current`);
  const memoryStat = kept.open(`${path}/memory.stat`);
  const memoryMax = kept.open(`${path}/memory.max`);
  const memoryEvents = kept.open(`${path}/memory.events`);
  const pidsCurrent = kept.open(`${path}/pids.current`);
  const pidsMax = kept.open(`${path}/pids.max`);
  const pidsEvents = kept.open(`${path}/pids.events`);
  const ioStat = kept.openIfPresent(`${path}/io.stat`);

  const cpu = new Float64Array(cpuKeys.length);
  const memory = new Float64Array(memoryKeys.length);
  const memoryEvent = new Float64Array(memoryEventKeys.length);
  const pids = new Float64Array(pidsKeys.length);
  const io = new Float64Array(ioKeys.length);

  let limitBytes: number | undefined;
  let pidsLimit: number | undefined;
  let latest: CgroupCounters | undefined;

  function readBlockIo(): BlockIoCounters | undefined {
    if (ioStat === undefined) {
      return undefined;
    }
    // io.stat is empty until the first I/O
    sumPairs(page, readOnce(ioStat), ioKeys, io);
    return {
      readBytes: at(io, 0),
      writeBytes: at(io, 1),
      readOperations: at(io, 2),
      writeOperations: at(io, 3),
    };
  }

  return {
    read(everything) {
      scanKeys(page, readContent(cpuStat), cpuKeys, cpu);
      const ofCpu = {
        usageUsec: at(cpu, 0),
        userUsec: at(cpu, 1),
        systemUsec: at(cpu, 2),
        periods: at(cpu, 3),
        throttledPeriods: at(cpu, 4),
        throttledUsec: at(cpu, 5),
      };
      if (!everything && latest !== undefined && ofCpu.usageUsec - latest.cpu.usageUsec < idleUsec) {
        return { ...latest, cpu: ofCpu };
      }
      const usageBytes = numberIn(memoryCurrent);
      scanKeys(page, readContent(memoryStat), memoryKeys, memory);
      scanKeys(page, readContent(memoryEvents), memoryEventKeys, memoryEvent);
      const current = numberIn(pidsCurrent);
      scanKeys(page, readContent(pidsEvents), pidsKeys, pids);
      if (everything) {
        limitBytes = limitAt(page, readContent(memoryMax));
        pidsLimit = limitAt(page, readContent(pidsMax));
      }
      latest = {
        cpu: ofCpu,
        memory: {
          usageBytes,
          workingSetBytes: Math.max(0, usageBytes - at(memory, 2)),
          rssBytes: at(memory, 0),
          cacheBytes: at(memory, 1),
          limitBytes,
          limitHits: at(memoryEvent, 0),
          oomEvents: at(memoryEvent, 1),
          oomKills: at(memoryEvent, 2),
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
