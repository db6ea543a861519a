// What the ledger knows of one sandbox, from its acceptance on.

import type { Wish } from "./model-host.ts";

export interface Story {
  readonly id: string;
  readonly instance: string;
  readonly wish: Wish;
  readonly acceptedAtMs: number;
  /** Verbs that callers used on it. */
  readonly asked: Set<string>;
  readonly renewals: { readonly generation: number; readonly ttlMs: number }[];
  /** Expiries of which a warning was told. */
  warnedOfMs: readonly number[];
  /** When its restart policy set a start. Steady time. */
  backoffs: readonly number[];
  /** The run after which that was last. */
  lastRun: string;
  backoff: { readonly notBeforeMs: number } | undefined;
  /** When its lease ends, as the ledger reckons. Steady time. */
  expiresAtMs: number | undefined;
  /** The newest renewal that a caller was told of. */
  lease: { readonly generation: number; readonly expiresAtMs: number | undefined } | undefined;
  /** The generation of the newest update that a caller was told of. */
  updatedTo: number;
  isCreateAcknowledged: boolean;
  isStopAcknowledged: boolean;
  isDeleteAcknowledged: boolean;
  /** Its removal had a cause. */
  isToGo: boolean;
  /** Calls for it that the engine refused. */
  refusals: number;
  /** Things that others did to its containers. */
  touches: number;
  reboots: number;
  /** Runs that ended. */
  ends: number;
  /** The answer to a change of its limits was lost: what became of that, nobody knows. */
  isUpdateCut: boolean;
  /** A run that somebody on the host ended, and the daemon was told so in time. */
  knownExternal: { readonly startedAt: string; readonly atMs: number } | undefined;
}

export function storyOf(id: string, instance: string, wish: Wish, acceptedAtMs: number): Story {
  const { ttlMs } = wish.life.lifetime ?? {};
  return {
    id,
    instance,
    wish,
    acceptedAtMs,
    asked: new Set(),
    renewals: [],
    warnedOfMs: [],
    backoffs: [],
    lastRun: "",
    backoff: undefined,
    expiresAtMs: ttlMs === undefined ? undefined : acceptedAtMs + ttlMs,
    lease: undefined,
    updatedTo: 0,
    isCreateAcknowledged: false,
    isStopAcknowledged: false,
    isDeleteAcknowledged: false,
    isToGo: false,
    refusals: 0,
    touches: 0,
    reboots: 0,
    ends: 0,
    isUpdateCut: false,
    knownExternal: undefined,
  };
}

/** When its lease or its longest life ends. Infinity if never. */
export function expiryOf({ wish, acceptedAtMs, expiresAtMs }: Story): number {
  const { maxLifetimeMs = Number.POSITIVE_INFINITY } = wish.life.lifetime ?? {};
  return Math.min(expiresAtMs ?? Number.POSITIVE_INFINITY, acceptedAtMs + maxLifetimeMs);
}
