// One sandbox's sampler: keeps its cgroup files open, reads them all on request, and ends by itself when the
// sandbox's cgroup is taken away.
import { existsSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { openCgroupV1 } from "./cgroup-v1.ts";
import { openCgroupV2 } from "./cgroup-v2.ts";
import type { Clock } from "./clock.ts";
import { type Descriptors, isGone, keepDescriptors, page, readOnce } from "./descriptors.ts";
import { exceptLoopback, sumInterfaces } from "./network-counters.ts";
import type { CgroupLocation, CgroupReader, SandboxSample } from "./sample.ts";

/** What is needed to find a running sandbox's figures. */
export interface SampleSource {
  readonly cgroup: CgroupLocation;
  /** A process of the sandbox as the host numbers it. Needed for network figures only. */
  readonly pid?: number;
  /** Whether the sandbox has a network namespace with more than loopback. */
  readonly hasNetwork: boolean;
}

export interface SandboxSampler {
  /**
   * Reads the files: all of them with `everything`, and otherwise in every fifth sample, the first included; in
   * the samples between, figures said to be slow in CgroupCounters are as read last. Undefined once the cgroup is gone or the sampler closed; then it is closed for good. Throws
   * the system's error for anything else, and is closed as well.
   */
  sample(options?: { readonly everything?: boolean }): SandboxSample | undefined;
  /** Lets go of all descriptors. May be called again. */
  close(): void;
}

/**
 * A read costs about 3 µs at one sample per second, when the kernel's part of it is in no cache any more: what is not
 * needed each time is not read each time.
 */
const slowEvery = 5;

/**
 * Opens up to 14 files that stay open until close() or until sample() finds the cgroup gone. Undefined when the
 * cgroup does not exist, in whole or (v1, in the middle of its removal) in part. Throws the system's error when it exists but can't be read (EMFILE, EACCES, a controller
 * that is missing), with nothing left open.
 *
 * An open /proc/<pid>/net/dev keeps that network namespace in being, so close this as soon as the sandbox is known
 * to have ended.
 */
export function openSandboxSampler(source: SampleSource, clock: Clock): SandboxSampler | undefined {
  const kept = keepDescriptors();
  let reader: CgroupReader;
  let network: number | undefined;
  try {
    reader = openReader(source.cgroup, kept);
    network = source.hasNetwork ? openNetwork(source, kept) : undefined;
  } catch (error) {
    kept.close();
    if (isGone(error) && !directoriesOf(source.cgroup).every((path) => existsSync(path))) {
      return undefined;
    }
    throw error;
  }
  let closed = false;
  let turn = 0;
  function close(): void {
    closed = true;
    kept.close();
  }
  return {
    sample({ everything = false } = {}) {
      if (closed) {
        return undefined;
      }
      try {
        const monotonicMs = clock.monotonicMs();
        const wallMs = clock.wallMs();
        const { cpu, memory, pids, blockIo } = reader.read(everything || turn % slowEvery === 0);
        turn++;
        return {
          monotonicMs,
          wallMs,
          cpu,
          memory,
          pids,
          blockIo,
          network: network === undefined ? undefined : sumInterfaces(page, readOnce(network), exceptLoopback),
        };
      } catch (error) {
        close();
        if (isGone(error)) {
          return undefined;
        }
        throw error;
      }
    },
    close,
  };
}

function openReader(cgroup: CgroupLocation, kept: Descriptors): CgroupReader {
  return cgroup.version === 1 ? openCgroupV1(cgroup.paths, kept) : openCgroupV2(cgroup.path, kept);
}

function directoriesOf(cgroup: CgroupLocation): readonly string[] {
  return cgroup.version === 1 ? Object.values(cgroup.paths) : [cgroup.path];
}

/**
 * The pid may have ended and been given to another process meanwhile, even another tenant's. Only a process that
 * says it is in this cgroup is believed, and only after its file is open, so that the check is about the same one.
 */
function openNetwork(source: SampleSource, kept: Descriptors): number | undefined {
  if (source.pid === undefined) {
    return undefined;
  }
  const descriptor = kept.openIfPresent(`/proc/${source.pid}/net/dev`);
  return descriptor !== undefined && isMember(source.pid, source.cgroup) ? descriptor : undefined;
}

function isMember(pid: number, cgroup: CgroupLocation): boolean {
  try {
    const membership = readFileSync(`/proc/${pid}/cgroup`, "latin1");
    return directoriesOf(cgroup).some((path) => membership.includes(`/${basename(path)}`));
  } catch (error) {
    if (isGone(error)) {
      return false;
    }
    throw error;
  }
}
