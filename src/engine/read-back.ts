// Reads the limits, the mounts and the network of a running container back from the kernel: what holds is what the kernel says, not what was asked for.

import { setTimeout as sleep } from "node:timers/promises";
import { SandboxdError } from "../errors.ts";
import { type CgroupPaths, cgroupPathsAt, cgroupPathsOf } from "./cgroup-path.ts";
import type { ContainerPlan } from "./container-plan.ts";
import { deviceNumberOf, findUnenforced, readBackLimits } from "./limits.ts";
import { hasExecuted } from "./main-command.ts";
import { findMountFaults, findRootFaults, firstProcessIn, type MountFault } from "./mount-read-back.ts";
import { mountsSeen } from "./mounts.ts";
import { findNetworkFaults } from "./network-read-back.ts";
import { engineLagMs, hasEnded } from "./process-end.ts";
import type { Runtime, Waiting } from "./runtime.ts";

/** See `Runtime.verify`. */
export async function readBack(
  inspect: Runtime["inspect"],
  id: string,
  plan: ContainerPlan,
  options?: Waiting,
): Promise<CgroupPaths | undefined> {
  const device = plan.limits.blockIo === undefined ? undefined : deviceNumberOf(plan.limits.blockIo.device);
  const missingAt = (paths: CgroupPaths) =>
    findUnenforced(plan, readBackLimits({ paths, ...(device === undefined ? {} : { device }) }));
  // where the engine puts a container of this id; there only while it runs
  const { cgroupParent: parent, engine } = plan;
  const expected = cgroupPathsAt({ containerId: id, parent, version: engine.cgroupVersion });
  const isAsPlanned = () => missingAt(expected).length === 0 && seesAsPlanned(plan, expected);
  if ((await hasExecuted(expected)) && isAsPlanned()) return expected;

  const found = await inspect(id, options);
  if (found === undefined || found.pid === 0) return undefined;
  try {
    const cgroup = cgroupPathsOf(found.pid, { containerId: found.id });
    const missing = missingAt(cgroup);
    const faults = faultsOf(plan, found.pid);
    const said = [
      ...missing.map((one) => `${one.limit}: wanted ${one.expected}, the kernel holds ${one.actual}`),
      ...textsOf("limit", faults),
    ];
    if (said.length > 0) throw unenforceable(said.join("; "));
    if (faults.length > 0) throw mismatched(textsOf("mount", faults).join("; "));
    const connected = findNetworkFaults(plan.network, found.pid);
    if (connected.length > 0) throw misconnected(connected.join("; "));
    return cgroup;
  } catch (error) {
    // if it ended while it was looked at, its figures mean nothing; how it ended, is seen by the next look
    if (hasEnded(found.pid)) {
      // the kernel is ahead of the engine, which still says that it runs
      await sleep(engineLagMs);
      return undefined;
    }
    const now = await inspect(id, options);
    if (now?.pid === found.pid && now.state === "running") throw error;
    return undefined;
  }
}

function faultsOf(plan: ContainerPlan, pid: number): readonly MountFault[] {
  const { rootBytes } = plan;
  const mounts = mountsSeen(plan);
  return [
    ...(mounts.length === 0 ? [] : findMountFaults(mounts, pid)),
    ...(rootBytes === undefined ? [] : findRootFaults(rootBytes, pid)),
  ];
}

/** Its mounts and its network. */
function seesAsPlanned(plan: ContainerPlan, paths: CgroupPaths): boolean {
  const pid = firstProcessIn(paths.pids);
  if (pid === undefined) return false;
  try {
    return faultsOf(plan, pid).length === 0 && findNetworkFaults(plan.network, pid).length === 0;
  } catch {
    // whatever it was, the slow way tells: the process may have ended
    return false;
  }
}

function textsOf(kind: MountFault["kind"], faults: readonly MountFault[]): readonly string[] {
  return faults.filter((one) => one.kind === kind).map(({ text }) => text);
}

function mismatched(what: string): SandboxdError {
  return new SandboxdError("HARDENING_MISMATCH", `the container sees other mounts than planned: ${what}`, {
    hint: "see docs/mounts.md: a read-only use of a volume in memory needs Docker Engine 25 and Linux 5.12, or later",
  });
}

function misconnected(what: string): SandboxdError {
  return new SandboxdError("HARDENING_MISMATCH", `the container is not connected as planned: ${what}`, {
    hint: "`docker inspect` and `docker network inspect` tell who connected it, and the engine's configuration what it adds",
  });
}

export function unenforceable(what: string): SandboxdError {
  return new SandboxdError("LIMIT_UNENFORCEABLE", `this host does not enforce: ${what}`, {
    hint: "ask without that limit, or enable the cgroup controller on the host",
  });
}
