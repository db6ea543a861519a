// From a sandbox's record to the plan of its container.

import {
  type BindMount,
  type ContainerPlan,
  defaultProcessesPerUser,
  type ToolboxMount,
} from "../engine/container-plan.ts";
import type { LiveLimits } from "../engine/runtime.ts";
import { SandboxdError } from "../errors.ts";
import { type LabelCodec, labelPrefix } from "./labels.ts";
import { type MountSources, mountsOf } from "./mount-plan.ts";
import type { Resources, SandboxRecord } from "./record.ts";

/** What a plan takes from the host. */
export interface HostFacts {
  readonly hostId: string;
  /** Of all sandboxes: `/a/b` under the cgroupfs driver, `a-b.slice` under systemd's. */
  readonly cgroupParent: string;
  readonly cgroupVersion: 1 | 2;
  readonly possibleCpus: number;
  /** The disk that holds the engine's data; undefined if none can be throttled. */
  readonly blockDevice: string | undefined;
  /** What its configuration lets sandboxes see. Default: nothing. */
  readonly mountSources?: MountSources;
  /** The version that new sandboxes get; undefined if none is to be had. Default: none. */
  readonly toolbox?: () => string | undefined;
  /** Where a version is. @throws SandboxdError HARDENING_MISMATCH if it is gone. */
  readonly toolboxAt?: (version: string) => ToolboxMount;
}

const noSources: MountSources = { shared: {}, volumes: {} };

/** The name is a function of host and id, so the engine itself is the lock against a second container. */
export function containerName(hostId: string, id: string): string {
  return `sandboxd-${hostId.slice(0, 32)}-${id}`;
}

/**
 * `workspace` is what it sees at /workspace, if its spec names one.
 *
 * @throws SandboxdError LIMIT_UNENFORCEABLE for a limit of block I/O where no disk can be throttled; HARDENING_MISMATCH or
 * IMAGE_UNSUPPORTED for a mount that cannot be had.
 */
export function planOf(
  record: SandboxRecord,
  host: HostFacts,
  labels: LabelCodec,
  workspace?: BindMount,
): ContainerPlan {
  const { spec } = record;
  const { resources } = spec;
  if (resources.blockIo !== undefined && host.blockDevice === undefined) throw unthrottled();
  return {
    name: containerName(host.hostId, record.id),
    imageId: record.imageId,
    ...(spec.command.length === 0 ? {} : { entrypoint: spec.command }),
    ...(spec.args.length === 0 ? {} : { args: spec.args }),
    env: spec.env,
    workingDir: spec.workingDir,
    labels: labels.encode(record),
    labelPrefix,
    uid: record.uid,
    gid: record.uid,
    hostname: record.id,
    cgroupParent: cgroupParentOf(record, host),
    stopSignal: spec.stopSignal,
    stopGraceSeconds: Math.ceil(spec.stopGraceMs / 1_000),
    limits: {
      ...liveLimits(resources),
      openFiles: resources.openFiles,
      processesPerUser: defaultProcessesPerUser,
      tmpfsBytes: resources.tmpfsBytes,
      tmpfsInodes: resources.tmpfsInodes,
      shmBytes: resources.shmBytes,
      logBytes: resources.logBytes,
      ...(resources.blockIo === undefined || host.blockDevice === undefined
        ? {}
        : { blockIo: { device: host.blockDevice, ...resources.blockIo } }),
    },
    imageVolumes: record.imageVolumes,
    ...(spec.rootBytes === undefined ? {} : { rootBytes: spec.rootBytes }),
    mounts: mountsOf(record, workspace, { hostId: host.hostId, sources: host.mountSources ?? noSources }),
    ...toolboxOf(record, host),
    network: networkOf(record),
    engine: { cgroupVersion: host.cgroupVersion, possibleCpus: host.possibleCpus },
  };
}

function networkOf({ spec, place }: SandboxRecord): ContainerPlan["network"] {
  if (spec.networkMode === "NONE") return { mode: "none" };
  if (place === undefined) throw new Error("a sandbox with a network has no place on it");
  const { network, address, mac, gateway } = place;
  return { mode: "bridge", network, address, mac, dns: gateway };
}

function toolboxOf(
  { toolbox: version }: SandboxRecord,
  { toolboxAt }: HostFacts,
): Pick<ContainerPlan, "toolbox"> {
  if (version === undefined) return {};
  if (toolboxAt === undefined) throw new Error(`no place is known of version ${version} of the toolbox`);
  return { toolbox: toolboxAt(version) };
}

/**
 * The cgroup of a tenant below that of all sandboxes, as the engine is told it. By uid, as `user-1000.slice` of systemd: a name
 * would need escapes.
 */
export function parentOf(hostParent: string, uid: number): string {
  const isSlice = hostParent.endsWith(".slice");
  return isSlice ? `${hostParent.slice(0, -".slice".length)}-${uid}.slice` : `${hostParent}/${uid}`;
}

/** The cgroup under which a sandbox's container is. */
export function cgroupParentOf(
  { uid, isInTenantCgroup }: Pick<SandboxRecord, "uid" | "isInTenantCgroup">,
  { cgroupParent }: Pick<HostFacts, "cgroupParent">,
): string {
  return isInTenantCgroup === true ? parentOf(cgroupParent, uid) : cgroupParent;
}

export function unthrottled(): SandboxdError {
  return new SandboxdError(
    "LIMIT_UNENFORCEABLE",
    "spec.resources.block_io: the engine's data is on no disk that can be throttled",
    { hint: "ask without block_io, or move the engine's data-root to a plain disk" },
  );
}

const leastShares = 2;
const mostShares = 262_144;

/** The request of a container that weighs so much: the inverse of what `liveLimits` makes of one. */
export function cpuRequestOf(cpuWeight: number): number {
  return Math.round((cpuWeight * 1_000) / 1_024);
}

/** What a request of CPU weighs under contention: one CPU is 1024 shares, as everywhere. */
export function sharesOf(cpuRequestMillis: number): number {
  const shares = Math.round((cpuRequestMillis * 1_024) / 1_000);
  return Math.min(mostShares, Math.max(leastShares, shares));
}

/** The limits that can change live. */
export function liveLimits(resources: Resources): LiveLimits {
  return {
    cpuMillis: resources.cpuMillis,
    cpuWeight: sharesOf(resources.cpuRequestMillis),
    memoryBytes: resources.memoryBytes,
    pids: resources.pids,
  };
}
