// Reads from the kernel what a running container sees at each mount of its plan. The engine's word is not enough: runtimes drop
// flags, and what a path of the host names can have been exchanged.

import { closeSync, constants, fstatSync, openSync, readFileSync, statfsSync } from "node:fs";
import { join } from "node:path";
import type { DirectoryIdentity, Mount } from "./container-plan.ts";
import { isIn } from "./mounts.ts";

/** One thing that is not as planned. Of a size it is a limit that does not hold. */
export interface MountFault {
  readonly kind: "mount" | "limit";
  readonly text: string;
}

/** The kernel's line of one mount: proc_pid_mountinfo(5). */
interface KernelMount {
  readonly target: string;
  readonly flags: readonly string[];
  /** Whether mounts of another namespace come or go with it. */
  readonly isPropagated: boolean;
  readonly type: string;
}

/** The kernel rounds sizes up to pages; 64 KiB are the largest in use. */
const largestPageBytes = 65_536;

/**
 * Every fault of the plan's mounts, looked at through one process of the container: some system calls for each mount. Nothing that
 * is inside can lead out of it, and a server that does not answer is not asked.
 *
 * @throws what reading throws, if the process has ended.
 */
export function findMountFaults(
  mounts: readonly Mount[],
  pid: number,
  procRoot = "/proc",
): readonly MountFault[] {
  const seen = parseMountInfo(readFileSync(join(procRoot, String(pid), "mountinfo"), "utf8"));
  return mounts.flatMap((mount) => {
    const { target } = mount;
    // the last one is on top
    const found = seen.findLast((one) => one.target === target);
    if (found === undefined) return [fault("nothing is mounted there", target)];
    const inside = seen.find(
      (one) => isIn(one.target, target) && !mounts.some((planned) => planned.target === one.target),
    );
    return [
      ...flagFaults(mount, found),
      ...(inside === undefined ? [] : [fault(`something else is mounted at ${inside.target}`, target)]),
      ...directoryFaults(mount, found, join(procRoot, String(pid), "root")),
    ];
  });
}

function fault(text: string, target: string, kind: MountFault["kind"] = "mount"): MountFault {
  return { kind, text: `${target}: ${text}` };
}

export function parseMountInfo(text: string): readonly KernelMount[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [own = "", rest = ""] = line.split(" - ", 2);
      const [, , , , target = "", flags = "", ...propagation] = own.split(" ");
      return {
        target,
        flags: flags.split(","),
        isPropagated: propagation.some((word) => word.startsWith("shared:") || word.startsWith("master:")),
        type: rest.split(" ")[0] ?? "",
      };
    });
}

function flagFaults(mount: Mount, { flags, isPropagated, type }: KernelMount): readonly MountFault[] {
  const { target } = mount;
  const isReadOnly = mount.kind !== "tmpfs" && mount.readOnly;
  const isData = mount.kind === "tmpfs" && mount.noExec === true;
  const wanted = ["nosuid", "nodev", isReadOnly ? "ro" : "rw", ...(isData ? ["noexec"] : [])];
  const types = typesOf(mount);
  return [
    ...wanted.filter((flag) => !flags.includes(flag)).map((flag) => fault(`is not ${flag}`, target)),
    ...(isPropagated ? [fault("takes part in mounts of the host", target)] : []),
    ...(types === undefined || types.includes(type)
      ? []
      : [fault(`is a file system of type ${type}, not ${types[0]}`, target)]),
  ];
}

/** What the kernel may call its file system; undefined for whatever a directory is on. */
function typesOf(mount: Mount): readonly string[] | undefined {
  if (mount.kind === "tmpfs") return ["tmpfs"];
  if (mount.kind === "bind" || mount.options.type === "none") return undefined;
  return mount.options.type === "nfs" ? ["nfs", "nfs4"] : [mount.options.type];
}

