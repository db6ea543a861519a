// The mounts of a plan: their bounds, and what the engine is asked for and shows of them.

import type { HostConfig, MountSettings } from "dockerode";
import type { BindMount, ContainerPlan, Mount, ToolboxMount, VolumeMount } from "./container-plan.ts";
import { toolboxPath, toolboxRun } from "./toolbox-mount.ts";

const mostMounts = 64;
const KiB = 1_024;

/** What every volume is mounted with, so that what is seen inside inherits it. */
const volumeFlags = ["nosuid", "nodev", "private"] as const;

/** @throws RangeError naming the mount and what is wrong with it. */
export function checkMounts({ mounts, imageVolumes, toolbox }: ContainerPlan): void {
  if (toolbox !== undefined && !isPlain(toolbox.source))
    throw new RangeError(`toolbox: ${JSON.stringify(toolbox.source)} is no plain absolute path`);
  if (mounts.length > mostMounts) throw new RangeError(`mounts: ${mounts.length} is above ${mostMounts}`);
  for (const [index, mount] of mounts.entries()) {
    const { target } = mount;
    const fail = (what: string) => {
      throw new RangeError(`mounts: ${JSON.stringify(target)} ${what}`);
    };
    // a comma would end the path in the engine's own notation, and a blank is written otherwise in the kernel's
    if (!isPlain(target) || !/^[A-Za-z0-9._/-]+$/.test(target)) fail("is no plain absolute path");
    if (/^\/(tmp|dev|proc|sys)(\/|$)/.test(target)) fail("is where others are mounted");
    if (toolbox !== undefined && (target === toolboxPath || isIn(target, toolboxPath)))
      fail("is where the toolbox is");
    const wrongly = mounts
      .slice(0, index)
      .find((before) => before.target >= target || isIn(target, before.target));
    if (wrongly !== undefined) fail(`is in or not after ${wrongly.target}`);
    const hidden = imageVolumes.find((volume) => volume !== target && isIn(volume, target));
    if (hidden !== undefined) fail(`is above the image's volume ${hidden}`);
    const wrong = problemOf(mount);
    if (wrong !== undefined) fail(wrong);
  }
}

function problemOf(mount: Mount): string | undefined {
  switch (mount.kind) {
    case "bind":
      return isPlain(mount.source) ? undefined : `has no plain source: ${JSON.stringify(mount.source)}`;
    case "tmpfs":
      return sizeProblem({ bytes: mount.sizeBytes, inodes: mount.inodes });
    case "volume": {
      const flags = mount.options.o.split(",");
      const lacking = volumeFlags.find((flag) => !flags.includes(flag));
      if (lacking !== undefined) return `has a volume without ${lacking}`;
      if (!/^[a-z0-9][a-zA-Z0-9_.-]{1,254}$/.test(mount.name)) return `has a volume named ${mount.name}`;
      return mount.size === undefined ? undefined : sizeProblem(mount.size);
    }
  }
}

function sizeProblem({ bytes, inodes }: { readonly bytes: number; readonly inodes: number }) {
  if (!Number.isSafeInteger(bytes) || bytes < 64 * KiB || bytes > KiB ** 5) return `has a size of ${bytes}`;
  const isCount = Number.isSafeInteger(inodes) && inodes >= 16 && inodes < 2 ** 31;
  return isCount ? undefined : `has ${inodes} inodes`;
}

// a colon or a comma would end the path in the engine's own notation
function isPlain(path: string): boolean {
  const parts = path.split("/").slice(1);
  return (
    path.startsWith("/") &&
    parts.every((part) => part !== "" && part !== "." && part !== "..") &&
    !/[\0:,\n]/.test(path)
  );
}

export function isIn(path: string, directory: string): boolean {
  return path.startsWith(`${directory}/`);
}

/**
 * What the engine is to mount, in order of target. A directory that cannot be written to is a volume: runtimes that make a mount
 * read-only drop its nosuid and nodev (seen of runc 1.1), so it must be all three before the container gets it.
 */
export function engineMounts(plan: ContainerPlan): readonly (BindMount | VolumeMount)[] {
  const asked = plan.mounts.flatMap((mount) => {
    if (mount.kind === "tmpfs") return [];
    return mount.kind === "bind" && mount.readOnly ? [readOnlyVolume(plan, mount)] : [mount];
  });
  if (plan.toolbox === undefined) return asked;
  return [...asked, toolboxVolume(plan, plan.toolbox)].toSorted((a, b) => (a.target < b.target ? -1 : 1));
}

/** Everything that is mounted for a plan beside the engine's own, as a container is to see it. */
export function mountsSeen(plan: ContainerPlan): readonly Mount[] {
  const { mounts, toolbox } = plan;
  return toolbox === undefined ? mounts : [...mounts, toolboxVolume(plan, toolbox), toolboxRun];
}

/** One for all containers that have the same, so the engine mounts it once. */
function toolboxVolume(plan: ContainerPlan, { volume, source, identity }: ToolboxMount): VolumeMount {
  const labels = { ...hostLabelOf(plan), [`${plan.labelPrefix}volume`]: volume };
  const options = directoryOptions(source);
  return { kind: "volume", name: volume, options, labels, target: toolboxPath, readOnly: true, identity };
}

