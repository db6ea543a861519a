// What sandboxes and tenants used, as it may be charged for: sums that only rise, over all runs, deletions and restarts. Taken
// from samples, and told only once they are on disk, so that nothing that was told is ever taken back.

import { messageOf } from "../errors.ts";
import type { SandboxSample } from "../monitor/sample.ts";
import type { TickListener } from "../monitor/sampler-loop.ts";
import type { Log } from "../observe/log.ts";
import type { Clock } from "../sandbox/clock.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import type { Store } from "../store/store.ts";

/** Rising. */
export interface Usage {
  readonly cpuUsageUsec: number;
  readonly memoryByteSeconds: number;
  readonly blockReadBytes: number;
  readonly blockWriteBytes: number;
  readonly runningMs: number;
  /** Absent in sums of earlier releases. */
  readonly networkReceiveBytes?: number;
  readonly networkTransmitBytes?: number;
  /** Of a tenant's workspaces and snapshots: what is promised to them. Absent of sandboxes, and in sums of earlier releases. */
  readonly diskByteSeconds?: number;
}

/** A sum, and up to when it is, by the wall clock. */
export interface Metered extends Usage {
  readonly timeMs: number;
}

export interface Metering {
  /** Of a sandbox, over all of its runs; undefined until it is first on disk. */
  ofSandbox(record: SandboxRecord): Metered | undefined;
  /** Of all sandboxes that the tenant has and had. */
  ofTenant(tenant: string): Metered | undefined;
  /** Of each tenant that used anything. */
  ofTenants(): ReadonlyMap<string, Metered>;
  /** So much of the disk was a tenant's for so long. */
  chargeDisk(tenant: string, byteSeconds: number): void;
  /** Writes what is left. */
  close(): void;
}

export interface MeteringOptions {
  readonly store: Store;
  readonly repository: Repository;
  readonly sampler: { subscribe(listener: TickListener): () => void };
  readonly clock: Clock;
  /** Whether the tenant is known: the sums of one that was deleted are forgotten. */
  readonly isTenant: (name: string) => boolean;
  readonly log: Log;
}

/** How often sums are written, and so how old they are when they are told. */
const writeEveryMs = 10_000;

const nothing: Usage = {
  cpuUsageUsec: 0,
  memoryByteSeconds: 0,
  blockReadBytes: 0,
  blockWriteBytes: 0,
  runningMs: 0,
};

/** One sandbox's sum, and where its present run stood when that was taken. */
interface Meter {
  readonly tenant: string;
  readonly usage: Usage;
  readonly timeMs: number;
  readonly run?: RunReading;
}

/** The kernel's counters of one run. They begin at 0 with each. */
interface RunReading {
  /** Tells one run from another. */
  readonly key: string;
  readonly cpuUsageUsec: number;
  readonly blockReadBytes: number;
  readonly blockWriteBytes: number;
  readonly networkReceiveBytes?: number;
  readonly networkTransmitBytes?: number;
  readonly steadyMs: number;
}

const sandboxPrefix = "sandbox/";
const tenantPrefix = "tenant/";

