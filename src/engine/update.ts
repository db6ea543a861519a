// Changes the limits of a container, and believes the kernel only.

import { setTimeout as sleep } from "node:timers/promises";
import type Docker from "dockerode";
import { messageOf, SandboxdError } from "../errors.ts";
import { type Attempt, engineError } from "./calls.ts";
import { cgroupPathsOf } from "./cgroup-path.ts";
import { findUnenforced, readBackLimits } from "./limits.ts";
import { engineLagMs, hasEnded } from "./process-end.ts";
import type { Container, LiveLimits, Waiting } from "./runtime.ts";

const cpuPeriodMicros = 100_000;

/** See `Runtime.update`. */
export async function updateLimits(
  docker: Docker,
  attempt: Attempt,
  container: Container,
  limits: LiveLimits,
  options?: Waiting,
): Promise<void> {
  const apply = (wanted: LiveLimits) =>
    attempt(
      "update",
      (abortSignal) =>
        docker.getContainer(container.id).update({
          Memory: wanted.memoryBytes,
          MemorySwap: wanted.memoryBytes,
          CpuPeriod: cpuPeriodMicros,
          CpuQuota: (wanted.cpuMillis * cpuPeriodMicros) / 1_000,
          CpuShares: wanted.cpuWeight,
          PidsLimit: wanted.pids,
          abortSignal,
        }),
      options,
    );
  try {
    await apply(limits);
    const missing = container.pid === 0 ? [] : findUnenforced({ limits }, held(container));
    const words = missing.map((one) => `${one.actual} for ${one.limit} ${one.expected}`);
    if (words.length > 0) throw new Error(`the kernel holds ${words.join(", ")}`);
  } catch (error) {
    if (container.pid !== 0 && hasEnded(container.pid)) {
      // nothing runs that could hold limits, and the engine keeps them for the next run, once it knows
      await sleep(engineLagMs);
      await apply(limits);
      return;
    }
    const failure = engineError("update", error);
    if (failure.reason !== "ENGINE_FAILED") throw failure;
    await apply(container.limits);
    throw new SandboxdError("LIMIT_UNENFORCEABLE", `the new limits do not hold: ${messageOf(error)}`, {
      hint: "a memory limit cannot go below what is in use; the old limits are back in place",
      cause: error,
    });
  }
}

function held(container: Container) {
  return readBackLimits({ paths: cgroupPathsOf(container.pid, { containerId: container.id }) });
}
