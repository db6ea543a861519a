// When a sandbox ends by itself, and when to look at it for that. Pure; all times are steady.

import type { SandboxRecord, TransitionReason } from "./record.ts";

/** Why a sandbox's time is over. */
export interface EndOfLife {
  readonly reason: Extract<TransitionReason, "EXPIRED" | "IDLE" | "MAX_LIFETIME">;
  readonly message: string;
}

/** Undefined while it may live. `idleSinceMs` is since when it was seen to do nothing. */
export function endOfLife(
  record: SandboxRecord,
  idleSinceMs: number | undefined,
  nowMs: number,
): EndOfLife | undefined {
  const { maxLifetimeMs, idleTimeoutMs } = record.spec.lifetime;
  if (maxLifetimeMs !== undefined && nowMs >= acceptedAt(record) + maxLifetimeMs) {
    return { reason: "MAX_LIFETIME", message: `it lived its max_lifetime of ${seconds(maxLifetimeMs)}` };
  }
  if (record.expiresAtMs !== undefined && nowMs >= record.expiresAtMs) {
    return { reason: "EXPIRED", message: "its lease expired" };
  }
  if (
    record.state === "RUNNING" &&
    idleTimeoutMs !== undefined &&
    idleSinceMs !== undefined &&
    nowMs >= idleSinceMs + idleTimeoutMs
  ) {
    return { reason: "IDLE", message: `it was idle for its idle_timeout of ${seconds(idleTimeoutMs)}` };
  }
  return undefined;
}

/** Whether its time is over for another reason than idleness, which a new start ends. */
export function isExpired(record: SandboxRecord, nowMs: number): boolean {
  return endOfLife(record, undefined, nowMs) !== undefined;
}

/** When its lease or its longest life ends, whichever is sooner; Infinity if never. */
export function expiryOf(record: SandboxRecord): number {
  const { maxLifetimeMs } = record.spec.lifetime;
  const longest = maxLifetimeMs === undefined ? Number.POSITIVE_INFINITY : acceptedAt(record) + maxLifetimeMs;
  return Math.min(longest, record.expiresAtMs ?? Number.POSITIVE_INFINITY);
}

/** When the warning of its expiry is due; Infinity if it was told, or is not to be. */
export function warningAt(record: SandboxRecord): number {
  const expiry = expiryOf(record);
  const { warningMs, ttlMs = Number.POSITIVE_INFINITY } = record.spec.lifetime;
  if (warningMs === 0 || record.warnedOfMs === expiry) return Number.POSITIVE_INFINITY;
  return expiry - Math.min(warningMs, ttlMs / 2);
}

/** Whether the end of its life still changes something: what is to be stopped, or paused, may be so already. */
export function canEnd({ wanted, state, spec }: SandboxRecord): boolean {
  switch (spec.lifetime.onExpiry) {
    case "DELETE":
      return wanted !== "DELETED";
    case "STOP":
      return wanted === "RUNNING" || wanted === "PAUSED";
    case "PAUSE":
      return wanted === "RUNNING" && (state === "RUNNING" || state === "BACKING_OFF");
  }
}

/** When time alone is next a reason to look at it; Infinity if never. */
export function dueAt(record: SandboxRecord): number {
  if (record.wanted === "DELETED") return Number.POSITIVE_INFINITY;
  const ends = canEnd(record) ? Math.min(expiryOf(record), warningAt(record)) : Number.POSITIVE_INFINITY;
  const starts = record.state === "BACKING_OFF" ? record.restarts?.nextAtMs : undefined;
  return Math.min(ends, starts ?? Number.POSITIVE_INFINITY);
}

/** Records of earlier releases have the wall clock's time only, which was about the same. */
function acceptedAt(record: SandboxRecord): number {
  return record.acceptedAtMs ?? record.createdAtMs;
}

/** A length of time for people: "90 s", "1.5 s". */
export function seconds(ms: number): string {
  return `${Math.round(ms / 100) / 10} s`;
}
