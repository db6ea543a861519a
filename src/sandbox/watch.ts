// What the reconciler asks about running sandboxes besides their containers, and whom it tells that they run.

import type { CgroupPaths } from "../engine/cgroup-path.ts";
import type { WindowSummary } from "../monitor/window.ts";
import type { Health } from "./record.ts";

/** Who samples running sandboxes. */
export interface Watch {
  /** The sandbox runs. New: what its cgroup has counted so far was never told. */
  began(id: string, cgroup: CgroupPaths, options: { readonly isNew: boolean }): void;
  isWatching(id: string): boolean;
  /** It runs no more, or is gone. */
  ended(id: string): void;
  /** Out-of-memory kills counted in its cgroup since its start. */
  oomKills(id: string): number;
  /** What is seen of its processes, in words; undefined if nothing can be seen. */
  evidence(id: string): string | undefined;
  /** What the retained samples of its run say. */
  summary(id: string): WindowSummary | undefined;
}

/** What is seen of a running sandbox besides its container. */
export interface Vitals {
  /** Since when it did nothing. Steady time; undefined while that does not matter or is not known. */
  idleSinceMs(id: string): number | undefined;
  /** What its health check says; undefined without one. */
  health(id: string): Health | undefined;
}
