// Whether project quotas can be used where workspaces are to be kept. Looks, and changes nothing.

import { realpath } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { messageOf } from "../../errors.ts";
import { mountOf, mounts } from "./mount-table.ts";
import { isEnforced } from "./project-limits.ts";
import type { RunTool } from "./tool.ts";

const types = ["xfs", "ext4"];
/** XFS and ext4 show the one; the other is an older name. */
const mountOptions = ["prjquota", "pquota"];

/** Why project quotas cannot be used there; undefined if they can. The directory need not be there yet. */
export async function projectQuotaObstacle(
  directory: string,
  { run }: { readonly run: RunTool },
): Promise<string | undefined> {
  if (/\s/.test(directory)) return `${directory} has a blank in its path, which xfs_quota cannot take`;
  const mount = mountOf(await mounts(), await nearest(directory));
  if (mount === undefined) return `${directory} is on no mount that is known`;
  const { type, path, superOptions } = mount;
  if (!types.includes(type))
    return `${directory} is on ${type}, and only ${types.join(" and ")} have project quotas`;
  if (!superOptions.some((option) => mountOptions.includes(option))) {
    return `${path} is mounted without the option prjquota`;
  }
  try {
    const output = await run("xfs_quota", ["-f", "-x", "-c", "state -p", path]);
    return isEnforced(output) ? undefined : `${path} does not enforce project quotas`;
  } catch (error) {
    return `the quotas of ${path} cannot be read: ${messageOf(error)} (package xfsprogs, also for ext4)`;
  }
}

/** The closest directory above that is there, without links. */
async function nearest(directory: string): Promise<string> {
  const path = resolve(directory);
  try {
    return await realpath(path);
  } catch (error) {
    const isAbsent = error instanceof Error && "code" in error && error.code === "ENOENT";
    if (!isAbsent || path === "/") throw error;
    return nearest(dirname(path));
  }
}
