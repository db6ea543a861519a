// Turns a plan into what the engine's create call takes. Every value here is a constant or a bounded integer, and
// this is the only place where they are written down.

import type { ContainerCreateOptions, HostConfig } from "dockerode";
import { type ContainerLimits, type ContainerPlan, checkPlan } from "./container-plan.ts";
import { mountSettings } from "./mounts.ts";
import { seccompProfile } from "./seccomp.ts";
import { toolboxRun } from "./toolbox-mount.ts";

/** `HostConfig` with the fields that the client's types lack. */
interface HardenedHostConfig extends HostConfig {
  readonly CgroupnsMode: "private";
}

interface HardenedCreateOptions extends ContainerCreateOptions {
  readonly HostConfig: HardenedHostConfig;
}

/** Where a sandbox may always write, and its home unless the plan says otherwise. */
const writableDir = "/tmp";

/** One scheduling period: the kernel's default, which trades throttling latency against overhead well. */
const cpuPeriodMicros = 100_000;

/** The kernel's out-of-memory killer prefers a sandbox's process (0 is ordinary, 1000 the most) to the host's. */
const oomScoreAdj = 500;

/** Ample for programs' shared memory; without it the kernel allows an inode per two pages of the host's memory. */
const shmInodes = 4_096;

/** So many rotated files that at least three quarters of the newest output are always there. */
const logFiles = 4;

/**
 * The engine rotates before a line is written, so each file may pass its size by one line: 16 KiB of output in which
 * each byte becomes an escape of six, and the line's own fields.
 */
const logLineBytes = 128 * 1_024;

/** Kernel files that tell of the host or its other users. Absent ones are skipped by the runtime. */
const maskedPaths = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/devices/virtual/dmi",
  "/sys/devices/virtual/powercap",
  "/sys/firmware",
] as const;

/** Kernel knobs; the rest of /sys is mounted read-only as a whole. */
const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"] as const;

/**
 * The complete create call of a hardened container.
 *
 * @throws RangeError if the plan is out of its bounds.
 */
export function containerCreateOptions(plan: ContainerPlan): HardenedCreateOptions {
  checkPlan(plan);
  return {
    name: plan.name,
    Image: plan.imageId,
    ...(plan.entrypoint === undefined ? {} : { Entrypoint: [...plan.entrypoint] }),
    ...(plan.args === undefined ? {} : { Cmd: [...plan.args] }),
    Env: Object.entries({ HOME: writableDir, ...plan.env }).map(([name, value]) => `${name}=${value}`),
    WorkingDir: plan.workingDir ?? writableDir,
    Labels: { ...plan.labels },
    User: `${plan.uid}:${plan.gid}`,
    Hostname: plan.hostname,
    Domainname: "",
    StopSignal: plan.stopSignal,
    StopTimeout: plan.stopGraceSeconds,
    Healthcheck: { Test: ["NONE"] },
    AttachStdin: false,
    AttachStdout: false,
    AttachStderr: false,
    OpenStdin: false,
    StdinOnce: false,
    Tty: false,
    ...connection(plan),
    HostConfig: hostConfig(plan),
  };
}

// Engines before API 1.44 have one MAC for a container, and ignore one of an endpoint; from 1.52 on it is the other way round.
function connection({
  network,
}: ContainerPlan): Pick<ContainerCreateOptions, "MacAddress" | "NetworkingConfig"> {
  if (network.mode === "none") return {};
  const endpoint = { IPAMConfig: { IPv4Address: network.address }, MacAddress: network.mac };
  return {
    MacAddress: network.mac,
    NetworkingConfig: { EndpointsConfig: { [network.network]: endpoint } },
  };
}