function hostLabelOf({ labels, labelPrefix }: ContainerPlan): Readonly<Record<string, string>> {
  const name = `${labelPrefix}host`;
  const host = labels[name];
  return host === undefined ? {} : { [name]: host };
}

function readOnlyVolume(plan: ContainerPlan, { source, target, identity }: BindMount): VolumeMount {
  return {
    kind: "volume",
    name: `${plan.name}${target.replaceAll("/", "_")}`,
    options: directoryOptions(source),
    labels: hostLabelOf(plan),
    target,
    readOnly: true,
    identity,
  };
}

/** Of a volume that shows a directory of the host, and nothing that is mounted below it. */
export function directoryOptions(source: string): VolumeMount["options"] {
  return { type: "none", device: source, o: ["bind", "ro", ...volumeFlags].join(",") };
}

/** Of a volume in the host's memory that belongs to a user. */
export function memoryOptions(
  size: { readonly bytes: number; readonly inodes: number },
  owner: { readonly uid: number; readonly mode: "0700" | "1777" },
): VolumeMount["options"] {
  const { uid, mode } = owner;
  const words = [
    `size=${size.bytes}`,
    `nr_inodes=${size.inodes}`,
    `uid=${uid}`,
    `gid=${uid}`,
    `mode=${mode}`,
  ];
  return { type: "tmpfs", device: "tmpfs", o: [...words, ...volumeFlags].join(",") };
}

/** Of a volume on an NFS server. */
export function nfsOptions(nfs: {
  readonly address: string;
  readonly path: string;
  readonly options: readonly string[];
  readonly readOnly: boolean;
}): VolumeMount["options"] {
  const words = [`addr=${nfs.address}`, ...nfs.options, ...(nfs.readOnly ? ["ro"] : [])];
  return { type: "nfs", device: `:${nfs.path}`, o: [...words, ...volumeFlags].join(",") };
}

/** Whether the runtime has to make it read-only, as the volume is not. Those that drop nosuid for it are seen after the start. */
function isMadeReadOnly(mount: VolumeMount): boolean {
  return mount.readOnly && !mount.options.o.split(",").includes("ro");
}

type EngineMount = MountSettings & { readonly BindOptions?: { readonly NonRecursive?: boolean } };

/** The part of the engine's `HostConfig`. */
export function mountSettings(plan: ContainerPlan): Pick<HostConfig, "Mounts"> {
  const settings = engineMounts(plan).map((mount): EngineMount => {
    if (mount.kind === "bind") {
      // what is mounted below is nobody's to see: its flags are its own
      const BindOptions = { Propagation: "rprivate" as const, NonRecursive: true };
      return { Type: "bind", Source: mount.source, Target: mount.target, BindOptions };
    }
    return {
      Type: "volume",
      Source: mount.name,
      Target: mount.target,
      ...(isMadeReadOnly(mount) ? { ReadOnly: true } : {}),
      // one that was removed just now is made again as it was
      VolumeOptions: {
        NoCopy: true,
        Labels: { ...mount.labels },
        DriverConfig: { Name: "local", Options: { ...mount.options } },
      },
    };
  });
  return settings.length === 0 ? {} : { Mounts: settings };
}

/** What a container's inspection tells of one mount, as far as it is to be compared. */
export interface ShownMount {
  readonly Type: string;
  readonly Name?: string;
  readonly Driver?: string;
  readonly Source: string;
  readonly Destination: string;
  readonly RW: boolean;
  readonly Propagation: string;
}

/** What the engine must show, in order of destination. Where it keeps a volume is its own affair. */
export function expectedMounts(plan: ContainerPlan): readonly ShownMount[] {
  return engineMounts(plan).map((mount) =>
    mount.kind === "bind"
      ? {
          Type: "bind",
          Source: mount.source,
          Destination: mount.target,
          RW: true,
          Propagation: "rprivate",
        }
      : {
          Type: "volume",
          Name: mount.name,
          Driver: "local",
          Source: `…/volumes/${mount.name}/_data`,
          Destination: mount.target,
          RW: !isMadeReadOnly(mount),
          Propagation: "",
        },
  );
}

/** An inspection's mounts in the same form. */
export function shownMounts(inspected: readonly (Partial<ShownMount> & object)[]): readonly ShownMount[] {
  return inspected
    .map(({ Type = "", Name, Driver, Source = "", Destination = "", RW = true, Propagation = "" }) => ({
      Type,
      ...(Name === undefined || Name === "" ? {} : { Name }),
      ...(Driver === undefined || Driver === "" ? {} : { Driver }),
      Source: Type === "volume" ? Source.replace(/^.*(?=\/volumes\/[^/]+\/_data$)/, "…") : Source,
      Destination,
      RW,
      Propagation,
    }))
    .toSorted((a, b) => (a.Destination < b.Destination ? -1 : 1));
}
