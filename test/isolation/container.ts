// The container in which the probe runs: its image, its plan, and what of it has to be cleared away.

import { spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import type Docker from "dockerode";
import type { ContainerPlan } from "../../src/engine/container-plan.ts";
import { containerCreateOptions } from "../../src/engine/host-config.ts";

/** An image that holds the probe and claims what must come to nothing. Gives its id. */
export async function importImage(
  engine: Docker,
  probe: string,
  directory: string,
  name: string,
): Promise<string> {
  const root = join(directory, "root");
  mkdirSync(join(root, "bin"), { recursive: true });
  copyFileSync(probe, join(root, "bin/probe"));
  const tar = spawn("tar", ["-C", root, "-c", "."], { stdio: ["ignore", "pipe", "inherit"] });
  const changes = [
    "USER 0:0",
    "VOLUME /volume",
    "WORKDIR /proc/self/fd/7",
    "HEALTHCHECK CMD probe",
    "EXPOSE 22",
    "LABEL a=b",
  ];
  const progress = await engine.importImage(tar.stdout, { repo: name, tag: "latest", changes });
  await new Promise<void>((resolve, reject) => {
    engine.modem.followProgress(progress, (error: Error | null) =>
      error === null ? resolve() : reject(error),
    );
  });
  return (await engine.getImage(`${name}:latest`).inspect()).Id;
}

/** A plan with small limits that the probe can reach, and the probe told of them. Throttles a disk where one is named. */
export async function planFor(
  engine: Docker,
  name: string,
  imageId: string,
  device: string | undefined,
): Promise<ContainerPlan> {
  const info = (await engine.info()) as { readonly CgroupVersion?: string; readonly CgroupDriver?: string };
  const limits = {
    cpuMillis: 750,
    cpuWeight: 512,
    memoryBytes: 64 * 1_024 ** 2,
    pids: 40,
    openFiles: 512,
    processesPerUser: 16_000,
    tmpfsBytes: 8 * 1_024 ** 2,
    tmpfsInodes: 500,
    shmBytes: 1_024 ** 2,
    logBytes: 1_024 ** 2,
  };
  return {
    name,
    imageId,
    entrypoint: ["/bin/probe"],
    args: ["--wait"],
    env: {
      PROBE_HOSTNAME: "probe",
      PROBE_OPEN_FILES: `${limits.openFiles}`,
      PROBE_PROCESSES_PER_USER: `${limits.processesPerUser}`,
      PROBE_TMPFS_BYTES: `${limits.tmpfsBytes}`,
      PROBE_TMPFS_INODES: `${limits.tmpfsInodes}`,
      PROBE_SHM_BYTES: `${limits.shmBytes}`,
      PROBE_PIDS: `${limits.pids}`,
      PROBE_MEMORY_BYTES: `${limits.memoryBytes}`,
    },
    labels: { "sandboxd.id": name },
    labelPrefix: "sandboxd.",
    uid: 20_001,
    gid: 20_002,
    hostname: "probe",
    cgroupParent:
      info.CgroupDriver === "systemd" ? `isolation${process.pid}.slice` : `/isolation${process.pid}`,
    stopSignal: "SIGTERM",
    stopGraceSeconds: 5,
    limits: { ...limits, ...(device === undefined ? {} : { blockIo: { device, ...rates } }) },
    imageVolumes: ["/volume"],
    mounts: [],
    network: { mode: "none" },
    engine: { cgroupVersion: info.CgroupVersion === "2" ? 2 : 1, possibleCpus: 4 },
  };
}

interface CreateAnswer {
  readonly Id: string;
  readonly Warnings: readonly string[] | null;
}

/** The client's own create keeps the engine's warnings to itself. */
export function create(engine: Docker, plan: ContainerPlan): Promise<CreateAnswer> {
  const call = {
    path: "/containers/create?",
    method: "POST",
    options: containerCreateOptions(plan),
    statusCodes: {
      201: true,
      400: "bad parameter",
      404: "no such image",
      409: "conflict",
      500: "server error",
    },
  };
  return new Promise((resolve, reject) => {
    engine.modem.dial(call, (error: Error | null, answer: unknown) =>
      error === null ? resolve(answer as CreateAnswer) : reject(error),
    );
  });
}

const rates = {
  readBytesPerSecond: 20_000_000,
  writeBytesPerSecond: 10_000_000,
  readOperationsPerSecond: 2_000,
  writeOperationsPerSecond: 1_000,
};

/** The first whole disk of this machine, where there is one. */
export function throttledDisk(): string | undefined {
  const disk = readdirSync("/sys/block").find((entry) => /^(vd|sd|nvme|xvd)/.test(entry));
  return disk === undefined ? undefined : `/dev/${disk}`;
}

/** The engine leaves a parent cgroup behind; systemd's driver removes its own. */
export function removeCgroup(parent: string): void {
  if (!parent.startsWith("/")) return;
  const root = "/sys/fs/cgroup";
  for (const directory of [root, ...readdirSync(root).map((entry) => join(root, entry))]) {
    const path = join(directory, parent);
    if (existsSync(path)) rmdirSync(path);
  }
}
