// Builds what keeps workspaces, and joins it to the configuration, the store and the host's disks.

import { join } from "node:path";
import type { WorkspaceSpace } from "./api/host-codec.ts";
import type { Config } from "./config/config.ts";
import type { Log } from "./observe/log.ts";
import type { MetricsRegistry } from "./observe/metrics.ts";
import type { Clock } from "./sandbox/clock.ts";
import { holdsCapacity } from "./sandbox/record.ts";
import type { Repository } from "./sandbox/repository.ts";
import { promisedTo } from "./tenant/quota.ts";
import type { Tenants } from "./tenant/tenants.ts";
import { type Archives, createArchives } from "./workspace/archives.ts";
import { chooseBackend, openBackend, probeAll } from "./workspace/backend/probe.ts";
import { runTool } from "./workspace/backend/tool.ts";
import { type Choice, createBackends } from "./workspace/backends.ts";
import { type BackupPolicy, createBackups } from "./workspace/backups.ts";
import type { WorkspaceRepository } from "./workspace/repository.ts";
import { createWorkspaceRoom } from "./workspace/room.ts";
import { createSidecars } from "./workspace/sidecars.ts";
import { createSnapshots, type Snapshots } from "./workspace/snapshots.ts";
import { createUsageWatch, type UsageWatch } from "./workspace/usage-watch.ts";
import { createWorkspaces, type Workspaces } from "./workspace/workspaces.ts";

export interface WorkspacePartsOptions {
  readonly config: Config;
  /** As it is now: a reload may have changed it. */
  readonly currentConfig: () => Config;
  readonly workspaceRepository: WorkspaceRepository;
  readonly repository: Repository;
  readonly tenants: Tenants;
  readonly clock: Clock;
  readonly charge: (tenant: string, byteSeconds: number) => void;
  /** What the host has for workspaces, or has promised of it, is another. */
  readonly onChange: () => void;
  readonly registry: MetricsRegistry;
  readonly log: Log;
}

export interface WorkspaceParts {
  readonly workspaces: Workspaces;
  readonly snapshots: Snapshots;
  readonly archives: Archives;
  readonly usageWatch: UsageWatch;
  readonly workspaceRepository: WorkspaceRepository;
  /** What the host has for workspaces; undefined while it has no backend. */
  capacity(): WorkspaceSpace | undefined;
  /** What keeps new ones, or why nothing does. */
  choice(): Choice | undefined;
  /** Names of spaces on disk that no workspace is of. */
  strangers(): Promise<readonly string[]>;
  /** What each backend lacks here. */
  probe(): ReturnType<typeof probeAll>;
  /** Before anybody is served. */
  start(): Promise<void>;
  /** Which backups fail, and why. Undefined if there are none. */
  backupProblems(): readonly string[] | undefined;
  close(): Promise<void>;
}

export function createWorkspaceParts(options: WorkspacePartsOptions): WorkspaceParts {
  const { config, currentConfig, workspaceRepository, repository, tenants, clock, registry } = options;
  const log = options.log.child("workspaces");
  const directory = directoryOf(config);
  const { backend: wanted, reserveBytes, overcommit } = config.workspaces;
  const backends = createBackends({
    choose: () => chooseBackend({ directory, wanted, run: runTool }),
    open: (kind) => openBackend(kind, { directory, run: runTool }),
    log,
  });
  const allocatableBytes = () => {
    const bytes = backends.capacityBytes();
    return bytes === undefined ? undefined : Math.floor(Math.max(0, bytes - reserveBytes) * overcommit);
  };
  const room = createWorkspaceRoom({
    repository: workspaceRepository,
    quotaOf: (tenant) => tenants.policyOf(tenant).quota,
    rootBytesOf: (tenant) => promisedTo(repository.all().filter((one) => one.tenant === tenant)).diskBytes,
    allocatableBytes,
  });
  const sidecars = createSidecars(join(directory, "records"));
  const workspaces = createWorkspaces({
    repository: workspaceRepository,
    backends,
    sidecars,
    room,
    tenants,
    sandboxes: () => repository.all(),
    holdsProcesses: holdsCapacity,
    rules: () => currentConfig().workspaces,
    log,
  });
  const snapshots = createSnapshots({ repository: workspaceRepository, workspaces, room, sidecars });
  const usageWatch = createUsageWatch({
    repository: workspaceRepository,
    workspaces,
    backends,
    clock,
    charge: options.charge,
    log,
  });
  const policy = backupPolicyOf(config);
  const backups =
    policy &&
    createBackups({
      policy,
      repository: workspaceRepository,
      workspaces,
      snapshots,
      onEnd: (outcome) => registry.metrics.backups.add({ outcome }),
      log: options.log.child("backups"),
    });
  let resumed: Promise<void> | undefined;
  const unsubscribe = workspaceRepository.subscribe(options.onChange);

  function capacity(): WorkspaceSpace | undefined {
    const [choice, bytes, allocatable] = [backends.choice(), backends.capacityBytes(), allocatableBytes()];
    if (choice === undefined || !("backend" in choice) || bytes === undefined || allocatable === undefined) {
      return undefined;
    }
    return {
      backend: choice.backend.kind,
      capacityBytes: bytes,
      allocatableBytes: allocatable,
      promisedBytes: room.promised().bytes,
      workspaces: workspaceRepository.all().length,
    };
  }

  const { metrics, onRender } = registry;
  onRender(() => {
    const byState = Map.groupBy(workspaceRepository.all(), ({ state }) => state);
    for (const state of ["CREATING", "READY", "UNAVAILABLE", "DELETING"] as const) {
      metrics.workspaces.set({ state }, byState.get(state)?.length ?? 0);
    }
    const now = capacity();
    metrics.workspaceBytes.set({ kind: "capacity" }, now?.capacityBytes ?? 0);
    metrics.workspaceBytes.set({ kind: "allocatable" }, now?.allocatableBytes ?? 0);
    metrics.workspaceBytes.set({ kind: "promised" }, room.promised().bytes);
    const used = workspaceRepository.all().map((record) => usageWatch.usage(record)?.bytes ?? 0);
    metrics.workspaceBytes.set(
      { kind: "used" },
      used.reduce((sum, one) => sum + one, 0),
    );
  });

  return {
    workspaces,
    snapshots,
    archives: createArchives(workspaces, snapshots),
    usageWatch,
    workspaceRepository,
    capacity,
    choice: backends.choice,
    async strangers() {
      const choice = backends.choice();
      return choice !== undefined && "backend" in choice ? workspaces.strangers(choice.backend) : [];
    },
    probe: () => probeAll({ directory, run: runTool }),
    async start() {
      await workspaces.takeBack();
      // nobody waits for it: what is asked for meanwhile waits in the queue of its workspace
      resumed = backends.look().then(() => {
        options.onChange();
        return workspaces.resume();
      });
    },
    backupProblems: () => backups?.problems(),
    async close() {
      unsubscribe();
      usageWatch.close();
      workspaces.close();
      // programs of the host that would outlive the daemon would be in the way of the next
      await resumed;
      await backups?.close();
    },
  };
}

function backupPolicyOf({ backups }: Config): BackupPolicy | undefined {
  const { to, everyMs, timeoutMs, directory, keep, command } = backups;
  if (to === "directory" && directory !== undefined)
    return { everyMs, timeoutMs, target: { kind: to, directory, keep } };
  if (to === "command" && command !== undefined) return { everyMs, timeoutMs, target: { kind: to, command } };
  return undefined;
}

function directoryOf({ workspaces, state }: Config): string {
  return workspaces.directory ?? join(state.directory, "workspaces");
}
