// Which sandbox goes when the host is short of something. Pure.

import type { SandboxRecord } from "../sandbox/record.ts";

/** Conditions that ending a sandbox can relieve. */
export type EvictionCause = "MEMORY_PRESSURE" | "DISK_PRESSURE" | "INODE_PRESSURE";

/** A sandbox with what is known of its use. */
export interface Candidate {
  readonly record: SandboxRecord;
  /** Undefined where it is not sampled. Unit: bytes. */
  readonly workingSetBytes?: number;
  /** What it has written to disks and to its log. Unit: bytes; 0 where nothing is known. */
  readonly writtenBytes: number;
}

/**
 * The next to go: of those whose end can help, the lowest priority; among equals who uses the most beyond what was set aside
 * for it, as the kubelet ranks pods of one priority
 * (https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#pod-selection-for-kubelet-eviction); and of those
 * the youngest, which has the least to lose.
 */
export function chooseVictim(cause: EvictionCause, candidates: readonly Candidate[]): Candidate | undefined {
  const helping = candidates.filter((candidate) => canHelp(cause, candidate));
  return helping.toSorted((a, b) => compare(cause, a, b))[0];
}

function canHelp(cause: EvictionCause, { record, workingSetBytes = 0 }: Candidate): boolean {
  // what is on its way out frees what it has without being told again
  if (record.wanted !== "RUNNING" && record.wanted !== "PAUSED") return false;
  switch (record.state) {
    case "RUNNING":
    case "RESUMING":
      return cause !== "MEMORY_PRESSURE" || workingSetBytes > 0;
    case "PAUSING":
    case "PAUSED":
      // what is frozen writes nothing more, but keeps its memory
      return cause === "MEMORY_PRESSURE" && workingSetBytes > 0;
    default:
      // no process of it runs
      return false;
  }
}

function compare(cause: EvictionCause, a: Candidate, b: Candidate): number {
  const byUse =
    cause === "MEMORY_PRESSURE"
      ? overuse(b) - overuse(a) || (b.workingSetBytes ?? 0) - (a.workingSetBytes ?? 0)
      : b.writtenBytes - a.writtenBytes;
  return (
    a.record.spec.priority - b.record.spec.priority ||
    byUse ||
    b.record.createdAtMs - a.record.createdAtMs ||
    (a.record.id < b.record.id ? -1 : 1)
  );
}

/** How many times its memory request it uses. */
export function overuse({ record, workingSetBytes = 0 }: Candidate): number {
  return workingSetBytes / Math.max(1, record.spec.resources.memoryRequestBytes);
}

/** What it is told to be, for people: the condition with its figures, and what this sandbox has to do with it. */
export function evictionMessage(cause: EvictionCause, evidence: string, victim: Candidate): string {
  const { priority, resources } = victim.record.spec;
  const use =
    cause === "MEMORY_PRESSURE"
      ? `it used ${victim.workingSetBytes ?? 0} bytes of memory and had requested ${resources.memoryRequestBytes}`
      : `it had written ${victim.writtenBytes} bytes`;
  return `evicted under ${cause}: ${evidence}; with priority ${priority}, ${use}`;
}