function hostConfig(plan: ContainerPlan): HardenedHostConfig {
  const { limits } = plan;
  return {
    Privileged: false,
    CapDrop: ["ALL"],
    SecurityOpt: ["no-new-privileges", `seccomp=${seccompProfile}`],
    MaskedPaths: [...maskedPaths, ...thermalPaths(plan.engine.possibleCpus)],
    ReadonlyPaths: [...readonlyPaths],
    ReadonlyRootfs: plan.rootBytes === undefined,
    ...(plan.rootBytes === undefined ? {} : { StorageOpt: { size: `${plan.rootBytes}` } }),
    Init: true,
    IpcMode: "private",
    CgroupnsMode: "private",
    ...networkSettings(plan),
    Runtime: plan.runtime ?? "runc",
    Tmpfs: tmpfs(plan),
    ...mountSettings(plan),
    ShmSize: limits.shmBytes,
    CgroupParent: plan.cgroupParent,
    Memory: limits.memoryBytes,
    MemorySwap: limits.memoryBytes,
    // cgroup v2 has no such knob; there the engine would discard it with a warning.
    ...(plan.engine.cgroupVersion === 1 ? { MemorySwappiness: 0 } : {}),
    OomKillDisable: false,
    OomScoreAdj: oomScoreAdj,
    CpuPeriod: cpuPeriodMicros,
    CpuQuota: (limits.cpuMillis * cpuPeriodMicros) / 1_000,
    CpuShares: limits.cpuWeight,
    PidsLimit: limits.pids,
    Ulimits: [
      { Name: "nofile", Soft: limits.openFiles, Hard: limits.openFiles },
      { Name: "nproc", Soft: limits.processesPerUser, Hard: limits.processesPerUser },
      { Name: "core", Soft: 0, Hard: 0 },
    ],
    ...blockIo(limits),
    LogConfig: { Type: "json-file", Config: logOptions(limits.logBytes) },
    RestartPolicy: { Name: "no", MaximumRetryCount: 0 },
    PublishAllPorts: false,
    AutoRemove: false,
  };
}

// What is left out is taken from the engine's configuration or the host's own resolv.conf. "." is no domain at all.
function networkSettings({ network }: ContainerPlan): Partial<HostConfig> {
  if (network.mode === "none") return { NetworkMode: "none" };
  return {
    NetworkMode: network.network,
    Dns: [network.dns],
    DnsSearch: ["."],
    DnsOptions: ["timeout:2", "attempts:2"],
  };
}

function thermalPaths(possibleCpus: number): readonly string[] {
  return Array.from(
    { length: possibleCpus },
    (_, cpu) => `/sys/devices/system/cpu/cpu${cpu}/thermal_throttle`,
  );
}

// A tmpfs of this form, unlike one among the engine's mounts, takes a number of inodes, and it also keeps the engine
// from making a volume for a VOLUME of the image. Older runtimes give it the mode of the image's directory whatever
// `mode` says, so the sandbox's user owns it. Builds run what they made: only shared memory refuses execution.
function tmpfs(plan: ContainerPlan): Record<string, string> {
  const { tmpfsBytes, tmpfsInodes, shmBytes } = plan.limits;
  const owner = `uid=${plan.uid},gid=${plan.gid}`;
  const common = `rw,nosuid,nodev,mode=1777,${owner}`;
  const scratch = (bytes: number, inodes: number) => `${common},exec,size=${bytes},nr_inodes=${inodes}`;
  const mounted = new Set(plan.mounts.map(({ target }) => target));
  const scratchDirs = new Set([writableDir, ...plan.imageVolumes.filter((path) => !mounted.has(path))]);
  return {
    ...Object.fromEntries([...scratchDirs].map((path) => [path, scratch(tmpfsBytes, tmpfsInodes)])),
    ...Object.fromEntries(
      plan.mounts.flatMap((mount) =>
        mount.kind === "tmpfs" ? [[mount.target, scratch(mount.sizeBytes, mount.inodes)] as const] : [],
      ),
    ),
    "/dev/shm": `${common},noexec,size=${shmBytes},nr_inodes=${shmInodes}`,
    ...(plan.toolbox === undefined
      ? {}
      : {
          [toolboxRun.target]: `rw,nosuid,nodev,mode=0700,${owner},noexec,size=${toolboxRun.sizeBytes},nr_inodes=${toolboxRun.inodes}`,
        }),
  };
}

function logOptions(logBytes: number): Record<string, string> {
  return { "max-size": `${Math.floor(logBytes / logFiles) - logLineBytes}`, "max-file": `${logFiles}` };
}

function blockIo({ blockIo: io }: ContainerLimits): Partial<HostConfig> {
  if (io === undefined) return {};
  const throttle = (rate: number | undefined) =>
    rate === undefined ? [] : [{ Path: io.device, Rate: rate }];
  return {
    BlkioDeviceReadBps: throttle(io.readBytesPerSecond),
    BlkioDeviceWriteBps: throttle(io.writeBytesPerSecond),
    BlkioDeviceReadIOps: throttle(io.readOperationsPerSecond),
    BlkioDeviceWriteIOps: throttle(io.writeOperationsPerSecond),
  };
}