function directoryFaults(mount: Mount, found: KernelMount, root: string): readonly MountFault[] {
  const identity = mount.kind === "tmpfs" ? undefined : mount.identity;
  const size = sizeOf(mount);
  if (identity === undefined && (size === undefined || found.type !== "tmpfs")) return [];
  const directory = openInside(root, mount.target);
  if (directory === undefined) return [fault("is not to be reached without a link", mount.target)];
  try {
    return [
      ...(identity === undefined ? [] : identityFaults(mount.target, identity, directory)),
      ...(size === undefined ? [] : sizeFaults(mount.target, size, directory)),
    ];
  } finally {
    closeSync(directory);
  }
}

function sizeOf(mount: Mount): { readonly bytes: number; readonly inodes: number } | undefined {
  if (mount.kind === "tmpfs") return { bytes: mount.sizeBytes, inodes: mount.inodes };
  return mount.kind === "volume" ? mount.size : undefined;
}

function identityFaults(
  target: string,
  { device, inode }: DirectoryIdentity,
  directory: number,
): readonly MountFault[] {
  const { dev, ino } = fstatSync(directory);
  if (dev === device && ino === inode) return [];
  return [fault(`is directory ${dev}:${ino}, not ${device}:${inode}: it was exchanged`, target)];
}

function sizeFaults(
  target: string,
  { bytes, inodes }: { readonly bytes: number; readonly inodes: number },
  directory: number,
): readonly MountFault[] {
  const { blocks, bsize, files } = statfsSync(`/proc/self/fd/${directory}`);
  const held = blocks * bsize;
  const isHeld = held >= bytes && held < bytes + largestPageBytes;
  return [
    ...(isHeld ? [] : [fault(`has ${held} bytes, not ${bytes}`, target, "limit")]),
    ...(files === inodes ? [] : [fault(`has ${files} inodes, not ${inodes}`, target, "limit")]),
  ];
}

/** From include/uapi/asm-generic/fcntl.h: opens a name without what it names, so that nothing happens there. */
export const oPath = 0o10000000;

/** Opens the directory of a path below a root, one component after the other, so that no link is followed. Undefined if there is none. */
export function openInside(root: string, path: string): number | undefined {
  let directory = openSync(root, oPath | constants.O_DIRECTORY);
  for (const part of path.split("/").slice(1)) {
    const parent = directory;
    try {
      directory = openSync(
        `/proc/self/fd/${parent}/${part}`,
        oPath | constants.O_DIRECTORY | constants.O_NOFOLLOW,
      );
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "ENOTDIR" || code === "ELOOP" || code === "ENOENT") return undefined;
      throw error;
    } finally {
      closeSync(parent);
    }
  }
  return directory;
}

/** Whether the root layer of a container is as large as planned, which the kernel shows where its quota holds. */
export function findRootFaults(rootBytes: number, pid: number, procRoot = "/proc"): readonly MountFault[] {
  const { blocks, bsize } = statfsSync(join(procRoot, String(pid), "root"));
  const held = blocks * bsize;
  if (held >= rootBytes - largestPageBytes && held <= rootBytes + largestPageBytes) return [];
  return [fault(`the layer has ${held} bytes, not ${rootBytes}`, "/", "limit")];
}

/** The container's first process, by its cgroup: others may be on their way in, still with the host's mounts. */
export function firstProcessIn(cgroup: string, procRoot = "/proc"): number | undefined {
  const pids = unlessGone(() => readFileSync(join(cgroup, "cgroup.procs"), "latin1")) ?? "";
  return pids
    .split("\n")
    .filter((pid) => pid !== "")
    .map(Number)
    .find((pid) => {
      const status = unlessGone(() => readFileSync(join(procRoot, String(pid), "status"), "latin1")) ?? "";
      // its number in each namespace of processes, the innermost last
      return /^NSpid:.*\t1$/m.test(status);
    });
}

/** ENOENT, ESRCH for what goes while it is read, ENODEV for a cgroup. */
function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" || code === "ESRCH" || code === "ENODEV") return undefined;
    throw error;
  }
}
