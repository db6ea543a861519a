// From the engine's words to ours.

import type { ContainerInspectInfo } from "dockerode";
import type { Container } from "./runtime.ts";

/** The engine's zero time: never. */
const never = "0001-01-01T00:00:00Z";

/** A state that is on its way somewhere counts as where it comes from. */
export function stateOf(state: string): Container["state"] {
  switch (state) {
    case "created":
    case "running":
    case "paused":
      return state;
    case "restarting":
      return "running";
    default:
      return "exited";
  }
}

export function containerOf(info: ContainerInspectInfo): Container {
  const { State: state, HostConfig: host } = info;
  return {
    id: info.Id,
    name: info.Name.replace(/^\//, ""),
    labels: info.Config.Labels ?? {},
    state: stateOf(state.Status),
    imageId: info.Image,
    pid: state.Pid,
    startedAt: state.StartedAt === never ? "" : state.StartedAt,
    finishedAt: state.FinishedAt === never ? "" : state.FinishedAt,
    exitCode: state.ExitCode,
    oomKilled: state.OOMKilled,
    error: state.Error ?? "",
    limits: {
      cpuMillis: Math.round(((host.CpuQuota ?? 0) * 1_000) / (host.CpuPeriod || 100_000)),
      cpuWeight: host.CpuShares ?? 0,
      memoryBytes: host.Memory ?? 0,
      pids: host.PidsLimit ?? 0,
    },
  };
}
