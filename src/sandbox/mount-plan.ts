// From a spec's mounts to those of a container: names of the configuration become directories and volumes of this host.

import { lstatSync } from "node:fs";
import type { Config } from "../config/config.ts";
import { isWithin } from "../config/mount-path.ts";
import type { BindMount, DirectoryIdentity, Mount, VolumeMount } from "../engine/container-plan.ts";
import { directoryOptions, memoryOptions, nfsOptions } from "../engine/mounts.ts";
import { toolboxPath } from "../engine/toolbox-mount.ts";
import { messageOf, SandboxdError } from "../errors.ts";
import { labelPrefix } from "./labels.ts";
import type { SandboxRecord, SharedMount, VolumeMount as VolumeUse } from "./record.ts";

/** What a host lets sandboxes see, by name. */
export type MountSources = Pick<Config, "shared" | "volumes">;

interface Place {
  readonly hostId: string;
  readonly sources: MountSources;
}

type Owner = Pick<SandboxRecord, "tenant" | "uid">;

const defaultInodes = 16_384;

/**
 * In order of target. `workspace` is the bind of the spec's workspace.
 *
 * @throws SandboxdError HARDENING_MISMATCH if a name is no longer configured, or its directory not to be shared;
 * IMAGE_UNSUPPORTED for an image that declares a VOLUME inside of one, or where the toolbox is.
 */
export function mountsOf(
  record: Owner & Pick<SandboxRecord, "spec" | "imageVolumes" | "toolbox">,
  workspace: BindMount | undefined,
  place: Place,
): readonly Mount[] {
  const { tmpfs = [], shared = [], volumes = [] } = record.spec;
  const mounts: readonly Mount[] = [
    ...(workspace === undefined ? [] : [workspace]),
    ...tmpfs.map(({ path, sizeBytes, inodes }) => ({
      kind: "tmpfs" as const,
      target: path,
      sizeBytes,
      inodes,
    })),
    ...shared.map((mount) => sharedMountOf(mount, place)),
    ...volumes.map((mount) => volumeMountOf(mount, record, place)),
  ];
  const reserved = record.imageVolumes.find((volume) => isWithin(volume, toolboxPath));
  if (reserved !== undefined && record.toolbox !== undefined) {
    throw new SandboxdError(
      "IMAGE_UNSUPPORTED",
      `the image declares VOLUME ${reserved}, where the toolbox is`,
      {
        hint: `use an image without a VOLUME in ${toolboxPath}`,
      },
    );
  }
  for (const { target } of mounts) {
    const inside = record.imageVolumes.find((volume) => volume !== target && isWithin(volume, target));
    if (inside === undefined) continue;
    throw new SandboxdError("IMAGE_UNSUPPORTED", `the image declares VOLUME ${inside}, inside of ${target}`, {
      hint: "have what is mounted there seen elsewhere, or use an image without that VOLUME",
    });
  }
  return mounts.toSorted((a, b) => (a.target < b.target ? -1 : 1));
}

function sharedMountOf({ name, path }: SharedMount, { hostId, sources }: Place): VolumeMount {
  const { directory } = sourceOf(sources.shared, name, `shared.${name}`);
  if (directory === undefined) throw unshared(name, "it names no directory");
  // `_` is in none of the names, so that no two of them make one
  const volume = `sandboxd-${hostId}_shared_${name}`;
  return {
    kind: "volume",
    name: volume,
    options: directoryOptions(directory),
    labels: labelsOf(hostId, volume),
    target: path,
    readOnly: true,
    identity: identityOf(name, directory),
  };
}

function volumeMountOf({ name, path, readOnly }: VolumeUse, owner: Owner, place: Place): VolumeMount {
  const { hostId, sources } = place;
  const rules = sourceOf(sources.volumes, name, `volumes.${name}`);
  const isTenants = rules.scope === "tenant";
  const volume = `sandboxd-${hostId}_volume_${name}${isTenants ? `_${owner.tenant}` : ""}`;
  const common = { kind: "volume", target: path } as const;
  if (rules.driver === "nfs") {
    const isReadOnly = readOnly || rules.readOnly;
    const own = isReadOnly ? `${volume}_ro` : volume;
    const options = nfsOptions({
      address: rules.address ?? "",
      path: (rules.export ?? "").replaceAll("{tenant}", owner.tenant),
      options: rules.options ?? ["vers=4"],
      readOnly: isReadOnly,
    });
    return { ...common, name: own, options, labels: labelsOf(hostId, own), readOnly: isReadOnly };
  }
  const size = { bytes: rules.sizeBytes ?? 0, inodes: rules.inodes ?? defaultInodes };
  const options = memoryOptions(
    size,
    isTenants ? { uid: owner.uid, mode: "0700" } : { uid: 0, mode: "1777" },
  );
  return { ...common, name: volume, options, labels: labelsOf(hostId, volume), readOnly, size };
}

/** By the first of them, the host's volumes are listed. */
function labelsOf(hostId: string, volume: string): Readonly<Record<string, string>> {
  return { [`${labelPrefix}host`]: hostId, [`${labelPrefix}volume`]: volume };
}

function sourceOf<T>(table: Readonly<Record<string, T>>, name: string, key: string): T {
  const found = Object.hasOwn(table, name) ? table[name] : undefined;
  if (found !== undefined) return found;
  throw new SandboxdError("HARDENING_MISMATCH", `[${key}] is no longer in this host's configuration`, {
    hint: `put [${key}] back and restart the daemon, or delete the sandbox`,
  });
}

/** Of a directory that nobody but root can exchange for another. */
function identityOf(name: string, directory: string): DirectoryIdentity {
  const parts = directory.split("/").slice(1);
  const above = ["/", ...parts.slice(0, -1).map((_, index) => `/${parts.slice(0, index + 1).join("/")}`)];
  try {
    for (const parent of above) {
      const found = lstatSync(parent);
      if (!found.isDirectory()) throw unshared(name, `${parent} is a link, or no directory`);
      if (found.uid !== 0 || (found.mode & 0o022) !== 0)
        throw unshared(name, `${parent} is not root's alone to write to`);
    }
    const found = lstatSync(directory);
    if (!found.isDirectory()) throw unshared(name, `${directory} is a link, or no directory`);
    return { device: found.dev, inode: found.ino };
  } catch (error) {
    if (error instanceof SandboxdError) throw error;
    throw unshared(name, messageOf(error));
  }
}

function unshared(name: string, why: string): SandboxdError {
  return new SandboxdError("HARDENING_MISMATCH", `[shared.${name}] cannot be shared: ${why}`, {
    hint: "see docs/mounts.md for what a shared directory must be",
    metadata: { shared: name },
  });
}
