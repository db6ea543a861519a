// Where a sandbox's toolbox is reached from the host: the directory of its sockets, through a process of the container. Nothing that
// is inside can lead out: each name is opened by itself, without following a link, and what was opened is looked at.

import { closeSync, constants, fstatSync, openSync, statfsSync, statSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { type CgroupPlace, cgroupPathsAt, cgroupPathsOf } from "../engine/cgroup-path.ts";
import type { DirectoryIdentity } from "../engine/container-plan.ts";
import { firstProcessIn, oPath, openInside } from "../engine/mount-read-back.ts";
import { toolboxPath } from "../engine/toolbox-mount.ts";

export interface RunDirectory {
  /** Of the directory, opened as a name. */
  readonly descriptor: number;
  readonly device: number;
}

export interface PlaceOptions {
  readonly place: CgroupPlace;
  /** Of the toolbox's directory on the host. */
  readonly identity: DirectoryIdentity;
  /** The sandbox's user. */
  readonly uid: number;
}

const followNothing = oPath | constants.O_NOFOLLOW;

/** The directory of the sockets, which the caller closes. Undefined if the container has no process, or sees another toolbox. */
export function openRunDirectory({ place, identity, uid }: PlaceOptions): RunDirectory | undefined {
  const root = openRoot(place);
  if (root === undefined) return undefined;
  try {
    const toolbox = openInside(`/proc/self/fd/${root}`, toolboxPath);
    if (toolbox === undefined) return undefined;
    try {
      const { dev, ino } = fstatSync(toolbox);
      return dev === identity.device && ino === identity.inode ? openRun(toolbox, uid, dev) : undefined;
    } finally {
      closeSync(toolbox);
    }
  } finally {
    closeSync(root);
  }
}

/**
 * The root of the container's first process; of no other, as one that is on its way in has the host's. Process ids are reused, so it
 * counts only if that process is in the container's cgroup *after* it was opened.
 */
function openRoot(place: CgroupPlace): number | undefined {
  const pid = firstProcessIn(cgroupPathsAt(place).pids);
  if (pid === undefined || isOwnNamespace(pid)) return undefined;
  const root = unlessRefused(() => openSync(`/proc/${pid}/root`, oPath | constants.O_DIRECTORY));
  if (root === undefined) return undefined;
  if (unlessRefused(() => cgroupPathsOf(pid, place)) !== undefined) return root;
  closeSync(root);
  return undefined;
}

const isOwnNamespace = (pid: number): boolean =>
  unlessRefused(() => statSync(`/proc/${pid}/ns/mnt`).ino) === statSync("/proc/self/ns/mnt").ino;

/** From include/uapi/linux/magic.h. */
const tmpfsMagic = 0x01021994;

/** What is mounted there: in memory, the sandbox's user's, and not the toolbox's own file system. */
function openRun(toolbox: number, uid: number, outside: number): RunDirectory | undefined {
  const descriptor = unlessRefused(() =>
    openSync(`/proc/self/fd/${toolbox}/run`, followNothing | constants.O_DIRECTORY),
  );
  if (descriptor === undefined) return undefined;
  const { dev: device, uid: owner } = fstatSync(descriptor);
  const isMounted = device !== outside && statfsSync(`/proc/self/fd/${descriptor}`).type === tmpfsMagic;
  if (isMounted && owner === uid) return { descriptor, device };
  closeSync(descriptor);
  return undefined;
}

/**
 * Connects to a socket by its name in the directory. `absent`: there is none, or nobody listens on it. `other`: what is there is no socket
 * of the sandbox's. `busy`: who listens takes none now.
 */
export async function connectIn(
  { descriptor, device }: RunDirectory,
  name: string,
  uid: number,
): Promise<Socket | "absent" | "other" | "busy"> {
  let socket: number;
  try {
    socket = openSync(`/proc/self/fd/${descriptor}/${name}`, followNothing);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return "absent";
    throw error;
  }
  try {
    const found = fstatSync(socket);
    if (!found.isSocket() || found.uid !== uid || found.dev !== device) return "other";
    // through the descriptor, so that it is the one that was looked at, and the path is short
    return await connected(`/proc/self/fd/${socket}`);
  } finally {
    closeSync(socket);
  }
}

/** What arrives is copied before the next comes, so all connections share it: none has to set memory aside for each reading. */
const incoming = Buffer.alloc(65_536);

function connected(path: string): Promise<Socket | "absent" | "busy"> {
  return new Promise((resolve, reject) => {
    const onread = {
      buffer: incoming,
      callback: (length: number, bytes: Uint8Array) => {
        socket.emit("data", bytes.subarray(0, length));
        return true;
      },
    };
    const socket = createConnection({ path, onread });
    const failed = (error: Error) => {
      socket.destroy();
      const code = codeOf(error);
      if (code === "ECONNREFUSED" || code === "ENOENT") resolve("absent");
      else if (code === "EAGAIN") resolve("busy");
      else reject(error);
    };
    socket.once("error", failed);
    socket.once("connect", () => {
      socket.off("error", failed);
      resolve(socket);
    });
  });
}

const codeOf = (error: unknown) => (error instanceof Error && "code" in error ? error.code : undefined);

/** A process that has ended, or is another's now, is no failure. */
function unlessRefused<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
