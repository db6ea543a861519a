// What is still true after the daemon was killed, lost its state, or found the engine changed behind its back.

import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "smol-toml";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Health, HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1/health_pb.ts";
import type { Event } from "../../gen/sandboxd/v1/event_pb.ts";
import { HostConditionType } from "../../gen/sandboxd/v1/host_pb.ts";
import { ActorKind, type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { SandboxService } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { launcher } from "../../tools/lib/node.mjs";
import { engineObstacle, sharedEngine } from "../harness/engine.ts";
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

describe.skipIf(engineObstacle !== undefined)(`recovery (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  const hosts: TestHost[] = [];
  const start = async (options: Parameters<typeof startHost>[0] = {}): Promise<TestHost> => {
    const started = await startHost({
      ...options,
      config: { engine: { relist_period: "1s", orphan_grace: "1s" }, ...options.config },
    });
    hosts.push(started);
    return started;
  };
  beforeEach(async () => {
    host = await start();
  });
  afterEach(async () => {
    await Promise.all(hosts.splice(0).map(({ daemon }) => daemon.cleanup()));
  });

  const container = (sandbox: Sandbox) => host.docker.getContainer(present(sandbox.status).containerId);
  const startedAt = async (sandbox: Sandbox) => (await container(sandbox).inspect()).State.StartedAt;
  const eventsOf = async (sandboxId: string): Promise<readonly Event[]> =>
    (await host.events.listEvents({ filter: { sandboxId }, pageSize: 1000 })).events;

  test("sandboxes outlive a daemon that is killed; the next one knows, measures and ends them", async () => {
    const before = await Promise.all(
      ["one", "two", "three"].map((id) => host.run(id, "while :; do :; done")),
    );
    await host.sandboxes.stopSandbox({ sandboxId: "three" });
    const times = await Promise.all(before.map(startedAt));
    await host.daemon.kill("SIGKILL");
    expect((await host.containers()).filter(({ State }) => State === "running")).toHaveLength(2);
    await host.daemon.start();

    for (const [index, sandbox] of before.entries()) {
      const now = await host.get(sandbox.sandboxId);
      expect(now.status?.state).toBe(index === 2 ? SandboxState.STOPPED : SandboxState.RUNNING);
      expect(now.status?.containerId).toBe(sandbox.status?.containerId);
      expect(await startedAt(sandbox)).toBe(times[index]);
    }
    expect(
      (await eventsOf("one")).map(({ type }) => type),
      "nothing happened to it",
    ).toHaveLength(3);
    const stats = async () => present((await host.sandboxes.getSandboxStats({ sandboxId: "one" })).stats);
    const first = await eventually("figures", stats, ({ cpuUsageUsec }) => cpuUsageUsec > 0n);
    await eventually("more", stats, ({ cpuUsageUsec }) => cpuUsageUsec > first.cpuUsageUsec);
    expect(await host.run("one", "while :; do :; done"), "the same create gives the same").toMatchObject({
      createTime: before[0]?.createTime,
    });
    await host.sandboxes.stopSandbox({ sandboxId: "one" });
    await host.sandboxes.deleteSandbox({ sandboxId: "two" });
    expect(await host.containers()).toHaveLength(2);
  });

  test("a command that ends while no daemon runs is told by the next one", async () => {
    await host.run("ender", "sleep 1; exit 7");
    await host.daemon.kill("SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    await host.daemon.start();
    const sandbox = await host.until("ender", isIn(SandboxState.FAILED));
    expect(whereIs(sandbox).reason).toBe("EXITED");
    expect(sandbox.status?.exit?.code).toBe(7);
  });

  test("an accepted create, a stop and a delete that a kill interrupts are finished after the restart", async () => {
    await Promise.all([host.run("to-stop", sleeping), host.run("to-delete", sleeping)]);
    await host.sandboxes.createSandbox({ sandboxId: "to-run", tenant, spec: specOf(sleeping), wait: false });
    const calls = Promise.allSettled([
      host.sandboxes.stopSandbox({ sandboxId: "to-stop", grace: { seconds: 5n } }),
      host.sandboxes.deleteSandbox({ sandboxId: "to-delete" }),
    ]);
    await host.until("to-stop", (sandbox) => sandbox.status?.state !== SandboxState.RUNNING);
    await host.daemon.kill("SIGKILL");
    await calls;
    await host.daemon.start();
    await host.until("to-run", isIn(SandboxState.RUNNING));
    await host.until("to-stop", isIn(SandboxState.STOPPED));
    await eventually("the delete", host.containers, (found) => found.length === 2);
    expect((await refusalOf(host.get("to-delete"))).reason).toBe("SANDBOX_NOT_FOUND");
  });

  test("a lost database is rebuilt from the containers' labels, and nothing is removed", async () => {
    const before = await host.run("rebuilt", sleeping);
    await host.run("ended", "exit 4");
    await host.until("ended", isIn(SandboxState.FAILED));
    const time = await startedAt(before);
    const epoch = (await host.host.getHost({})).host?.stateEpoch;
    await host.daemon.kill("SIGKILL");
    for (const name of readdirSync(host.daemon.stateDirectory)) {
      if (name.startsWith("state.db")) rmSync(join(host.daemon.stateDirectory, name));
    }
    await host.daemon.start();
    const sandbox = await host.until("rebuilt", isIn(SandboxState.RUNNING));
    expect(sandbox.spec).toEqual(before.spec);
    expect(sandbox).toMatchObject({ tenant: before.tenant, createTime: before.createTime });
    expect(sandbox.status).toMatchObject({
      containerId: before.status?.containerId,
      uid: before.status?.uid,
      imageId: before.status?.imageId,
    });
    expect(await startedAt(before)).toBe(time);
    expect((await host.get("ended")).status?.state).not.toBe(SandboxState.RUNNING);
    expect((await host.host.getHost({})).host?.stateEpoch).not.toBe(epoch);
    expect(await host.run("rebuilt", sleeping), "the id is still taken by the same request").toMatchObject({
      createTime: before.createTime,
    });
    await host.sandboxes.deleteSandbox({ sandboxId: "rebuilt" });
    await host.sandboxes.deleteSandbox({ sandboxId: "ended" });
    expect(await host.containers()).toEqual([]);
  });

  test("a sandbox whose limits were changed is rebuilt with what the kernel holds, and runs on", async () => {
    const resources = { cpuMillis: 400n, cpuRequestMillis: 300n, memoryBytes: 67_108_864n };
    const before = await host.run("changed", sleeping, resources);
    const change = { cpuMillis: 200n, memoryBytes: 50_331_648n, pids: 40n };
    const { sandbox } = await host.sandboxes.updateSandbox({ sandboxId: "changed", resources: change });
    const time = await startedAt(before);
    await host.daemon.kill("SIGKILL");
    for (const name of readdirSync(host.daemon.stateDirectory)) {
      if (name.startsWith("state.db")) rmSync(join(host.daemon.stateDirectory, name));
    }
    await host.daemon.start();
    const rebuilt = await host.until("changed", isIn(SandboxState.RUNNING));
    expect(rebuilt.spec?.resources).toEqual(sandbox?.spec?.resources);
    expect(await startedAt(before)).toBe(time);
    await host.sandboxes.stopSandbox({ sandboxId: "changed" });
    await host.sandboxes.startSandbox({ sandboxId: "changed" });
    expect(whereIs(await host.get("changed")).state).toBe("RUNNING");
  });

  test("a container that is removed behind the daemon is told once, as lost and by whom", async () => {
    const sandbox = await host.run("lost", sleeping);
    await container(sandbox).remove({ force: true });
    const now = await host.until("lost", isIn(SandboxState.FAILED));
    // its kill may be seen before its removal
    expect(["CONTAINER_LOST", "EXTERNAL"]).toContain(whereIs(now).reason);
    expect(now.status?.transition?.actor?.kind).toBe(ActorKind.EXTERNAL);
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    expect(
      (await eventsOf("lost")).filter(({ sandbox: told }) => told?.status?.state === SandboxState.FAILED),
    ).toHaveLength(1);
    await host.sandboxes.startSandbox({ sandboxId: "lost" });
    expect((await host.get("lost")).status?.state).toBe(SandboxState.RUNNING);
    expect(await host.containers()).toHaveLength(1);
  });

  test("a container that is removed while no daemon runs is told as lost", async () => {
    const sandbox = await host.run("lost", sleeping);
    await host.daemon.kill("SIGKILL");
    await container(sandbox).remove({ force: true });
    await host.daemon.start();
    const now = await host.until("lost", isIn(SandboxState.FAILED));
    expect(whereIs(now).reason).toBe("CONTAINER_LOST");
    expect(now.status?.transition?.actor?.kind).toBe(ActorKind.EXTERNAL);
  });

  test("a container that is killed or stopped behind the daemon is told once, with the actor EXTERNAL", async () => {
    const [killed, stopped] = await Promise.all([
      host.run("killed", sleeping),
      host.run("stopped", sleeping),
    ]);
    await Promise.all([container(killed).kill(), container(stopped).stop({ t: 0 })]);
    for (const id of ["killed", "stopped"]) {
      const now = await host.until(id, isIn(SandboxState.FAILED));
      expect(whereIs(now).reason).toBe("EXTERNAL");
      expect(now.status?.transition?.actor?.kind).toBe(ActorKind.EXTERNAL);
    }
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    for (const id of ["killed", "stopped"]) {
      const failures = (await eventsOf(id)).filter(
        ({ sandbox }) => sandbox?.status?.state === SandboxState.FAILED,
      );
      expect(failures).toHaveLength(1);
    }
    // a run of its own later is not laid to the operator
    await host.sandboxes.startSandbox({ sandboxId: "killed" });
    await host.sandboxes.stopSandbox({ sandboxId: "killed" });
    expect(whereIs(await host.get("killed"))).toEqual({ state: "STOPPED", reason: "REQUESTED" });
  });

  test("a pause and its end behind the daemon are seen", async () => {
    const sandbox = await host.run("paused", sleeping);
    await container(sandbox).pause();
    const paused = await host.until("paused", isIn(SandboxState.PAUSED));
    expect(whereIs(paused).reason).toBe("EXTERNAL");
    await container(sandbox).unpause();
    const running = await host.until("paused", isIn(SandboxState.RUNNING));
    expect(running.status?.transition).toMatchObject({ actor: { kind: ActorKind.EXTERNAL } });
    await container(sandbox).pause();
    await host.until("paused", isIn(SandboxState.PAUSED));
    await host.sandboxes.deleteSandbox({ sandboxId: "paused" });
    expect(await host.containers()).toEqual([]);
  });

  test("a container that is started behind the daemon is stopped again", async () => {
    const sandbox = await host.run("restarted", sleeping);
    await host.sandboxes.stopSandbox({ sandboxId: "restarted" });
    await container(sandbox).start();
    await eventually(
      "a stop",
      () => container(sandbox).inspect(),
      ({ State }) => !State.Running,
    );
    await host.until("restarted", isIn(SandboxState.STOPPED));
  });

  test("a container of this host that the state knows to be deleted is removed after the grace", async () => {
    const sandbox = await host.run("copied", sleeping);
    const { Config, Image } = await container(sandbox).inspect();
    await host.sandboxes.deleteSandbox({ sandboxId: "copied" });
    await host.docker.createContainer({ Image, Cmd: ["sleep", "1000"], Labels: Config.Labels });
    await eventually("its removal", host.containers, (found) => found.length === 0);
  });

  test("a second daemon on the same state directory ends at once and says why", async () => {
    const sandbox = await host.run("kept", sleeping);
    const directory = mkdtempSync(join(tmpdir(), "second-"));
    try {
      const file = join(directory, "sandboxd.toml");
      const config = {
        host: { id: host.daemon.hostId },
        state: { directory: host.daemon.stateDirectory },
        engine: { socket: sharedEngine() },
        listen: { socket: join(directory, "sandboxd.sock") },
      };
      writeFileSync(file, stringify(config), { mode: 0o600 });
      const { code, output } = await runDaemon(file);
      expect(code).toBe(1);
      expect(output).toContain(host.daemon.stateDirectory);
      expect(output).toMatch(/in use|locked|another/i);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
    expect(await host.get("kept")).toEqual(sandbox);
  });

  test("a daemon with another host id on the same engine leaves the first's containers alone", async () => {
    const sandbox = await host.run("mine", sleeping);
    const other = await start();
    const theirs = await other.run("mine", sleeping);
    expect(theirs.status?.containerId).not.toBe(sandbox.status?.containerId);
    await other.sandboxes.deleteSandbox({ sandboxId: "mine" });
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    expect((await other.sandboxes.listSandboxes({})).sandboxes).toEqual([]);
    expect(await host.get("mine")).toEqual(sandbox);
    expect((await container(sandbox).inspect()).State.Running).toBe(true);
  });

  test("SIGTERM ends the daemon with 0, and sandboxes keep running", async () => {
    const sandbox = await host.run("kept", sleeping);
    let isWatched = false;
    const watching = (async () => {
      for await (const { update } of host.sandboxes.watchSandboxes({})) {
        isWatched ||= update.case === "bookmark";
      }
    })();
    const ended = refusalOf(watching);
    await expect.poll(() => isWatched).toBe(true);
    expect(await host.daemon.stop()).toBe(0);
    expect(await ended).toMatchObject({ code: "Unavailable", reason: "SHUTTING_DOWN" });
    expect((await container(sandbox).inspect()).State.Running).toBe(true);
    await host.daemon.start();
    expect((await host.get("kept")).status).toEqual(sandbox.status);
  });
});

describe.skipIf(engineObstacle !== undefined)(
  `an engine that is absent (${engineObstacle ?? "engine"})`,
  () => {
    test("does not keep the daemon from serving, is told, and is recovered from without help", async () => {
      const directory = mkdtempSync(join(tmpdir(), "absent-"));
      const socket = join(directory, "docker.sock");
      const { createServer, connect } = await import("node:net");
      // a door that opens later, to the engine that all tests share
      const door = createServer((incoming) => {
        const outgoing = connect(sharedEngine());
        for (const [from, to] of [
          [incoming, outgoing],
          [outgoing, incoming],
        ] as const) {
          from.pipe(to);
          from.on("error", () => to.destroy());
          from.on("close", () => to.destroy());
        }
      });
      const host = await startHost({ engine: socket });
      try {
        const health = host.daemon.client(Health);
        const statusOf = async (service: string) =>
          HealthCheckResponse_ServingStatus[(await health.check({ service })).status];
        expect(await statusOf("")).toBe("SERVING");
        expect(await statusOf(SandboxService.typeName)).toBe("NOT_SERVING");
        const conditions = async () =>
          present((await host.host.getHost({})).host).conditions.filter(({ active }) => active);
        expect(await conditions()).toMatchObject([
          { type: HostConditionType.ENGINE_ABSENT, hint: expect.stringMatching(/engine/) },
        ]);
        expect((await host.host.getHost({})).host?.accepting).toBe(false);
        expect(await refusalOf(host.run("early", sleeping))).toMatchObject({
          code: "Unavailable",
          reason: "ENGINE_UNAVAILABLE",
        });
        expect((await host.sandboxes.listSandboxes({})).sandboxes).toEqual([]);

        await new Promise<void>((resolve) => door.listen(socket, resolve));
        await eventually(
          "service",
          () => statusOf(SandboxService.typeName),
          (status) => status === "SERVING",
        );
        expect(await conditions()).toEqual([]);
        expect(whereIs(await host.run("late", sleeping)).state).toBe("RUNNING");
        await host.sandboxes.deleteSandbox({ sandboxId: "late" });
        const told = await host.events.listEvents({ filter: { types: [20] }, pageSize: 1000 });
        expect(
          told.events.map(({ condition }) => [condition?.type, condition?.active]),
          "told once as begun and once as ended",
        ).toEqual([
          [HostConditionType.ENGINE_ABSENT, true],
          [HostConditionType.ENGINE_ABSENT, false],
        ]);
        await host.daemon.stop();
      } finally {
        await host.daemon.cleanup();
        door.close();
        rmSync(directory, { recursive: true, force: true });
      }
    });
  },
);

/** Runs the daemon to its end. */
function runDaemon(configFile: string): Promise<{ readonly code: number | null; readonly output: string }> {
  const child = spawn(launcher, ["serve", "--config", configFile], {
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 20_000,
    killSignal: "SIGKILL",
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
  }
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, output })));
}