export function createMetering(options: MeteringOptions): Metering {
  const { store, repository, clock, log } = options;
  /** As they are now, by instance; what is on disk is in `told`. */
  const meters = new Map<string, Meter>();
  /** Of sandboxes that are gone, and of disks, by tenant. */
  const gone = new Map<string, Metered>();
  /** Whose disks were charged since the last write. */
  const charged = new Set<string>();
  for (const { key, document } of store.meters()) {
    if (key.startsWith(sandboxPrefix))
      meters.set(key.slice(sandboxPrefix.length), JSON.parse(document) as Meter);
    else gone.set(key.slice(tenantPrefix.length), JSON.parse(document) as Metered);
  }
  let told = snapshot();
  const changed = new Set<string>();
  let isWriting = false;

  function snapshot() {
    const bySandbox = new Map<string, Metered>();
    const byTenant = new Map(gone);
    for (const [instance, { tenant, usage, timeMs }] of meters) {
      const metered = { ...usage, timeMs };
      bySandbox.set(instance, metered);
      byTenant.set(tenant, sumOf(byTenant.get(tenant), metered));
    }
    return { bySandbox, byTenant };
  }

  const unsubscribe = options.sampler.subscribe(({ samples }) => {
    for (const [id, sample] of samples) {
      const record = repository.get(id);
      if (record === undefined) continue;
      meters.set(record.instance, advanced(meters.get(record.instance), record, sample, clock.nowMs()));
      changed.add(record.instance);
    }
  });

  /** All that has changed in one transaction; what is gone is added to its tenant's. */
  function write(): void {
    const alive = new Set(repository.all().map(({ instance }) => instance));
    const ended = [...meters].filter(([instance]) => !alive.has(instance));
    const sums = new Map<string, Metered>();
    for (const [, { tenant, usage, timeMs }] of ended) {
      sums.set(tenant, sumOf(sums.get(tenant) ?? gone.get(tenant), { ...usage, timeMs }));
    }
    for (const tenant of charged) {
      const sum = sums.get(tenant) ?? gone.get(tenant);
      if (sum !== undefined) sums.set(tenant, sum);
    }
    const forgotten = [...gone.keys(), ...sums.keys()].filter((tenant) => !options.isTenant(tenant));
    if (changed.size === 0 && sums.size === 0 && forgotten.length === 0) return;
    store.transact((transaction) => {
      for (const instance of changed) {
        if (alive.has(instance))
          transaction.putMeter(sandboxPrefix + instance, JSON.stringify(meters.get(instance)));
      }
      for (const [instance] of ended) transaction.removeMeter(sandboxPrefix + instance);
      for (const [tenant, sum] of sums) transaction.putMeter(tenantPrefix + tenant, JSON.stringify(sum));
      for (const tenant of forgotten) transaction.removeMeter(tenantPrefix + tenant);
    });
    changed.clear();
    charged.clear();
    for (const [instance] of ended) meters.delete(instance);
    for (const [tenant, sum] of sums) gone.set(tenant, sum);
    for (const tenant of forgotten) gone.delete(tenant);
  }

  async function writeAndTell(): Promise<void> {
    if (isWriting) return;
    isWriting = true;
    try {
      write();
      const written = snapshot();
      await store.durable();
      told = written;
    } catch (error) {
      log.warn({ err: messageOf(error) }, "what was used could not be written; it is tried again");
    } finally {
      isWriting = false;
    }
  }
  const timer = setInterval(() => void writeAndTell(), writeEveryMs);

  return {
    ofSandbox: ({ instance }) => told.bySandbox.get(instance),
    ofTenant: (tenant) => told.byTenant.get(tenant),
    ofTenants: () => told.byTenant,
    chargeDisk(tenant, byteSeconds) {
      const sum = gone.get(tenant) ?? { ...nothing, timeMs: 0 };
      const diskByteSeconds = (sum.diskByteSeconds ?? 0) + byteSeconds;
      gone.set(tenant, { ...sum, diskByteSeconds, timeMs: Date.now() });
      charged.add(tenant);
    },
    close() {
      clearInterval(timer);
      unsubscribe();
      try {
        write();
      } catch (error) {
        log.warn({ err: messageOf(error) }, "what was used since the last write is lost");
      }
    },
  };
}

function sumOf(one: Metered | undefined, other: Metered): Metered {
  const { timeMs, ...usage } = one ?? { ...nothing, timeMs: 0 };
  return { ...plus(usage, other), timeMs: Math.max(timeMs, other.timeMs) };
}

function plus(one: Usage, other: Usage): Usage {
  return {
    cpuUsageUsec: one.cpuUsageUsec + other.cpuUsageUsec,
    memoryByteSeconds: one.memoryByteSeconds + other.memoryByteSeconds,
    blockReadBytes: one.blockReadBytes + other.blockReadBytes,
    blockWriteBytes: one.blockWriteBytes + other.blockWriteBytes,
    runningMs: one.runningMs + other.runningMs,
    networkReceiveBytes: (one.networkReceiveBytes ?? 0) + (other.networkReceiveBytes ?? 0),
    networkTransmitBytes: (one.networkTransmitBytes ?? 0) + (other.networkTransmitBytes ?? 0),
    ...(one.diskByteSeconds === undefined && other.diskByteSeconds === undefined
      ? {}
      : { diskByteSeconds: (one.diskByteSeconds ?? 0) + (other.diskByteSeconds ?? 0) }),
  };
}

/**
 * A meter with a sample more. Within a run counters rise, and time passes, also while no daemon looked; memory is taken to
 * have been all that time what it is now.
 */
function advanced(
  meter: Meter | undefined,
  { tenant, containerId, startedAtMs }: SandboxRecord,
  { cpu, memory, blockIo, network, wallMs }: SandboxSample,
  steadyMs: number,
): Meter {
  const run: RunReading = {
    key: `${containerId} ${startedAtMs}`,
    cpuUsageUsec: cpu.usageUsec,
    blockReadBytes: blockIo?.readBytes ?? 0,
    blockWriteBytes: blockIo?.writeBytes ?? 0,
    networkReceiveBytes: network?.rxBytes ?? 0,
    networkTransmitBytes: network?.txBytes ?? 0,
    steadyMs,
  };
  const last = meter?.run?.key === run.key ? meter.run : undefined;
  const since = (key: Exclude<keyof RunReading, "key" | "steadyMs">) => {
    const [before, now] = [last?.[key] ?? 0, run[key] ?? 0];
    // a counter that fell has begun anew
    return now < before ? now : now - before;
  };
  const passedMs = last === undefined ? 0 : Math.max(0, steadyMs - last.steadyMs);
  const used: Usage = {
    cpuUsageUsec: since("cpuUsageUsec"),
    memoryByteSeconds: (memory.usageBytes * passedMs) / 1_000,
    blockReadBytes: since("blockReadBytes"),
    blockWriteBytes: since("blockWriteBytes"),
    networkReceiveBytes: since("networkReceiveBytes"),
    networkTransmitBytes: since("networkTransmitBytes"),
    runningMs: passedMs,
  };
  return { tenant, usage: plus(meter?.usage ?? nothing, used), timeMs: wallMs, run };
}
