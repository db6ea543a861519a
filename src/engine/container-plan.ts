// What a container is built from, complete and bounded: the only input of the room that talks the engine's
// language. There is no field for what must never be asked.

import { checkMounts } from "./mounts.ts";
import { type ContainerNetwork, checkContainerNetwork } from "./network-plan.ts";
import { toolboxPath } from "./toolbox-mount.ts";

/** Throttles of one block device. An absent rate is not throttled. */
export interface BlockIoLimits {
  /** The whole disk, e.g. `/dev/vda`; the kernel throttles no partitions. */
  readonly device: string;
  readonly readBytesPerSecond?: number;
  readonly writeBytesPerSecond?: number;
  readonly readOperationsPerSecond?: number;
  readonly writeOperationsPerSecond?: number;
}

/** Every bound of a container; each is an integer and each is mandatory but for `blockIo`. */
export interface ContainerLimits {
  /** Thousandths of one core, 10 to 1,024,000. */
  readonly cpuMillis: number;
  /** Share of a contended core in the engine's unit, 2 to 262,144 where 1,024 is ordinary. */
  readonly cpuWeight: number;
  /** Memory and swap together, from 6 MiB (the engine's least) to 1 PiB. */
  readonly memoryBytes: number;
  /** Processes and threads together, 4 to 4,194,304 (the kernel's most). */
  readonly pids: number;
  /** RLIMIT_NOFILE of each process, 64 to 1,048,576. */
  readonly openFiles: number;
  /**
   * RLIMIT_NPROC. The kernel counts it per uid over the whole host, so it must be at least the sum of `pids` of all
   * sandboxes that share the uid; `defaultProcessesPerUser` unless the host knows better.
   */
  readonly processesPerUser: number;
  /** Size of /tmp and of each image volume, at least 64 KiB. What is used counts as memory too. */
  readonly tmpfsBytes: number;
  /** Inodes of /tmp and of each image volume, at least 16. */
  readonly tmpfsInodes: number;
  /** Size of /dev/shm, at least 64 KiB. */
  readonly shmBytes: number;
  /** Most bytes that the engine keeps of the container's output on the host's disk, at least 1 MiB. */
  readonly logBytes: number;
  readonly blockIo?: BlockIoLimits;
}

/** A directory as the kernel knows it, whatever its name: compared with what the container sees after its start. */
export interface DirectoryIdentity {
  readonly device: number;
  readonly inode: number;
}

/** A directory of the host in the container, rprivate. The file system that it is on must be mounted nosuid and nodev. */
export interface BindMount {
  readonly kind: "bind";
  /** Absolute. No directory above it may be another's to write to: the engine follows what it finds there. */
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
  /** What the container must see there, compared after its start. */
  readonly identity: DirectoryIdentity;
}

/** A directory in memory of the container's own, nosuid and nodev. What is in it counts as its memory. */
export interface TmpfsMount {
  readonly kind: "tmpfs";
  readonly target: string;
  /** At least 64 KiB. */
  readonly sizeBytes: number;
  /** At least 16. */
  readonly inodes: number;
  /** Nothing in it can be executed. */
  readonly noExec?: true;
}

/** A volume of the engine's driver `local`: it mounts what the options say while a container that has it runs. */
export interface VolumeMount {
  readonly kind: "volume";
  /** Of the volume, unique to what is in it. */
  readonly name: string;
  /** Always with nosuid, nodev and private among those of `o`. */
  readonly options: { readonly type: string; readonly device: string; readonly o: string };
  /** Those of the plan's prefix tell whose it is: another's is never touched. */
  readonly labels: Readonly<Record<string, string>>;
  readonly target: string;
  readonly readOnly: boolean;
  /** Of a directory of this host. */
  readonly identity?: DirectoryIdentity;
  /** Of one in memory. */
  readonly size?: { readonly bytes: number; readonly inodes: number };
}

export type Mount = BindMount | TmpfsMount | VolumeMount;

