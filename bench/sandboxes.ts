// The daemon under measurement and its sandboxes: small ones that sleep, so that hundreds fit on a small machine.

import type { Client } from "@connectrpc/connect";
import type { TomlTable } from "smol-toml";
import { type NetworkMode, type Sandbox, SandboxState } from "../gen/sandboxd/v1/sandbox_pb.ts";
import { SandboxService } from "../gen/sandboxd/v1/sandbox_service_pb.ts";
import { type Daemon, startDaemon } from "../test/harness/daemon.ts";
import { baseImage, inNetworkOf, sharedEngine } from "../test/harness/engine.ts";
import { type BareEngine, openBareEngine } from "./bare-engine.ts";
import { parallel } from "./parallel.ts";

/** As little as sleeping takes, asked for so that admission lets hundreds of them onto two cores. */
export const resources = {
  cpuMillis: 500n,
  cpuRequestMillis: 1n,
  memoryBytes: 16n * 1_024n * 1_024n,
  memoryRequestBytes: 1_024n * 1_024n,
  pids: 8n,
};

export const spec = { image: baseImage, command: ["sleep"], args: ["100000"], resources };

/** Limits of the sandboxes may add up to far more than the machine has, for they use next to nothing. */
const roomy = { cpu_overcommit: 100, memory_overcommit: 10, max_sandboxes: 1_000 };

export interface Sandboxes {
  readonly daemon: Daemon;
  readonly client: Client<typeof SandboxService>;
  /** Resolves when it is RUNNING. @throws Error in any other state. Default: of the one tenant of all others. */
  create(tenant?: string): Promise<Sandbox>;
  /** As many more, a few at a time. */
  createMany(count: number): Promise<readonly Sandbox[]>;
  removeAll(): Promise<void>;
  /** The engine without the daemon, making containers of the same kind. */
  openBareEngine(): Promise<BareEngine>;
  /** Ends the daemon and removes everything that it has made. Call it in every case. */
  close(): Promise<void>;
}

export interface SandboxesOptions {
  /** Laid over the defaults. */
  readonly config?: TomlTable;
  /** Of every sandbox; otherwise they have none, and the daemon needs not be where the engine's bridges are. */
  readonly networkMode?: NetworkMode;
}

/** Starts a daemon. */
export async function startSandboxes({ config, networkMode }: SandboxesOptions = {}): Promise<Sandboxes> {
  const daemon = await startDaemon({
    config: { capacity: roomy, ...config },
    ...(networkMode === undefined ? {} : { launcher: inNetworkOf() }),
  });
  const client = daemon.client(SandboxService);
  const made = new Set<string>();
  let count = 0;

  const create = async (tenant = "bench"): Promise<Sandbox> => {
    count += 1;
    const { sandbox } = await client.createSandbox({
      tenant,
      sandboxId: `bench-${count}`,
      spec: networkMode === undefined ? spec : { ...spec, networkMode },
    });
    if (sandbox?.status?.state !== SandboxState.RUNNING) {
      throw new Error(`a sandbox does not run: ${sandbox?.status?.transition?.message}`);
    }
    made.add(sandbox.sandboxId);
    return sandbox;
  };
  const remove = async (sandboxId: string): Promise<void> => {
    await client.deleteSandbox({ sandboxId });
    made.delete(sandboxId);
  };
  const removeAll = () => parallel([...made], 4, remove);
  return {
    daemon,
    client,
    create,
    async createMany(many) {
      const created: Sandbox[] = [];
      await parallel(Array.from({ length: many }), 8, async () => created.push(await create()));
      return created;
    },
    removeAll,
    async openBareEngine() {
      // stays until the end: without a sandbox of its own the tenant's cgroup would go, and the containers are under it
      const example = await create();
      made.delete(example.sandboxId);
      return openBareEngine(sharedEngine(), daemon.cgroupParent, example);
    },
    close: () => daemon.cleanup(),
  };
}
