// What networks of sandboxes cost: beside the engine's own for creates, beside NAT alone for traffic.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type Docker from "dockerode";
import { NetworkMode } from "../gen/sandboxd/v1/sandbox_pb.ts";
import { TenantService } from "../gen/sandboxd/v1/tenant_service_pb.ts";
import { networkCreateOptions } from "../src/engine/networks.ts";
import { createFirewall } from "../src/network/firewall/firewall.ts";
import { defaultEgress } from "../src/network/policy.ts";
import { createLog } from "../src/observe/log.ts";
import { beyond, openInternet, type Peer } from "../test/harness/internet.ts";
import { createTurns } from "./create.ts";
import { inTurn, megabytesPerSecond } from "./in-turn.ts";
import { measureResolver } from "./resolver.ts";
import { percentile, type Result, resultOf } from "./result.ts";
import { startSandboxes } from "./sandboxes.ts";

const tenantSandboxes = 50;
const streamBytes = 256 * 1_024 ** 2;
const network = { modes: [NetworkMode.EGRESS] };

export async function* measureNetwork(runs: number): AsyncGenerator<Result> {
  yield* measureCreates(runs);
  yield await measureThroughput(2 * runs);
  yield await measureResolver(runs * 100);
}

async function* measureCreates(runs: number): AsyncGenerator<Result> {
  const sandboxes = await startSandboxes({ networkMode: NetworkMode.EGRESS });
  const tenants = sandboxes.daemon.client(TenantService);
  try {
    await tenants.putTenant({ tenant: "bench", network });
    const bare = await sandboxes.openBareEngine();
    try {
      const creates = await createTurns(sandboxes, bare, runs);
      const goal = { of: "ratio", atMost: 1.05 } as const;
      yield resultOf({ name: "network-create", unit: "ms", ...creates, goal });

      const bareNetworks: number[] = [];
      const firsts: number[] = [];
      for (let run = 0; run < Math.min(runs, 10); run += 1) {
        bareNetworks.push(await timed(() => makeNetwork(bare.docker, run)));
        await bare.docker.getNetwork(bareName(run)).remove();
        const tenant = `first-${run}`;
        await tenants.putTenant({ tenant, network });
        firsts.push(await timed(() => sandboxes.create(tenant)));
        await sandboxes.removeAll();
      }
      // of a first create, what a later one and a network of the engine's do not take
      const others = percentile(creates.values, 0.5) + percentile(bareNetworks, 0.5);
      yield resultOf({
        ...{ name: "network-first", unit: "ms" },
        values: firsts.map((ms) => Math.max(0, ms - others)),
        goal: { of: "p50", atMost: 30 },
      });
    } finally {
      await bare.removeAll();
      bare.close();
    }
    await sandboxes.createMany(tenantSandboxes);
    const updates: number[] = [];
    for (let run = 0; run < runs; run += 1) {
      const egress = { ports: [{ first: 443 }, { first: 1_000 + run }] };
      updates.push(
        await timed(() => tenants.putTenant({ tenant: "bench", network: { ...network, egress } })),
      );
    }
    const goal = { of: "p50", atMost: 20 } as const;
    yield resultOf({ name: "network-policy", unit: "ms", values: updates, goal });
  } finally {
    await sandboxes.close();
  }
}

const bareName = (run: number) => `bare-${process.pid}-${run}`;

/** As the daemon has them made. */
async function makeNetwork(docker: Docker, run: number): Promise<void> {
  const subnet = `10.199.${run}`;
  await docker.createNetwork(
    networkCreateOptions({
      name: bareName(run),
      bridge: `bare${run}`,
      subnet: `${subnet}.0/25`,
      gateway: `${subnet}.1`,
      labels: {},
      labelPrefix: "sandboxd.",
    }),
  );
}

/** What the engine gives each of its bridge networks: without it, a private address reaches nothing beyond the host. */
const natAlone = `table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr 10.77.0.0/16 masquerade
  }
}
`;

/** A TCP stream out of a sandbox's place through the rules, and through NAT alone. */
async function measureThroughput(runs: number): Promise<Result> {
  const worlds = await Promise.all([openStreamWorld(), openStreamWorld()]);
  const [ruled, plain] = worlds;
  plain.world.host.run(["nft", "-f", "-"], natAlone);
  const firewall = createFirewall({
    tag: "0bec0bec",
    pools: ["10.77.0.0/16"],
    within: ruled.world.host.within,
    log: createLog({ level: "error" }),
  });
  try {
    const { bridge, gateway } = place;
    await firewall.change({
      putBridges: [{ bridge, subnet: "10.77.0.0/25", gateway, peers: false }],
      put: [{ sandboxId: "one", bridge, address, egress: defaultEgress, limits: {} }],
    });
    const [values, baseline] = [[] as number[], [] as number[]];
    await inTurn(
      Math.min(runs, 100),
      async () => values.push(await ruled.send()),
      async () => baseline.push(await plain.send()),
    );
    const goal = { of: "ratio", atLeast: 0.9 } as const;
    return resultOf({ name: "network-throughput", unit: "MB/s", values, baseline, goal });
  } finally {
    await firewall.close();
    for (const { close } of worlds) await close();
  }
}

const place = { bridge: "sbx0bench", gateway: "10.77.0.1", prefix: 25 };
const address = "10.77.0.2";

/** A host with a sandbox's place, and somebody beyond it who takes whatever is sent. */
async function openStreamWorld() {
  const world = await openInternet();
  world.addBridge(place);
  const sandbox = await world.addSandbox({ ...place, address });
  world.internet.run(["ip", "route", "add", "10.77.0.0/16", "via", beyond.host]);
  const program = fileURLToPath(new URL("network-peer.mjs", import.meta.url));
  const [command = "", ...within] = world.internet.within;
  const receiver = spawn(command, [...within, process.execPath, program, "receive", "443"]);
  await once(receiver.stdout, "data");
  return {
    world,
    send: () => streamRate(sandbox, program),
    async close() {
      receiver.kill();
      await world.close();
    },
  };
}

async function streamRate(sandbox: Peer, program: string): Promise<number> {
  const [command = "", ...within] = sandbox.within;
  const send = [...within, process.execPath, program, "send", beyond.site, "443", String(streamBytes)];
  const { stdout } = await promisify(execFile)(command, send);
  return megabytesPerSecond(streamBytes, Number(stdout));
}

async function timed(run: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await run();
  return performance.now() - began;
}
