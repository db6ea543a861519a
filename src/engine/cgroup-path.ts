// Where the kernel keeps a container's accounts and limits: from a process id to directories, under either version
// of cgroups and either driver of the engine.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** One directory per controller; under version 2 they are all the same one. */
export interface CgroupPaths {
  readonly version: 1 | 2;
  readonly memory: string;
  readonly cpu: string;
  readonly cpuacct: string;
  readonly pids: string;
  readonly blkio: string;
  readonly freezer: string;
}

export interface CgroupPathOptions {
  /** The full id: a process that lives elsewhere is refused, as process ids are reused. */
  readonly containerId: string;
  /** Default `/proc`. */
  readonly procRoot?: string;
  /** Default `/sys/fs/cgroup`. */
  readonly cgroupRoot?: string;
}

/**
 * The cgroup directories of a container's first process, by the process id on the host.
 *
 * @throws if the process is gone (`ENOENT`, `ESRCH`) or is not in the container's cgroup.
 */
export function cgroupPathsOf(pid: number, options: CgroupPathOptions): CgroupPaths {
  const { containerId, procRoot = "/proc", cgroupRoot = "/sys/fs/cgroup" } = options;
  const table = readFileSync(join(procRoot, String(pid), "cgroup"), "utf8");
  const paths = new Map<string, string>();
  for (const line of table.trim().split("\n")) {
    const [, id, list, path] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? [];
    if (id === undefined || list === undefined || path === undefined) continue;
    // several controllers may share a mount, e.g. `cpu,cpuacct`
    for (const controller of list.split(",")) paths.set(controller, path);
  }

  const directory = (controller: string, path: string | undefined, mount: string): string => {
    if (path === undefined) throw new Error(`process ${pid} has no ${controller} cgroup`);
    if (!path.includes(containerId)) {
      throw new Error(`process ${pid} is in cgroup ${path}, not in that of container ${containerId}`);
    }
    return join(mount, path);
  };

  if (!paths.has("memory")) {
    const unified = directory("unified", paths.get(""), cgroupRoot);
    return {
      version: 2,
      memory: unified,
      cpu: unified,
      cpuacct: unified,
      pids: unified,
      blkio: unified,
      freezer: unified,
    };
  }
  const v1 = (controller: string) => {
    const shared = join(cgroupRoot, "cpu,cpuacct");
    const own = join(cgroupRoot, controller);
    return directory(
      controller,
      paths.get(controller),
      !existsSync(own) && existsSync(shared) ? shared : own,
    );
  };
  return {
    version: 1,
    memory: v1("memory"),
    cpu: v1("cpu"),
    cpuacct: v1("cpuacct"),
    pids: v1("pids"),
    blkio: v1("blkio"),
    freezer: v1("freezer"),
  };
}

export interface CgroupPlace {
  readonly containerId: string;
  /** `/a/b` under the cgroupfs driver, `a-b.slice` under systemd's. */
  readonly parent: string;
  readonly version: 1 | 2;
  /** Default `/sys/fs/cgroup`. */
  readonly cgroupRoot?: string;
}

/**
 * The cgroup directories that the engine gives a container, without asking it or any process: how a list alone suffices
 * to take up hundreds of running containers. They exist only while the container runs.
 */
export function cgroupPathsAt({
  containerId,
  parent,
  version,
  cgroupRoot = "/sys/fs/cgroup",
}: CgroupPlace): CgroupPaths {
  const isSlice = parent.endsWith(".slice");
  const path = join(parentPath(parent), isSlice ? `docker-${containerId}.scope` : containerId);
  return cgroupDirectories(path, { version, cgroupRoot });
}

/** The directories of the cgroup at a path within its hierarchies, whether there is one or not. */
export function cgroupDirectories(
  path: string,
  { version, cgroupRoot }: { readonly version: 1 | 2; readonly cgroupRoot: string },
): CgroupPaths {
  const directory = (controller: string) => {
    if (version === 2) return join(cgroupRoot, path);
    return join(hierarchyOf(controller, cgroupRoot), path);
  };
  return {
    version,
    memory: directory("memory"),
    cpu: directory("cpu"),
    cpuacct: directory("cpuacct"),
    pids: directory("pids"),
    blkio: directory("blkio"),
    freezer: directory("freezer"),
  };
}

/** Where hierarchies of version 1 are, by controller: they are mounted as the host starts. */
const hierarchies = new Map<string, string>();

function hierarchyOf(controller: string, cgroupRoot: string): string {
  const own = join(cgroupRoot, controller);
  const known = hierarchies.get(own);
  if (known !== undefined) return known;
  const shared = join(cgroupRoot, "cpu,cpuacct");
  const isOfCpu = controller === "cpu" || controller === "cpuacct";
  const isShared = isOfCpu && !existsSync(own) && existsSync(shared);
  const found = isShared ? shared : own;
  if (existsSync(found)) hierarchies.set(own, found);
  return found;
}

/**
 * The path of a parent within its hierarchies. systemd nests slices by the hyphens of their names: `a-b.slice` is at
 * `a.slice/a-b.slice` (systemd.slice(5)).
 */
export function parentPath(parent: string): string {
  if (!parent.endsWith(".slice")) return parent;
  const parts = parent.slice(0, -".slice".length).split("-");
  return join(...parts.map((_, index) => `${parts.slice(0, index + 1).join("-")}.slice`));
}
