// Networks of sandboxes when the daemon or the engine ends: what is left is what sandboxes have, and it holds.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { NetworkMode, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { PrivateEngine } from "../../tools/lib/engine.mjs";
import { engineObstacle, inNetworkOf, ownEngine } from "../harness/engine.ts";
import { beyond, type Internet, internetObstacle, openInternet } from "../harness/internet.ts";
import { reaches } from "../harness/reach.ts";
import {
  eventually,
  isIn,
  type LocalHost,
  mebibyte,
  present,
  sleeping,
  specOf,
  startHost,
} from "../harness/sandboxes.ts";

const obstacle = engineObstacle ?? internetObstacle;
const small = { cpuMillis: 200n, memoryBytes: BigInt(24 * mebibyte), pids: 24n };
const spec = { ...specOf(sleeping, small), networkMode: NetworkMode.EGRESS };

describe.skipIf(obstacle !== undefined)(`networks under faults (${obstacle ?? "engine"})`, () => {
  let engine: PrivateEngine;
  let outside: Internet;
  let host: LocalHost;

  beforeEach(async () => {
    engine = await ownEngine();
    outside = await openInternet({ hostPid: engine.namespacePid });
    await Promise.all([outside.internet.serve({ port: 443 }), outside.internet.serve({ port: 80 })]);
    host = await startHost({
      engine: engine.socket,
      launcher: inNetworkOf(engine.namespacePid),
      config: { network: { pools: ["10.99.0.0/16"], subnet_prefix: 28 } },
    });
    await host.tenants.putTenant({ tenant: "acme", network: { modes: [NetworkMode.EGRESS] } });
  });
  afterEach(async () => {
    await host?.daemon.cleanup();
    await outside?.close();
    await engine?.stop();
  });

  const create = (sandboxId: string) =>
    host.sandboxes.createSandbox({ sandboxId, tenant: "acme", spec, wait: true });
  const addressOf = async (id: string) => present((await host.get(id)).status?.network).address;
  const holdsItsPolicy = async (id: string) => {
    expect(await reaches(host.daemon, id, beyond.site, 443)).toBe(true);
    expect(await reaches(host.daemon, id, beyond.site, 80)).toBe(false);
  };
  /** What the kernel and the engine have of it. */
  const left = async () => ({
    networks: (await host.docker.listNetworks()).filter(({ Name }) => Name.includes("_net_")).length,
    bridges: outside.host.run(["ip", "-o", "link"]).match(/ sbx\w+/g)?.length ?? 0,
    elements: outside.host.run(["nft", "list", "ruleset"]).match(/.*"sbx[0-9a-f].*/g) ?? [],
  });

  test("an engine that was restarted has them again, and a sandbox its place", async () => {
    await create("one");
    const address = await addressOf("one");
    await holdsItsPolicy("one");
    await engine.restart();
    await host.until("one", isIn(SandboxState.FAILED));
    await eventually(
      "a start",
      () => host.sandboxes.startSandbox({ sandboxId: "one" }).then(Boolean, () => false),
      Boolean,
    );
    expect(await addressOf("one")).toBe(address);
    await holdsItsPolicy("one");
  });

  test("a daemon that is killed while it makes the first one of a tenant goes on with it, and leaves none", async () => {
    for (const delayMs of [20, 300]) {
      const id = `early-${delayMs}`;
      const asked = create(id).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      await host.daemon.kill("SIGKILL");
      await asked;
      await host.daemon.start();
      await create(id);
      await holdsItsPolicy(id);
      await host.sandboxes.deleteSandbox({ sandboxId: id });
    }
    const none = { networks: 0, bridges: 0, elements: [] };
    await eventually("nothing left", left, (now) => JSON.stringify(now) === JSON.stringify(none));
  });
});
