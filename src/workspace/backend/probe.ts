// What of a host can keep workspaces within their limits, and which of it is used. Looking changes nothing; what is taken is proven
// first, with a small space of its own.

import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { messageOf, SandboxdError } from "../../errors.ts";
import type { Backend, BackendKind, Space } from "./backend.ts";
import { type Home, openHome } from "./home.ts";
import { mountOf, mounts, nearest } from "./mount-table.ts";
import { projectQuotaObstacle } from "./project-obstacle.ts";
import type { RunTool } from "./tool.ts";

export interface ProbeOptions {
  /** Where workspaces are to be kept. Need not be there yet. */
  readonly directory: string;
  readonly run: RunTool;
  /** Where the host's programs are. Default: where `runTool` looks. */
  readonly programs?: readonly string[] | undefined;
}

/** What a configuration may ask for. */
export type WantedBackend = "auto" | "btrfs" | "project-quota" | "loop-image" | "none";

export interface Probed {
  readonly kind: BackendKind;
  /** Why it cannot be used here; undefined if nothing speaks against it. */
  readonly obstacle: string | undefined;
}

export type Choice = { readonly backend: Backend } | { readonly obstacle: string; readonly hint: string };

/** The best comes first: the first two cost no more room than is used. */
const kinds: Readonly<Record<Exclude<WantedBackend, "auto" | "none">, BackendKind>> = {
  btrfs: "BTRFS",
  "project-quota": "PROJECT_QUOTA",
  "loop-image": "LOOP_IMAGE",
};

/** Takes the best that works here, or the one that is wanted. Resolves to why there is none otherwise. */
export async function chooseBackend(
  options: ProbeOptions & { readonly wanted: WantedBackend },
): Promise<Choice> {
  const { wanted } = options;
  if (wanted === "none") {
    return {
      obstacle: "the configuration asks for none",
      hint: 'set workspaces.backend to "auto" to have workspaces',
    };
  }
  const obstacles: string[] = [];
  for (const kind of wanted === "auto" ? Object.values(kinds) : [kinds[wanted]]) {
    try {
      const backend = await open(kind, options, prove);
      return { backend };
    } catch (error) {
      obstacles.push(`${kind}: ${messageOf(error)}`);
    }
  }
  return { obstacle: obstacles.join("; "), hint };
}

/**
 * Opens the backend of workspaces that are there. It is not proven: they may be used where no new one has room. Rejects with
 * WORKSPACES_UNAVAILABLE.
 */
export async function openBackend(kind: BackendKind, options: ProbeOptions): Promise<Backend> {
  try {
    return await open(kind, options);
  } catch (error) {
    const message = `${kind} cannot keep workspaces in ${options.directory}: ${messageOf(error)}`;
    throw new SandboxdError("WORKSPACES_UNAVAILABLE", message, { hint, cause: error });
  }
}

/** What speaks against each. Looks at the host, and changes nothing. */
export function probeAll(options: ProbeOptions): Promise<readonly Probed[]> {
  return Promise.all(Object.values(kinds).map((kind) => probe(kind, options)));
}

async function probe(kind: BackendKind, options: ProbeOptions): Promise<Probed> {
  try {
    return { kind, obstacle: rootObstacle() ?? (await obstacles[kind](options)) };
  } catch (error) {
    return { kind, obstacle: messageOf(error) };
  }
}

/** Where it fails, the directory is left as it was: workspaces that run from it do not notice. */
async function open(
  kind: BackendKind,
  options: ProbeOptions,
  check: (backend: Backend) => Promise<void> = async () => {},
): Promise<Backend> {
  const { obstacle } = await probe(kind, options);
  if (obstacle !== undefined) throw new Error(obstacle);
  const { directory, run } = options;
  const home = await openHome(directory, { run, isMounted: kind !== "LOOP_IMAGE" });
  try {
    const backend = await makers[kind]({ home, run });
    await check(backend);
    return backend;
  } catch (error) {
    if (home.isFresh) await home.close().catch(() => {});
    throw error;
  }
}

type Make = (options: { readonly home: Home; readonly run: RunTool }) => Promise<Backend>;

/** Only the one that is used is loaded: a daemon is to be small. */
const makers: Readonly<Record<BackendKind, Make>> = {
  BTRFS: async (options) => (await import("./btrfs.ts")).createBtrfs(options),
  PROJECT_QUOTA: async (options) => (await import("./project-quota.ts")).createProjectQuota(options),
  LOOP_IMAGE: async (options) => (await import("./loop-image.ts")).createLoopImage(options),
};

/** Nobody's: its name is no workspace's, its user and its project are beyond those that are given out. */
const probeSpace = { name: "sandboxd-probe", uid: 65_534, projectId: 2 ** 31 - 1_000 };

/** Each step reads back what the kernel shows. One that an earlier life of the daemon left is removed as well. */
async function prove(backend: Backend): Promise<void> {
  const limits = { bytes: 16 * 1_024 * 1_024, ...(backend.boundsInodes ? { inodes: 1_000 } : {}) };
  const space: Space = { ...probeSpace, limits };
  await backend.remove(space);
  await backend.create(space);
  try {
    await backend.ready(space);
  } finally {
    await backend.remove(space);
  }
}

const obstacles: Readonly<Record<BackendKind, (options: ProbeOptions) => Promise<string | undefined>>> = {
  async BTRFS({ directory, programs }) {
    const type = await typeOf(directory);
    if (type !== "btrfs") return `${directory} is on ${type}, not on btrfs`;
    return missing(["btrfs", "mount", "umount"], "btrfs-progs", programs);
  },
  PROJECT_QUOTA: ({ directory, run }) => projectQuotaObstacle(directory, { run }),
  async LOOP_IMAGE({ directory, programs }) {
    const type = await typeOf(directory);
    if (type !== undefined && copying.includes(type)) {
      return `${directory} is on ${type}, which writes what changes somewhere else, so that nothing can be reserved for an image`;
    }
    if (!(await isThere("/dev/loop-control")))
      return "the host has no loop devices: /dev/loop-control is not there";
    const tools = ["fallocate", "mkfs.ext4", "e2fsck", "fsfreeze", "mount", "umount", "cp"];
    return missing(tools, "e2fsprogs, util-linux and coreutils", programs);
  },
};

const copying: readonly string[] = ["btrfs", "bcachefs", "zfs"];

const hint =
  "keep workspaces on XFS or ext4 mounted with prjquota, or on btrfs, or have loop devices and e2fsprogs on the host";

function rootObstacle(): string | undefined {
  return process.getuid?.() === 0 ? undefined : "the daemon does not run as root, and cannot mount";
}

async function typeOf(directory: string): Promise<string | undefined> {
  return mountOf(await mounts(), await nearest(directory))?.type;
}

const programsOfHost: readonly string[] = [
  "/usr/local/sbin",
  "/usr/local/bin",
  "/usr/sbin",
  "/usr/bin",
  "/sbin",
  "/bin",
];

async function missing(
  programs: readonly string[],
  packages: string,
  directories: readonly string[] = programsOfHost,
): Promise<string | undefined> {
  for (const program of programs) {
    const found = await Promise.all(directories.map((one) => isThere(join(one, program), constants.X_OK)));
    if (!found.includes(true)) return `${program} is not on this host: install ${packages}`;
  }
  return undefined;
}

async function isThere(path: string, mode = constants.F_OK): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  );
}
