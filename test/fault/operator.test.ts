// Somebody on the host renames or freezes a sandbox's container behind the daemon: it is still the sandbox's, and what there is
// to tell is told once.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ActorKind, type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import { isIn, present, sleeping, startHost, type TestHost, whereIs } from "../harness/sandboxes.ts";

/** Long enough for what is not told at once to be told by a comparison. */
const comparisonsMs = 2_200;

describe.skipIf(engineObstacle !== undefined)(`an operator (${engineObstacle ?? "engine"})`, () => {
  let witness: EventWitness;
  let host: TestHost;
  beforeEach(async () => {
    witness = await witnessEvents();
    host = await startHost({
      config: { engine: { relist_period: "1s", orphan_grace: "1s" }, ...witness.config },
    });
  });
  afterEach(async () => {
    await host?.daemon.cleanup();
    await witness?.close();
  });
  const container = ({ status }: Sandbox) => host.docker.getContainer(present(status).containerId);
  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

  const renames: readonly (readonly [string, (sandbox: Sandbox) => Promise<unknown>])[] = [
    ["renames a container", (sandbox) => rename(sandbox)],
    ["gives its name to another", (sandbox) => rename(sandbox).then(takeName)],
    [
      "renames it while no daemon runs",
      async (sandbox) => {
        await host.daemon.kill("SIGKILL");
        await rename(sandbox);
        await host.daemon.start();
      },
    ],
  ];

  async function rename(sandbox: Sandbox): Promise<string> {
    const { Name } = await container(sandbox).inspect();
    await container(sandbox).rename({ name: `${host.daemon.hostId}-renamed` });
    return Name.slice(1);
  }

  /** A container of the operator's own, which goes with the daemon's by its label. */
  async function takeName(name: string): Promise<void> {
    const Labels = { "sandboxd.host": host.daemon.hostId };
    const { Image } = present(await host.containers().then(([one]) => one));
    await host.docker.createContainer({ name, Image, Cmd: ["sleep", "1000"], Labels });
  }

  test.each(renames)("who %s takes no sandbox away", async (_what, deed) => {
    const before = await host.run("renamed", sleeping);
    await deed(before);
    await pause(comparisonsMs);
    expect(await host.get("renamed"), "nothing happened to it").toEqual(before);

    await host.sandboxes.updateSandbox({ sandboxId: "renamed", resources: { pids: 44n } });
    expect((await container(before).inspect()).HostConfig.PidsLimit, "an update reaches it").toBe(44);
    await host.sandboxes.stopSandbox({ sandboxId: "renamed" });
    expect((await container(before).inspect()).State.Running, "a stop reaches it").toBe(false);
    await host.sandboxes.startSandbox({ sandboxId: "renamed" });
    expect(whereIs(await host.get("renamed")).state).toBe("RUNNING");
    await container(before).kill();
    const now = await host.until("renamed", isIn(SandboxState.FAILED));
    expect(whereIs(now).reason).toBe("EXTERNAL");
    await host.sandboxes.deleteSandbox({ sandboxId: "renamed" });
    const left = (await host.containers()).map(({ Id }) => Id);
    expect(left, "a delete reaches it").not.toContain(before.status?.containerId);
    await witness.check(host);
  });

  test("who makes a copy of a container, labels and all, has it removed after the grace", async () => {
    const before = await host.run("original", sleeping);
    const { Image, Config, HostConfig } = await container(before).inspect();
    const copy = await host.docker.createContainer({
      name: `${host.daemon.hostId}-copy`,
      Image,
      ...{ Labels: Config.Labels, HostConfig: { CgroupParent: HostConfig.CgroupParent } },
    });
    await copy.start();
    const ids = async () => (await host.containers()).map(({ Id }) => Id);
    expect(await ids()).toContain(copy.id);
    await expect.poll(ids, { timeout: 15_000 }).toEqual([before.status?.containerId]);
    expect(await host.get("original"), "nothing happened to it").toEqual(before);
    await witness.check(host);
  });

  test("who freezes a sandbox and lets it go on is told of twice, once each", async () => {
    const sandbox = await host.run("frozen", sleeping);
    const { lastSequence } = await host.events.listEvents({ pageSize: 1000 });
    await container(sandbox).pause();
    await host.until("frozen", isIn(SandboxState.PAUSED));
    await pause(comparisonsMs);
    await container(sandbox).unpause();
    await host.until("frozen", isIn(SandboxState.RUNNING));
    await pause(comparisonsMs);
    const { events } = await host.events.listEvents({ afterSequence: lastSequence });
    expect(events.map(({ sandbox: told }) => told?.status?.state)).toEqual([
      SandboxState.PAUSED,
      SandboxState.RUNNING,
    ]);
    for (const { sandbox: told } of events) {
      expect(told?.status?.transition?.actor?.kind).toBe(ActorKind.EXTERNAL);
    }
    await host.sandboxes.deleteSandbox({ sandboxId: "frozen" });
    await witness.check(host);
  });
});
