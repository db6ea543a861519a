// Health checks while the engine fails: what is not found out is no failure, and nothing is ended for it.

import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { HealthState, UnhealthyPolicy } from "../../gen/sandboxd/v1/lifecycle_pb.ts";
import type { Sandbox } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { PrivateEngine } from "../../tools/lib/engine.mjs";
import { engineObstacle, ownEngine } from "../harness/engine.ts";
import {
  present,
  type SpecInit,
  specOf,
  startHost,
  type TestHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

type Check = Exclude<SpecInit["healthCheck"], undefined>;

const isHealthy = ({ status }: Sandbox) => status?.health?.state === HealthState.HEALTHY;
const messageOf = ({ status }: Sandbox) => present(status?.health?.message);

describe.skipIf(engineObstacle !== undefined)(
  `health checks under an engine that fails (${engineObstacle ?? "engine"})`,
  () => {
    let engine: PrivateEngine;
    let host: TestHost;
    beforeEach(async () => {
      engine = await ownEngine({ liveRestore: true });
      const timeouts = { list: "2s", inspect: "2s", exec: "2s" };
      host = await startHost({
        engine: engine.socket,
        config: { engine: { relist_period: "1s", timeouts } },
      });
    });
    afterEach(async () => {
      engine?.thaw();
      await host?.daemon.stop();
      await engine?.stop();
      await host?.daemon.cleanup().catch(() => undefined);
    });

    /** A sandbox that is stopped at its first failure. */
    async function run(id: string, script: string, probe: Check["probe"]): Promise<void> {
      const healthCheck = {
        probe,
        interval: { seconds: 1n },
        timeout: { seconds: 1n },
        startPeriod: { seconds: 3n },
        retries: 1,
        onUnhealthy: UnhealthyPolicy.STOP,
      } as Check;
      await host.sandboxes.createSandbox({ sandboxId: id, tenant, spec: { ...specOf(script), healthCheck } });
      await host.until(id, isHealthy);
    }

    async function goOn(during: () => Promise<void>, after: () => Promise<void>): Promise<void> {
      await run("exec", "exec sleep 1000", { case: "exec", value: { command: ["date", "+%s"] } });
      await run("tcp", "exec httpd -f -p 8080", { case: "tcp", value: { port: 8080 } });
      await during();
      await sleep(6_000);
      const looked = present((await host.get("tcp")).status?.health?.time);
      expect(Date.now() / 1_000 - Number(looked.seconds), "what needs no engine goes on").toBeLessThan(4);
      const before = await host.get("exec");
      await after();
      await host.until("exec", (sandbox) => messageOf(sandbox) > messageOf(before));
      for (const id of ["exec", "tcp"]) {
        const sandbox = await host.get(id);
        expect(whereIs(sandbox)).toEqual({ state: "RUNNING", reason: "PROGRESS" });
        expect(isHealthy(sandbox)).toBe(true);
      }
    }

    test("do not fail while it hangs, and go on after that", async () => {
      await goOn(
        () => engine.freeze(),
        async () => engine.thaw(),
      );
    });

    test("do not fail while it is gone, and go on after that", async () => {
      await goOn(
        () => engine.kill(),
        () => engine.restart({ liveRestore: true }),
      );
    });
  },
);
