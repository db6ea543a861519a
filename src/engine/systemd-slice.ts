// Makes and changes parent cgroups that are slices of systemd (the engine's systemd driver). What is written past systemd, it
// undoes whenever it applies its own properties anew.

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { runProgram } from "../programs.ts";
import type { CgroupPaths } from "./cgroup-path.ts";
import { writeChanges } from "./group-files.ts";
import type { Change } from "./group-limits.ts";

export interface Slices {
  /** Starts the slice, with its limits from the first. */
  start(slice: string, changes: readonly Change[]): Promise<void>;
  /** Holds until the next boot. Whether the kernel took it, only its files say: systemd logs it, and reports success. */
  change(slice: string, paths: CgroupPaths, changes: readonly Change[]): Promise<void>;
  /** Ends an empty slice, if it was started, and has its limits forgotten. */
  stop(slice: string): Promise<void>;
}

/** systemd answers in milliseconds, unless it is reloading or the machine is out of breath. */
const timeoutMs = 20_000;

/**
 * Where `set-property --runtime` leaves a file for each property. `systemctl revert` would remove them too, but with all that
 * an administrator has set for the slice, and then have systemd load every unit of the host anew.
 */
const dropIns = "/run/systemd/system.control";

export function createSlices(version: 1 | 2, program: string): Slices {
  async function systemctl(...args: readonly string[]): Promise<void> {
    const { code, said } = await runProgram([program, "--no-ask-password", ...args], { timeoutMs });
    if (code !== 0) throw new Error(`${program} ${args.join(" ")}: ${said.trim() || `exited with ${code}`}`);
  }

  async function setProperties(slice: string, changes: readonly Change[]): Promise<void> {
    const properties = changes.map((change) => propertyOf(change, version));
    if (properties.length > 0) await systemctl("set-property", "--runtime", slice, ...properties);
  }

  /** Memory and swap together: systemd has no property for the file of version 1, and leaves it alone. */
  const isByFile = ({ limit }: Change) => version === 1 && limit === "swapBytes";

  return {
    async start(slice, changes) {
      await setProperties(
        slice,
        changes.filter((change) => !isByFile(change)),
      );
      await systemctl("start", slice);
    },
    async change(slice, paths, changes) {
      const split = changes.findIndex(isByFile);
      if (split === -1) return setProperties(slice, changes);
      await setProperties(slice, changes.slice(0, split));
      await writeChanges(paths, changes.slice(split, split + 1));
      await setProperties(slice, changes.slice(split + 1));
    },
    async stop(slice) {
      // without the job mode, what was started in it meanwhile would be stopped as well
      await systemctl("stop", "--job-mode=ignore-requirements", slice);
      await rm(join(dropIns, `${slice}.d`), { recursive: true, force: true });
    },
  };
}

function propertyOf({ limit, to }: Change, version: 1 | 2): string {
  const orInfinity = to === Number.POSITIVE_INFINITY ? "infinity" : String(to);
  switch (limit) {
    case "memoryBytes":
      return `MemoryMax=${orInfinity}`;
    case "swapBytes":
      return `MemorySwapMax=${orInfinity}`;
    case "cpuMillis":
      // in per cent of one CPU, over 100 ms unless told otherwise
      return `CPUQuota=${to === Number.POSITIVE_INFINITY ? "" : `${to / 10}%`}`;
    case "cpuWeight":
      return version === 1 ? `CPUShares=${to}` : `CPUWeight=${to}`;
    case "pids":
      return `TasksMax=${orInfinity}`;
  }
}
