// What the engine says of itself that matters to whoever examines the host: versions, what it enforces, how it is set up.

import type Docker from "dockerode";

export interface EngineDiagnosis {
  /** Its own, and those of the programs that it runs containers with; absent where it does not tell. */
  readonly versions: {
    readonly engine: string;
    readonly containerd?: string;
    readonly runc?: string;
  };
  readonly defaultRuntime: string;
  /** Whether containers go on while it is restarted. */
  readonly liveRestore: boolean;
  /** Kinds of limits that the kernel enforces for it. */
  readonly enforces: {
    readonly memory: boolean;
    readonly swap: boolean;
    readonly cpu: boolean;
    readonly pids: boolean;
  };
  /** Names as "seccomp", "apparmor", "selinux", "userns", "rootless", "cgroupns". */
  readonly security: readonly string[];
  readonly storageDriver: string;
  readonly logDrivers: readonly string[];
  /** The program that runs as process 1 of a container; empty if it has none. */
  readonly initProgram: string;
  /** Its own words on what is wrong with the host. */
  readonly warnings: readonly string[];
}

/** Fields that the client's types lack, or have wrong. */
interface RawInfo {
  readonly LiveRestoreEnabled?: boolean;
  readonly MemoryLimit?: boolean;
  readonly SwapLimit?: boolean;
  readonly CpuCfsQuota?: boolean;
  readonly PidsLimit?: boolean;
  readonly SecurityOptions?: readonly string[] | null;
  readonly Driver?: string;
  readonly DefaultRuntime?: string;
  readonly Plugins?: { readonly Log?: readonly string[] | null };
  readonly InitBinary?: string;
  readonly Warnings?: readonly string[] | null;
}

export async function diagnose(docker: Docker): Promise<EngineDiagnosis> {
  const [version, info] = await Promise.all([docker.version(), docker.info()]);
  return diagnosisOf(version, info as RawInfo);
}

interface RawVersion {
  readonly Version: string;
  readonly Components?: readonly { readonly Name: string; readonly Version: string }[];
}

export function diagnosisOf(version: RawVersion, info: RawInfo): EngineDiagnosis {
  const component = (name: string) => version.Components?.find((one) => one.Name === name)?.Version;
  const [containerd, runc] = [component("containerd"), component("runc")];
  return {
    versions: {
      engine: version.Version,
      ...(containerd === undefined ? {} : { containerd }),
      ...(runc === undefined ? {} : { runc }),
    },
    defaultRuntime: info.DefaultRuntime ?? "",
    liveRestore: info.LiveRestoreEnabled === true,
    enforces: {
      memory: info.MemoryLimit === true,
      swap: info.SwapLimit === true,
      cpu: info.CpuCfsQuota === true,
      pids: info.PidsLimit === true,
    },
    // each as "name=seccomp,profile=default"
    security: (info.SecurityOptions ?? []).map((option) => /^name=([^,]*)/.exec(option)?.[1] ?? option),
    storageDriver: info.Driver ?? "",
    logDrivers: info.Plugins?.Log ?? [],
    initProgram: info.InitBinary ?? "",
    warnings: info.Warnings ?? [],
  };
}
