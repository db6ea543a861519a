// A plan, and what a real engine (20.10.24, cgroup v1) showed of the container made from it.

import type { ContainerInspectInfo } from "dockerode";
import type { ContainerPlan } from "../../../src/engine/container-plan.ts";
import { seccompProfile } from "../../../src/engine/seccomp.ts";
import recorded from "./inspect.json" with { type: "json" };

export const plan: ContainerPlan = {
  name: "sandbox-one",
  imageId: recorded.Image,
  entrypoint: ["sh", "-c"],
  args: ["sleep 60"],
  env: { GREETING: "hello" },
  labels: { "sandboxd.id": "one" },
  labelPrefix: "sandboxd.",
  uid: 20_001,
  gid: 20_002,
  hostname: "one",
  cgroupParent: "/sandboxd/t",
  stopSignal: "SIGTERM",
  stopGraceSeconds: 10,
  limits: {
    cpuMillis: 500,
    cpuWeight: 512,
    memoryBytes: 67_108_864,
    pids: 64,
    openFiles: 1_024,
    processesPerUser: 16_384,
    tmpfsBytes: 8_388_608,
    tmpfsInodes: 1_000,
    shmBytes: 1_048_576,
    logBytes: 4_194_304,
    blockIo: { device: "/dev/vda", readBytesPerSecond: 20_000_000, writeOperationsPerSecond: 500 },
  },
  imageVolumes: ["/var/data", "/data2"],
  mounts: [],
  network: { mode: "none" },
  engine: { cgroupVersion: 1, possibleCpus: 2 },
};

/** A fresh copy each time, so that a test may spoil it. */
export function inspected(): ContainerInspectInfo {
  const copy = structuredClone(recorded) as unknown as ContainerInspectInfo;
  copy.HostConfig.SecurityOpt = ["no-new-privileges", `seccomp=${seccompProfile}`];
  return copy;
}
