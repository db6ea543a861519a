// Which disk a directory lives on: the kernel throttles whole disks only.

import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { basename, dirname } from "node:path";

/** For example `/dev/vda` for a directory on its first partition; undefined where no disk is below. */
export function diskOf(directory: string): string | undefined {
  if (!existsSync(directory)) return undefined;
  const { dev } = statSync(directory);
  const link = `/sys/dev/block/${(dev >>> 8) & 0xfff}:${(dev & 0xff) | ((dev >>> 12) & 0xfff00)}`;
  if (!existsSync(link)) return undefined;
  const device = realpathSync(link);
  const disk = existsSync(`${device}/partition`) ? dirname(device) : device;
  const path = `/dev/${basename(disk)}`;
  // a disk that is only the shadow of others (a volume, a loop) is throttled nowhere the data really goes through
  return existsSync(path) && readFileSync(`${disk}/size`, "utf8").trim() !== "0" ? path : undefined;
}
