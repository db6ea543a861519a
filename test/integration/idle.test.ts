// Idleness of real sandboxes: what ends them, and what keeps them.

import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ExpiryPolicy, HealthState } from "../../gen/sandboxd/v1/lifecycle_pb.ts";
import { type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import {
  eventually,
  isIn,
  present,
  refusalOf,
  type SpecInit,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

/** The shortest that may be asked for, and a sample or two. */
const timeoutMs = 5_000;
const wellPastMs = 8_000;

describe.skipIf(engineObstacle !== undefined)(`idleness (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  beforeAll(async () => {
    host = await startHost({ config: { sampling: { period: "500ms" } } });
  });
  afterAll(() => host?.daemon.cleanup());

  async function run(
    id: string,
    script: string,
    lifetime: Exclude<SpecInit["lifetime"], undefined> = {},
    spec: SpecInit = {},
  ): Promise<Sandbox> {
    const idleTimeout = { seconds: BigInt(timeoutMs / 1_000) };
    const { sandbox } = await host.sandboxes.createSandbox({
      sandboxId: id,
      tenant,
      spec: { ...specOf(script), lifetime: { idleTimeout, ...lifetime } as never, ...spec },
    });
    return present(sandbox);
  }

  const isGone = async (id: string) => (await refusalOf(host.get(id))).reason === "SANDBOX_NOT_FOUND";

  test.concurrent("ends a sandbox that does nothing by its deletion", async () => {
    const began = performance.now();
    await run("deleted", sleeping);
    await eventually(
      "its deletion",
      () => isGone("deleted"),
      (found) => found,
    );
    expect(performance.now() - began).toBeGreaterThan(timeoutMs - 500);
    const { events } = await host.events.listEvents({ pageSize: 1000 });
    const last = events
      .filter(({ sandboxId }) => sandboxId === "deleted")
      .map(({ sandbox }) => whereIs(present(sandbox)));
    expect(last).toContainEqual({ state: "DELETING", reason: "IDLE" });
  });

  test.concurrent("ends it by a stop, where that is asked for", async () => {
    await run("stopped", sleeping, { onExpiry: ExpiryPolicy.STOP });
    expect(whereIs(await host.until("stopped", isIn(SandboxState.STOPPED))).reason).toBe("IDLE");
  });

  test.concurrent("ends it by a pause, counts nothing while it is paused, and anew after it", async () => {
    await run("paused", sleeping, { onExpiry: ExpiryPolicy.PAUSE });
    expect(whereIs(await host.until("paused", isIn(SandboxState.PAUSED))).reason).toBe("IDLE");
    await sleep(1_000);
    await host.sandboxes.resumeSandbox({ sandboxId: "paused" });
    const resumed = performance.now();
    await host.until("paused", isIn(SandboxState.PAUSED));
    expect(performance.now() - resumed).toBeGreaterThan(timeoutMs - 500);
  });

  test.concurrent("is told while it lasts", async () => {
    await run("told", sleeping, { idleTimeout: { seconds: 600n } });
    await eventually(
      "the finding",
      () => host.sandboxes.explainSandbox({ sandboxId: "told" }),
      ({ findings }) =>
        findings.some(
          ({ kind, message }) => kind === "idle" && /idle for [1-9].* of its 600 s/.test(message),
        ),
    );
  });

  test.concurrent("does not end what works", async () => {
    await run("busy", "while :; do :; done");
    await sleep(wellPastMs);
    expect(whereIs(await host.get("busy")).state).toBe("RUNNING");
  });

  test.concurrent("does not end what starts processes now and then", async () => {
    await run("forking", "while :; do sleep 3; sleep 1000 & done", { idleCpuMillis: 1_000n });
    await sleep(wellPastMs);
    expect(whereIs(await host.get("forking")).state).toBe("RUNNING");
  });

  test.concurrent("does not end what somebody follows, until they leave", async () => {
    await run("followed", sleeping, { onExpiry: ExpiryPolicy.STOP });
    const leaving = new AbortController();
    const following = (async () => {
      const log = host.sandboxes.streamLogs(
        { sandboxId: "followed", follow: true },
        { signal: leaving.signal },
      );
      for await (const _ of log);
    })();
    await sleep(wellPastMs);
    expect(whereIs(await host.get("followed")).state).toBe("RUNNING");
    leaving.abort();
    await following.catch(() => undefined);
    const left = performance.now();
    await host.until("followed", isIn(SandboxState.STOPPED));
    expect(performance.now() - left).toBeGreaterThan(timeoutMs - 500);
  });

  const often = {
    interval: { seconds: 1n },
    probe: {
      case: "exec" as const,
      value: { command: ["sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done"] },
    },
  };

  test.concurrent("is not interrupted by health checks, however often and busy", async () => {
    await run("probed", sleeping, { onExpiry: ExpiryPolicy.STOP }, { healthCheck: often as never });
    await host.until("probed", (sandbox) => sandbox.status?.health?.state === HealthState.HEALTHY);
    expect(whereIs(await host.until("probed", isIn(SandboxState.STOPPED))).reason).toBe("IDLE");
  });

  test.concurrent("does not end what works between its health checks", async () => {
    await run("probed-busy", "while :; do :; done", {}, { healthCheck: often as never });
    await sleep(wellPastMs);
    expect(whereIs(await host.get("probed-busy")).state).toBe("RUNNING");
  });

  test("is refused out of its bounds, before anything is made", async () => {
    for (const [lifetime, field] of [
      [{ idleTimeout: { seconds: 4n } }, "spec.lifetime.idle_timeout"],
      [{ idleTimeout: { seconds: 366n * 86_400n + 1n } }, "spec.lifetime.idle_timeout"],
      [{ idleCpuMillis: -1n }, "spec.lifetime.idle_cpu_millis"],
      [{ idleCpuMillis: 100_001n }, "spec.lifetime.idle_cpu_millis"],
    ] as const) {
      const refused = await refusalOf(run("refused", sleeping, lifetime as never));
      expect(refused).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
      expect(refused.message).toContain(field);
    }
    expect(await isGone("refused")).toBe(true);
  });
});