/** The daemon's own program in the container, read-only at `toolboxPath`: a directory of the host with `toolbox` and an empty `run`. */
export interface ToolboxMount {
  /** Of the engine's volume that shows it: one for all containers that have the same. */
  readonly volume: string;
  readonly source: string;
  readonly identity: DirectoryIdentity;
}

/** Facts about the engine's host on which the form of a limit depends. */
export interface EngineFacts {
  readonly cgroupVersion: 1 | 2;
  /** Processors that the host may ever have, 1 to 4,096: each has a thermal throttle directory to mask. */
  readonly possibleCpus: number;
}

export interface ContainerPlan {
  readonly name: string;
  /** `sha256:` and 64 hex digits: a name could be moved to another image between check and use. */
  readonly imageId: string;
  /** Replaces the image's entrypoint; then the image's command is dropped too. Not empty if given. */
  readonly entrypoint?: readonly string[];
  /** Replaces the image's command. */
  readonly args?: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Absolute, not below /proc, /sys or /dev. Default /tmp; the image's own is never used. */
  readonly workingDir?: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Labels below this prefix come from the plan or the container is refused, e.g. `sandboxd.`. */
  readonly labelPrefix: string;
  /** 10,000 to 999,999,999. */
  readonly uid: number;
  /** 10,000 to 999,999,999. */
  readonly gid: number;
  readonly hostname: string;
  /** `/a/b` under the cgroupfs driver, `a-b.slice` under systemd's. */
  readonly cgroupParent: string;
  /** `SIGTERM` and the like. */
  readonly stopSignal: string;
  /** 0 to 3,600. */
  readonly stopGraceSeconds: number;
  readonly limits: ContainerLimits;
  /** Directories that the image declares as VOLUME, at most 16: each becomes a bounded tmpfs, never a volume. */
  readonly imageVolumes: readonly string[];
  /** At most 64, in order of target. No target is in another, in /tmp, or above an image volume that is not it. */
  readonly mounts: readonly Mount[];
  /** Absent: the container has none. */
  readonly toolbox?: ToolboxMount;
  /** Size of a writable root layer, 1 MiB to 1 PiB. Absent: the root is read-only. */
  readonly rootBytes?: number;
  readonly network: ContainerNetwork;
  /** An OCI runtime that the engine has. Default `runc`. */
  readonly runtime?: string;
  readonly engine: EngineFacts;
}

/** Enough for every tenant's sandboxes together on a large host; the pids limit of each sandbox is the tight one. */
export const defaultProcessesPerUser = 16_384;

const KiB = 1_024;
const MiB = 1_024 * KiB;
const PiB = 1_024 ** 5;

const limitBounds = {
  cpuMillis: [10, 1_024_000],
  cpuWeight: [2, 262_144],
  memoryBytes: [6 * MiB, PiB],
  pids: [4, 4_194_304],
  openFiles: [64, 1_048_576],
  processesPerUser: [64, 4_194_304],
  tmpfsBytes: [64 * KiB, PiB],
  tmpfsInodes: [16, 2 ** 31 - 1],
  shmBytes: [64 * KiB, PiB],
  logBytes: [MiB, PiB],
} as const satisfies Record<keyof Omit<ContainerLimits, "blockIo">, readonly [number, number]>;

const rateNames = [
  "readBytesPerSecond",
  "writeBytesPerSecond",
  "readOperationsPerSecond",
  "writeOperationsPerSecond",
] as const satisfies readonly (keyof BlockIoLimits)[];

const maxImageVolumes = 16;

/**
 * Refuses a plan that is out of its bounds, whatever the layers above have checked already.
 *
 * @throws RangeError naming the field and its value.
 */
