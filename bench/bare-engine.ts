// The baseline: the engine's own API, called with nothing in between, for containers that are in every respect those of the
// daemon.

import { statSync } from "node:fs";
import type { Agent } from "node:http";
import { isDeepStrictEqual } from "node:util";
import Docker from "dockerode";
import type { Sandbox } from "../gen/sandboxd/v1/sandbox_pb.ts";
import { createAgent } from "../src/engine/agent.ts";
import { type ContainerPlan, defaultProcessesPerUser } from "../src/engine/container-plan.ts";
import { containerCreateOptions } from "../src/engine/host-config.ts";
import { toolboxPath } from "../src/engine/toolbox-mount.ts";
import { possibleCpus } from "../src/host/capacity.ts";
import { addressText, parseAddress } from "../src/network/addresses.ts";
import { macOf } from "../src/network/allocation.ts";
import { parentOf } from "../src/sandbox/plan.ts";
import { parallel } from "./parallel.ts";

export interface BareEngine {
  readonly docker: Docker;
  /** Creates and starts a container as the daemon's sandbox is. Returns it. */
  create(): Promise<Docker.Container>;
  /** Removes every container that `create` has made. */
  removeAll(): Promise<void>;
  close(): void;
}

/**
 * @param hostParent the cgroup of all sandboxes, as the engine is told it.
 * @param sandbox a running sandbox of the daemon; the containers will be like its own.
 * @param mounts what it sees besides its image.
 * @throws Error when a container made here would differ from it in its HostConfig: then nothing could be compared.
 */
export async function openBareEngine(
  socket: string,
  hostParent: string,
  sandbox: Sandbox,
  mounts: ContainerPlan["mounts"] = [],
): Promise<BareEngine> {
  const agent = createAgent();
  // the client takes an agent, though its types don't say so
  const options: Docker.DockerOptions & { readonly agent: Agent } = { socketPath: socket, agent };
  const docker = new Docker(options);
  const { CgroupVersion: cgroupVersion } = await docker.info();
  const theirs = await docker.getContainer(sandbox.status?.containerId ?? "").inspect();
  const toolbox = await toolboxOf(docker, theirs.Mounts);
  const plan = { ...planOf(sandbox, hostParent, cgroupVersion === "2" ? 2 : 1), mounts, ...toolbox };
  const made = new Set<Docker.Container>();
  let count = 0;

  const create = async (): Promise<Docker.Container> => {
    count += 1;
    const name = `bare-${process.pid}-${count}`;
    const network = placeOf(sandbox, theirs.HostConfig.NetworkMode ?? "", count);
    const options = containerCreateOptions({ ...plan, name, hostname: `bare-${count}`, network });
    // as they were asked for, with the labels of the daemon's volumes
    const HostConfig = { ...options.HostConfig, Mounts: theirs.HostConfig.Mounts };
    const container = await docker.createContainer({ ...options, HostConfig });
    made.add(container);
    await container.start();
    return container;
  };
  const removeAll = async (): Promise<void> => {
    await parallel([...made], 4, (container) => container.remove({ force: true, v: true }));
    made.clear();
  };
  const engine: BareEngine = { docker, create, removeAll, close: () => agent.destroy() };

  const own = await (await create()).inspect();
  await removeAll();
  if (!isDeepStrictEqual(own.HostConfig, theirs.HostConfig)) {
    throw new Error(
      "the baseline's containers are not made as the daemon's: mend planOf in bench/bare-engine.ts",
    );
  }
  return engine;
}

/** On the network of the sandbox, with an address that the daemon gives last. */
function placeOf({ status }: Sandbox, network: string, count: number): ContainerPlan["network"] {
  const gateway = parseAddress(status?.network?.gateway ?? "");
  if (gateway === undefined) return { mode: "none" };
  const address = gateway + 125 - (count % 60);
  return {
    mode: "bridge",
    network,
    address: addressText(address),
    mac: macOf(address),
    dns: addressText(gateway),
  };
}

/** The toolbox's mount, as the sandbox has it. */
async function toolboxOf(
  docker: Docker,
  mounts: readonly { readonly Destination: string; readonly Name?: string }[],
): Promise<Pick<ContainerPlan, "toolbox">> {
  const volume = mounts.find(({ Destination: target }) => target === toolboxPath)?.Name;
  if (volume === undefined) return {};
  const { Options: options } = await docker.getVolume(volume).inspect();
  const source = options?.["device"] ?? "";
  const { dev: device, ino: inode } = statSync(source);
  return { toolbox: { volume, source, identity: { device, inode } } };
}

function planOf(sandbox: Sandbox, hostParent: string, cgroupVersion: 1 | 2): ContainerPlan {
  const { spec, status } = sandbox;
  const resources = spec?.resources;
  if (spec === undefined || status === undefined || resources === undefined) {
    throw new Error(`${sandbox.sandboxId} was told without its spec or status`);
  }
  const uid = Number(status.uid);
  return {
    name: sandbox.sandboxId,
    imageId: status.imageId,
    entrypoint: spec.command,
    args: spec.args,
    env: spec.env,
    workingDir: spec.workingDir,
    labels: { bench: "bare" },
    labelPrefix: "sandboxd.",
    uid,
    gid: uid,
    hostname: sandbox.sandboxId,
    cgroupParent: parentOf(hostParent, uid),
    stopSignal: "SIGTERM",
    stopGraceSeconds: Number(spec.stopGrace?.seconds ?? 0n),
    limits: {
      cpuMillis: Number(resources.cpuMillis),
      cpuWeight: Math.max(2, Math.round((Number(resources.cpuRequestMillis) * 1_024) / 1_000)),
      memoryBytes: Number(resources.memoryBytes),
      pids: Number(resources.pids),
      openFiles: Number(resources.openFiles),
      processesPerUser: defaultProcessesPerUser,
      tmpfsBytes: Number(resources.tmpfsBytes),
      tmpfsInodes: Number(resources.tmpfsInodes),
      shmBytes: Number(resources.shmBytes),
      logBytes: Number(resources.logBytes),
    },
    imageVolumes: [],
    mounts: [],
    network: { mode: "none" },
    engine: { cgroupVersion, possibleCpus: possibleCpus() },
  };
}
