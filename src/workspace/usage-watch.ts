// Looks at what workspaces hold, every few seconds and all of them: for whoever asks, for what their tenants are charged, and for soft limits.

import { messageOf } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Clock } from "../sandbox/clock.ts";
import type { Backend, SpaceUsage } from "./backend/backend.ts";
import type { Backends } from "./backends.ts";
import { followExcess } from "./limits.ts";
import { promisedOf, spaceOf, type WorkspaceRecord } from "./record.ts";
import type { WorkspaceRepository } from "./repository.ts";
import type { Workspaces } from "./workspaces.ts";

export interface SeenUsage extends SpaceUsage {
  /** By the wall clock. */
  readonly timeMs: number;
}

export interface UsageWatch {
  /** As last seen; undefined until it was first. */
  usage(record: WorkspaceRecord): SeenUsage | undefined;
  /** Looks at one now. Does not fail. */
  see(record: WorkspaceRecord): Promise<void>;
  close(): void;
}

export interface UsageWatchOptions {
  readonly repository: WorkspaceRepository;
  readonly workspaces: Pick<Workspaces, "between" | "isInUse" | "isBusy" | "ready" | "look">;
  readonly backends: Backends;
  readonly clock: Clock;
  /** So much of the disk was a tenant's for so long. */
  readonly charge: (tenant: string, byteSeconds: number) => void;
  readonly log: Log;
}

const lookEveryMs = 15_000;
/** What is not as it should be is tried again every second look. */
const retryEvery = 2;

export function createUsageWatch(options: UsageWatchOptions): UsageWatch {
  const { repository, workspaces, backends, clock, charge, log } = options;
  const seen = new Map<string, SeenUsage>();
  /** Those of which the log was told that they cannot be read. */
  const unread = new Set<string>();
  let chargedAtMs = clock.nowMs();
  let looks = 0;
  let isLooking = false;

  async function see(record: WorkspaceRecord, backend: Backend): Promise<void> {
    const usage = await backend.usage(spaceOf(record));
    seen.set(record.instance, { ...usage, timeMs: Date.now() });
    const { softBytes, softInodes } = record.limits;
    if (softBytes === undefined && softInodes === undefined && record.excess === undefined) return;
    const now = { wallMs: Date.now(), steadyMs: clock.nowMs() };
    const excess = followExcess(record.excess, record.limits, usage, now);
    // while something that takes long goes on with it, the next look tells
    if (isDeepEqual(excess, record.excess) || workspaces.isBusy(record.id)) return;
    await workspaces.between(record.id, async (current) => {
      // it was changed meanwhile: the next look tells
      if (current !== repository.get(record.id) || current.limits !== record.limits) return;
      const before = current.excess;
      const withExcess = ({ excess: _, ...rest }: WorkspaceRecord): WorkspaceRecord => ({
        ...rest,
        ...(excess === undefined ? {} : { excess }),
      });
      if (!isDeepEqual(before?.held, excess?.held)) {
        await backend.resize(spaceOf(withExcess(current)), { isInUse: workspaces.isInUse(record.id) });
      }
      const isTold =
        before?.limits.join() === excess?.limits.join() &&
        (before?.held === undefined) === (excess?.held === undefined);
      repository.edit(current, withExcess, isTold ? undefined : "WORKSPACE_SOFT_LIMIT");
    });
  }

  /** One that cannot be read is mounted again, or told as UNAVAILABLE. Does not fail; tells the log once. */
  async function seeOrMount(record: WorkspaceRecord): Promise<void> {
    try {
      await see(record, await backends.of(record.backend));
      unread.delete(record.instance);
    } catch (error) {
      if (!unread.has(record.instance)) {
        unread.add(record.instance);
        log.warn({ workspace: record.id, err: messageOf(error) }, "what the workspace holds cannot be read");
      }
      await workspaces.ready(record.id, record.tenant).catch(() => undefined);
    }
  }

  async function look(): Promise<void> {
    if (isLooking) return;
    isLooking = true;
    try {
      const passedMs = clock.nowMs() - chargedAtMs;
      chargedAtMs += passedMs;
      const alive = new Set<string>();
      for (const record of repository.all()) {
        alive.add(record.instance);
        charge(record.tenant, (promisedOf(record).bytes * passedMs) / 1_000);
        if (record.state !== "READY" || workspaces.isBusy(record.id)) continue;
        await seeOrMount(record);
      }
      for (const instance of seen.keys()) if (!alive.has(instance)) seen.delete(instance);
      for (const instance of unread) if (!alive.has(instance)) unread.delete(instance);
      if (looks++ % retryEvery === 0) {
        await backends.look();
        await workspaces.look();
      }
    } finally {
      isLooking = false;
    }
  }

  const timer = setInterval(() => void look(), lookEveryMs);
  return {
    usage: ({ instance }) => seen.get(instance),
    see: seeOrMount,
    close: () => clearInterval(timer),
  };
}

function isDeepEqual(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}