export function checkPlan(plan: ContainerPlan): void {
  for (const [name, [least, most]] of Object.entries(limitBounds)) {
    checkInteger(`limits.${name}`, plan.limits[name as keyof typeof limitBounds], least, most);
  }
  const { blockIo } = plan.limits;
  if (blockIo !== undefined) {
    checkText("limits.blockIo.device", blockIo.device, /^\/dev\/[A-Za-z0-9][A-Za-z0-9_/-]*$/);
    for (const name of rateNames) {
      const rate = blockIo[name];
      if (rate !== undefined) checkInteger(`limits.blockIo.${name}`, rate, 1, PiB);
    }
  }
  if (plan.rootBytes !== undefined) checkInteger("rootBytes", plan.rootBytes, MiB, PiB);
  checkInteger("uid", plan.uid, 10_000, 999_999_999);
  checkInteger("gid", plan.gid, 10_000, 999_999_999);
  checkInteger("stopGraceSeconds", plan.stopGraceSeconds, 0, 3_600);
  checkInteger("engine.possibleCpus", plan.engine.possibleCpus, 1, 4_096);

  checkText("name", plan.name, /^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$/);
  checkText("imageId", plan.imageId, /^sha256:[0-9a-f]{64}$/);
  checkText("hostname", plan.hostname, /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/);
  checkText("stopSignal", plan.stopSignal, /^SIG[A-Z0-9]{2,9}$/);
  checkText("labelPrefix", plan.labelPrefix, /^[a-z0-9.-]+[./]$/);
  checkText(
    "cgroupParent",
    plan.cgroupParent,
    /^((\/[A-Za-z0-9_][A-Za-z0-9_.-]*)+|[A-Za-z0-9_][A-Za-z0-9_.-]*\.slice)$/,
  );
  if (plan.runtime !== undefined) checkText("runtime", plan.runtime, /^[a-z0-9][a-z0-9._-]{0,63}$/);

  if (plan.entrypoint?.length === 0) throw new RangeError("entrypoint: empty");
  for (const word of [...(plan.entrypoint ?? []), ...(plan.args ?? [])]) checkNoNul("command", word);
  for (const [name, value] of Object.entries(plan.env)) {
    checkText("env", name, /^[^=\0]+$/);
    checkNoNul(`env.${name}`, value);
  }
  if (plan.workingDir !== undefined) checkDirectory("workingDir", plan.workingDir);
  if (plan.imageVolumes.length > maxImageVolumes) {
    throw new RangeError(`imageVolumes: ${plan.imageVolumes.length} is above ${maxImageVolumes}`);
  }
  for (const path of plan.imageVolumes) {
    checkDirectory("imageVolumes", path);
    if (path === "/") throw new RangeError("imageVolumes: the root cannot be a volume");
    if (plan.toolbox !== undefined && (path === toolboxPath || path.startsWith(`${toolboxPath}/`)))
      throw new RangeError(`imageVolumes: ${path} is where the toolbox is`);
  }
  checkMounts(plan);
  checkContainerNetwork(plan.network);
}

function checkInteger(field: string, value: number, least: number, most: number): void {
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    throw new RangeError(`${field}: ${value} is no integer from ${least} to ${most}`);
  }
}

function checkText(field: string, value: string, shape: RegExp): void {
  if (!shape.test(value))
    throw new RangeError(`${field}: ${JSON.stringify(value)} is not of the form ${shape}`);
}

function checkNoNul(field: string, value: string): void {
  if (value.includes("\0")) throw new RangeError(`${field}: holds a NUL byte`);
}

// A colon would end the path in the engine's own notation; a working directory below /proc is CVE-2024-21626.
function checkDirectory(field: string, path: string): void {
  const parts = path.split("/").slice(1);
  const isPlain = path === "/" || parts.every((part) => part !== "" && part !== "." && part !== "..");
  if (!path.startsWith("/") || !isPlain || /[\0:\n]/.test(path)) {
    throw new RangeError(`${field}: ${JSON.stringify(path)} is no plain absolute path`);
  }
  if (["proc", "sys", "dev"].includes(parts[0] ?? "")) {
    throw new RangeError(`${field}: ${JSON.stringify(path)} lies in a kernel file system`);
  }
}
