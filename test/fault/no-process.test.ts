// A daemon that can start no process: fork fails with EAGAIN, as where a host or a service has no process left. What needs one
// fails, what needs none goes on, and once there are some again it is as before. Nobody starts it again if it ends.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HealthState, UnhealthyPolicy } from "../../gen/sandboxd/v1/lifecycle_pb.ts";
import { type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { type Cgroup, makeCgroup } from "../harness/cgroup.ts";
import { engineObstacle } from "../harness/engine.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import {
  eventually,
  isIn,
  present,
  type SpecInit,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
} from "../harness/sandboxes.ts";

type Check = Exclude<SpecInit["healthCheck"], undefined>;

/** Of a call that starts no process, on a machine that has other things to do. */
const promptMs = 5_000;
const shortageMs = 8_000;

describe.skipIf(engineObstacle !== undefined)(
  `a daemon that can start no process (${engineObstacle ?? "engine"})`,
  () => {
    let witness: EventWitness;
    let processes: Cgroup;
    let host: TestHost;
    beforeAll(async () => {
      witness = await witnessEvents();
      processes = makeCgroup("pids");
      const config = { engine: { relist_period: "1s" }, ...witness.config };
      host = await startHost({ launcher: processes.launcher, config });
    });
    afterAll(async () => {
      await host?.daemon.cleanup();
      await processes?.close();
      await witness?.close();
    });

    /** Of processes beside the daemon's own threads, which count as such, and shells of its that wait. */
    const allow = (count: number) => {
      const task = `/proc/${present(host.daemon.pid())}/task`;
      const shells = readFileSync(join(task, String(host.daemon.pid()), "children"), "latin1");
      processes.write("pids.max", count + readdirSync(task).length + shells.split(" ").length - 1);
    };
    const allowNone = () => allow(0);
    const allowAll = () => processes.write("pids.max", "max");
    const refused = () => Number(/max (\d+)/.exec(processes.read("pids.events"))?.[1]);

    /** A web server that is stopped at the first failure of its health check. */
    async function serve(sandboxId: string, probe: Check["probe"]): Promise<Sandbox> {
      const healthCheck = {
        probe,
        interval: { seconds: 1n },
        timeout: { seconds: 5n },
        startPeriod: { seconds: 0n },
        retries: 1,
        onUnhealthy: UnhealthyPolicy.STOP,
      } as Check;
      const spec = specOf("echo hi >/tmp/index.html; exec httpd -f -p 8080 -h /tmp", { cpuMillis: 300n });
      await host.sandboxes.createSandbox({ sandboxId, tenant, spec: { ...spec, healthCheck } });
      return host.until(sandboxId, ({ status }) => status?.health?.state === HealthState.HEALTHY);
    }
    const overHttp = { case: "http", value: { port: 8080, path: "/" } } as Check["probe"];
    const lookedAt = async (id: string) => Number((await host.get(id)).status?.health?.time?.seconds ?? 0n);
    const untried = (id: string) =>
      host.daemon
        .logs()
        .split("\n")
        .filter((line) => line.includes("health check could not be tried") && line.includes(id)).length;

    const isLookedAtAfter = (id: string, timeSeconds: number) =>
      eventually(
        "a probe",
        () => lookedAt(id),
        (time) => time > timeSeconds,
        promptMs,
      );

    test("blames no sandbox where there is room for one process at a time", async () => {
      await serve("one-at-a-time", overHttp);
      allow(1);
      try {
        await isLookedAtAfter("one-at-a-time", await lookedAt("one-at-a-time"));
        await isLookedAtAfter("one-at-a-time", await lookedAt("one-at-a-time"));
        expect((await host.get("one-at-a-time")).status?.health?.state).toBe(HealthState.HEALTHY);
      } finally {
        allowAll();
      }
      await host.sandboxes.deleteSandbox({ sandboxId: "one-at-a-time" });
    });

    test("fails no health check for it, does all else, and goes on once it can", async () => {
      const before = await serve("http", overHttp);
      await serve("tcp", { case: "tcp", value: { port: 8080 } } as Check["probe"]);
      const pid = host.daemon.pid();
      const refusedBefore = refused();
      allowNone();
      // a probe that had begun may still end
      await sleep(1_000);
      const [httpAt, tcpAt] = await Promise.all(["http", "tcp"].map(lookedAt));
      expect(httpAt, "it goes on running").toBeGreaterThan(0);
      const end = performance.now() + shortageMs;
      for (let turn = 0; performance.now() < end; turn += 1) {
        const sandboxId = `short-${turn}`;
        const options = { timeoutMs: promptMs };
        await host.sandboxes.createSandbox({ sandboxId, tenant, spec: specOf(sleeping) }, options);
        await host.sandboxes.getSandboxStats({ sandboxId }, options);
        await host.sandboxes.stopSandbox({ sandboxId }, options);
        await host.sandboxes.deleteSandbox({ sandboxId }, options);
      }
      expect(refused(), "forks were refused").toBeGreaterThan(refusedBefore);
      expect(await lookedAt("http")).toBe(httpAt);
      expect(await lookedAt("tcp"), "what needs no process goes on").toBeGreaterThan(tcpAt ?? 0);
      expect(untried("http"), "told once").toBe(1);
      const during = await host.get("http");
      expect({ ...during.status, health: undefined }).toEqual({ ...before.status, health: undefined });
      expect(during.status?.health?.state).toBe(HealthState.HEALTHY);

      allowAll();
      await isLookedAtAfter("http", httpAt ?? 0);
      await serve("http-after", overHttp);
      expect(host.daemon.pid()).toBe(pid);
      await witness.check(host);
    });

    test("serves although it is so from its start, with what is known without one", async () => {
      const before = await Promise.all(["one", "two"].map((id) => host.run(id, sleeping)));
      allowNone();
      await host.daemon.restart();
      expect(await Promise.all(["one", "two"].map(host.get))).toEqual(before);
      const machine = await eventually(
        "the inventory",
        async () => present((await host.host.getHost({})).host).machine,
        (found) => found !== undefined,
      );
      expect(machine?.cpus, "as Node knows it").toBeGreaterThan(0);
      expect((await host.run("three", sleeping)).status?.state).toBe(SandboxState.RUNNING);
      await sleep(3_000);
      await host.sandboxes.stopSandbox({ sandboxId: "one" });
      allowAll();
      await serve("http-later", overHttp);
      await host.until("one", isIn(SandboxState.STOPPED));
      await witness.check(host);
    });
  },
);
