// The disk of the state is full while the daemon runs: what is refused, what goes on, and that nothing is lost or told twice.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Health, HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1/health_pb.ts";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { HostConditionType } from "../../gen/sandboxd/v1/host_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { SandboxService } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { engineObstacle, sharedEngine } from "../harness/engine.ts";
import { type EngineDoor, openDoor } from "../harness/engine-door.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import {
  eventually,
  isIn,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";
import { openSmallDisk, type SmallDisk } from "../harness/small-disk.ts";

describe.skipIf(engineObstacle !== undefined)(`a full state disk (${engineObstacle ?? "engine"})`, () => {
  let disk: SmallDisk;
  let door: EngineDoor;
  let witness: EventWitness;
  let host: TestHost;
  let toolbox: string;
  beforeEach(async () => {
    toolbox = mkdtempSync(join(tmpdir(), "toolbox-"));
    disk = await openSmallDisk();
    door = await openDoor(sharedEngine());
    witness = await witnessEvents();
    host = await startHost({
      door: door.socket,
      launcher: disk.launcher,
      config: {
        ...witness.config,
        state: { directory: `${disk.directory}/state` },
        // the engine does not see that disk
        processes: { toolbox_directory: toolbox },
        engine: { relist_period: "1s" },
        sampling: { period: "500ms" },
        // what a full disk does besides is shown by the tests of pressure
        pressure: { disk_available_percent: 0, inodes_available_percent: 0 },
      },
    });
  });
  afterEach(async () => {
    disk?.free();
    await host?.daemon.cleanup();
    await witness?.close();
    await door?.close();
    await disk?.close();
    rmSync(toolbox, { recursive: true, force: true });
  });

  const conditions = async () =>
    present((await host.host.getHost({})).host)
      .conditions.filter(({ active }) => active)
      .map(({ type }) => HostConditionType[type]);
  const untilTold = () =>
    eventually("the condition", conditions, (found) => found.includes("STATE_UNWRITABLE"));
  const untilOver = () => eventually("its end", conditions, (found) => found.length === 0);
  const isRunning = async (id: string) => {
    const { containerId } = present((await host.get(id)).status);
    return (await host.docker.getContainer(containerId).inspect()).State.Running;
  };

  test("refuses every change as a whole, serves reads, harms no sandbox, and is over by itself", async () => {
    const before = await host.run("runs", "while :; do date; sleep 1; done");
    disk.fill();
    await untilTold();
    const health = await host.daemon.client(Health).check({ service: SandboxService.typeName });
    expect(HealthCheckResponse_ServingStatus[health.status]).toBe("NOT_SERVING");

    const changes = {
      create: () => host.run("new", sleeping),
      stop: () => host.sandboxes.stopSandbox({ sandboxId: "runs" }),
      delete: () => host.sandboxes.deleteSandbox({ sandboxId: "runs" }),
      update: () => host.sandboxes.updateSandbox({ sandboxId: "runs", labels: { a: "b" } }),
    };
    for (const [verb, change] of Object.entries(changes)) {
      const refused = await refusalOf(change());
      expect(refused, verb).toMatchObject({ code: "ResourceExhausted", reason: "STATE_DISK_FULL" });
    }
    expect((await refusalOf(host.get("new"))).reason).toBe("SANDBOX_NOT_FOUND");
    expect(await host.containers()).toHaveLength(1);

    expect(await host.get("runs")).toEqual(before);
    expect((await host.sandboxes.listSandboxes({})).sandboxes).toEqual([before]);
    expect((await host.events.listEvents({})).events.length).toBeGreaterThan(2);
    expect((await host.sandboxes.getSandboxStats({ sandboxId: "runs" })).stats?.pids).toBeGreaterThan(0n);
    expect(await host.output("runs")).not.toBe("");
    expect(await isRunning("runs")).toBe(true);

    disk.free();
    await untilOver();
    expect((await host.run("new", sleeping)).status?.state).toBe(SandboxState.RUNNING);
    await host.sandboxes.stopSandbox({ sandboxId: "runs" });
    for (const sandboxId of ["new", "runs"]) await host.sandboxes.deleteSandbox({ sandboxId });
    expect(await host.containers()).toEqual([]);
    await witness.check(host);
  });

  test("lets everything that was under way come to its end afterwards, told once and in order", async () => {
    await Promise.all([
      host.run("to-stop", "trap '' TERM; while :; do sleep 0.2; done"),
      host.run("to-delete", sleeping),
      host.run("to-end", "sleep 5; exit 7"),
      host.run("to-lose-one", "sleep 5; tail /dev/zero; exec sleep 1000"),
    ]);
    const [create, remove] = ["POST", "DELETE"];
    door.rule({ method: create, path: /^\/containers\/create$/, fault: { kind: "late", ms: 2_000 } });
    door.rule({ method: remove, fault: { kind: "late", ms: 2_000 } });
    await host.sandboxes.createSandbox({ sandboxId: "to-run", tenant, spec: specOf(sleeping), wait: false });
    const calls = Promise.all([
      host.sandboxes.stopSandbox({ sandboxId: "to-stop", grace: { seconds: 2n } }),
      host.sandboxes.deleteSandbox({ sandboxId: "to-delete" }),
    ]);
    await host.until("to-stop", isIn(SandboxState.STOPPING));
    await host.until("to-delete", isIn(SandboxState.DELETING));
    await eventually(
      "the create",
      () => door.calls.filter(({ path }) => path === "/containers/create").length,
      (count) => count === 5,
    );
    disk.fill();
    await untilTold();
    const states = () => host.containers().then((found) => found.map(({ State }) => State).sort());
    await eventually(
      "all that the engine has to do",
      states,
      (found) => found.join() === "exited,exited,running,running",
    );
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(whereIs(await host.get("to-stop")).state, "what cannot be written is not told").toBe("STOPPING");

    disk.free();
    await untilOver();
    await calls;
    expect(whereIs(await host.get("to-stop"))).toEqual({ state: "STOPPED", reason: "REQUESTED" });
    expect((await refusalOf(host.get("to-delete"))).reason).toBe("SANDBOX_NOT_FOUND");
    const ended = await host.until("to-end", isIn(SandboxState.FAILED));
    expect([whereIs(ended).reason, ended.status?.exit?.code]).toEqual(["EXITED", 7]);
    await host.until("to-run", isIn(SandboxState.RUNNING));
    const kills = { sandboxId: "to-lose-one", types: [EventType.SANDBOX_OOM] };
    const told = async () => (await host.events.listEvents({ filter: kills })).events.length;
    await eventually("the kill", told, (count) => count > 0);
    for (const sandboxId of ["to-stop", "to-end", "to-run", "to-lose-one"]) {
      await host.sandboxes.deleteSandbox({ sandboxId });
    }
    expect(await host.containers()).toEqual([]);
    await witness.check(host);
    expect(await told(), "the kill is told once").toBe(1);
  });
});
