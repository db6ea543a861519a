// Reads the limits of a running container back from the kernel: what holds is what the kernel says, not what was asked for.

import { setTimeout as sleep } from "node:timers/promises";
import { SandboxdError } from "../errors.ts";
import { type CgroupPaths, cgroupPathsAt, cgroupPathsOf } from "./cgroup-path.ts";
import type { ContainerPlan } from "./container-plan.ts";
import { deviceNumberOf, findUnenforced, readBackLimits } from "./limits.ts";
import { hasExecuted } from "./main-command.ts";
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
  if ((await hasExecuted(expected)) && missingAt(expected).length === 0) return expected;

  const found = await inspect(id, options);
  if (found === undefined || found.pid === 0) return undefined;
  try {
    const cgroup = cgroupPathsOf(found.pid, { containerId: found.id });
    const missing = missingAt(cgroup);
    if (missing.length === 0) return cgroup;
    throw unenforceable(
      missing.map((one) => `${one.limit}: wanted ${one.expected}, the kernel holds ${one.actual}`).join("; "),
    );
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

export function unenforceable(what: string): SandboxdError {
  return new SandboxdError("LIMIT_UNENFORCEABLE", `this host does not enforce: ${what}`, {
    hint: "ask without that limit, or enable the cgroup controller on the host",
  });
}
