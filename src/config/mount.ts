// The keys that say what a host lets its sandboxes see besides their images: directories that it shares, volumes that it
// declares, and what of them a template takes.

import { choice, flag, integer, list, named, section, size, text } from "./field.ts";
import { resourceBounds } from "./resource.ts";
import * as rule from "./rule.ts";

export const sharedTable = () =>
  named({
    meaning:
      "A directory of the host that sandboxes may see, read-only. NAME as of templates. See docs/mounts.md.",
    namePattern: rule.templateName,
    item: section("A shared directory.", {
      directory: text(rule.plainDirectory, {
        meaning: "Required. Without links in it, and every directory above it root's own to write to.",
      }),
    }),
  });

export const volumesTable = () =>
  named({
    meaning: "A volume that sandboxes may use. NAME as of templates. See docs/mounts.md.",
    namePattern: rule.templateName,
    item: section("A volume.", {
      driver: choice({
        of: ["tmpfs", "nfs"],
        meaning: "Required. Memory of the host, or a directory of an NFS server.",
      }),
      scope: choice({
        of: ["tenant", "host"],
        default: "tenant",
        meaning: "Whether each tenant has one of its own, or all of the host share one.",
      }),
      read_only: flag({ default: false, meaning: "nfs: whether no sandbox may write to it." }),
      size_bytes: size({
        min: resourceBounds.tmpfs_bytes.min,
        max: resourceBounds.tmpfs_bytes.max,
        meaning: "tmpfs, required: its size.",
      }),
      inodes: integer({
        min: resourceBounds.tmpfs_inodes.min,
        max: resourceBounds.tmpfs_inodes.max,
        meaning: `tmpfs: most files and directories in it. Left out: ${resourceBounds.tmpfs_inodes.default}.`,
      }),
      address: text(rule.nfsAddress, { meaning: "nfs, required: name or address of its server." }),
      export: text(rule.nfsExport, {
        meaning:
          "nfs, required: the server's directory. {tenant} stands for the tenant's name, and must be there if scope is tenant.",
      }),
      options: list(rule.nfsOption, {
        max: 16,
        meaning: "nfs: options of the mount, besides nosuid and nodev. Left out: vers=4.",
      }),
    }),
  });

const path = (fallback: string) =>
  text(rule.mountTarget, { meaning: `Where its sandboxes see it. Left out: ${fallback}.` });

export const templateTmpfs = () =>
  named({
    meaning: "A directory in memory of each of its sandboxes, beside /tmp. At most 16.",
    namePattern: rule.templateName,
    item: section("A directory in memory.", {
      path: path("/ and NAME"),
      size_bytes: size({
        min: resourceBounds.tmpfs_bytes.min,
        max: resourceBounds.tmpfs_bytes.max,
        meaning:
          "Required. Its size; counts against memory as it is filled. Never more than the memory limit.",
      }),
      inodes: integer({
        min: resourceBounds.tmpfs_inodes.min,
        max: resourceBounds.tmpfs_inodes.max,
        meaning: `Most files and directories in it. Left out: ${resourceBounds.tmpfs_inodes.default}.`,
      }),
    }),
  });

export const templateShared = () =>
  named({
    meaning: "A directory of [shared.NAME] that its sandboxes see. At most 16.",
    namePattern: rule.templateName,
    item: section("A shared directory.", {
      path: path("/ and NAME"),
    }),
  });

export const templateVolumes = () =>
  named({
    meaning: "A volume of [volumes.NAME] that its sandboxes have. At most 16.",
    namePattern: rule.templateName,
    item: section("A volume.", {
      path: path("/ and NAME"),
      read_only: flag({ default: false, meaning: "Whether they cannot write to it." }),
    }),
  });
