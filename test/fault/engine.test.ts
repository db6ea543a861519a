// The engine hangs, dies and comes back: what the daemon answers meanwhile, what it tells, and what it makes good.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { HostConditionType } from "../../gen/sandboxd/v1/host_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { PrivateEngine } from "../../tools/lib/engine.mjs";
import { engineObstacle, ownEngine } from "../harness/engine.ts";
import {
  eventually,
  isIn,
  present,
  refusalOf,
  sleeping,
  startHost,
  type TestHost,
} from "../harness/sandboxes.ts";

describe.skipIf(engineObstacle !== undefined)(`an engine that fails (${engineObstacle ?? "engine"})`, () => {
  let engine: PrivateEngine | undefined;
  let host: TestHost | undefined;

  async function begin(liveRestore: boolean): Promise<{ engine: PrivateEngine; host: TestHost }> {
    engine = await ownEngine({ liveRestore });
    host = await startHost({
      engine: engine.socket,
      config: {
        engine: {
          relist_period: "1s",
          timeouts: { list: "2s", inspect: "2s", create: "3s", start: "3s", stop: "3s", remove: "3s" },
        },
      },
    });
    return { engine, host };
  }
  beforeEach(() => {
    engine = undefined;
    host = undefined;
  });
  afterEach(async () => {
    engine?.thaw();
    // the containers go with their engine, which may not answer any more
    await host?.daemon.stop();
    await engine?.stop();
    await host?.daemon.cleanup().catch(() => undefined);
  });

  const active = async ({ host: client }: TestHost) =>
    present((await client.getHost({})).host)
      .conditions.filter((condition) => condition.active)
      .map(({ type }) => HostConditionType[type]);

  test("while it hangs, reads are answered, calls end by their deadline, and it is told until it ends", async () => {
    const { engine: frozen, host: at } = await begin(true);
    const sandbox = await at.run("before", sleeping);
    await frozen.freeze();

    const began = performance.now();
    expect(await at.get("before")).toEqual(sandbox);
    expect((await at.sandboxes.listSandboxes({})).sandboxes).toHaveLength(1);
    expect(performance.now() - began, "reads ask no engine").toBeLessThan(2_000);

    const stop = await refusalOf(at.sandboxes.stopSandbox({ sandboxId: "before" }, { timeoutMs: 2_000 }));
    expect(stop.code).toBe("DeadlineExceeded");
    await eventually(
      "the condition",
      () => active(at),
      (found) => found.includes("ENGINE_UNRESPONSIVE"),
    );
    const create = await refusalOf(at.run("during", sleeping));
    expect(create).toMatchObject({ code: "Unavailable", reason: "ENGINE_UNAVAILABLE" });

    frozen.thaw();
    await eventually(
      "recovery",
      () => active(at),
      (found) => found.length === 0,
    );
    await at.until("before", isIn(SandboxState.STOPPED));
    expect((await at.run("after", sleeping)).status?.state).toBe(SandboxState.RUNNING);
    const { events } = await at.events.listEvents({
      filter: { types: [EventType.HOST_CONDITION_CHANGED] },
      pageSize: 1000,
    });
    expect(
      events.map(({ condition }) => [HostConditionType[condition?.type ?? 0], condition?.active]),
      "told once as begun and once as ended",
    ).toEqual([
      ["ENGINE_UNRESPONSIVE", true],
      ["ENGINE_UNRESPONSIVE", false],
    ]);
    for (const sandboxId of ["before", "after"]) await at.sandboxes.deleteSandbox({ sandboxId });
  });

  test("killed and started again with live-restore, it finds its sandboxes running, and so does the daemon", async () => {
    const { engine: killed, host: at } = await begin(true);
    const before = await at.run("survivor", sleeping);
    await at.run("leaver", "sleep 3; exit 5");
    await killed.kill();
    await eventually(
      "the condition",
      () => active(at),
      (found) => found.includes("ENGINE_ABSENT"),
    );
    expect(await at.get("survivor")).toEqual(before);
    await killed.restart();
    await eventually(
      "recovery",
      () => active(at),
      (found) => found.length === 0,
    );
    const leaver = await at.until("leaver", isIn(SandboxState.FAILED));
    expect(leaver.status?.exit).toBeDefined();
    expect((await at.get("survivor")).status).toEqual(before.status);
    await at.sandboxes.deleteSandbox({ sandboxId: "survivor" });
    await at.sandboxes.deleteSandbox({ sandboxId: "leaver" });
    expect(await at.containers()).toEqual([]);
  });

  test("killed under creates, it leaves one container or none for each, and each comes to rest", async () => {
    const { engine: killed, host: at } = await begin(true);
    const ids = Array.from({ length: 6 }, (_, index) => `create-${index}`);
    const creates = Promise.allSettled(ids.map((id) => at.run(id, sleeping)));
    await new Promise((resolve) => setTimeout(resolve, 250));
    await killed.kill();
    await killed.restart();
    await creates;
    const rested = await Promise.all(
      ids.map((id) =>
        at.until(
          id,
          ({ status }) => status?.state === SandboxState.RUNNING || status?.state === SandboxState.FAILED,
        ),
      ),
    );
    const running = rested.filter(isIn(SandboxState.RUNNING)).map(({ status }) => status?.containerId);
    const containers = await at.containers();
    expect(new Set(containers.map(({ Names }) => Names[0])).size).toBe(containers.length);
    expect(
      containers
        .filter(({ State }) => State === "running")
        .map(({ Id }) => Id)
        .sort(),
    ).toEqual(running.sort());
    for (const sandboxId of ids) await at.sandboxes.deleteSandbox({ sandboxId });
    expect(await at.containers()).toEqual([]);
  });
});
