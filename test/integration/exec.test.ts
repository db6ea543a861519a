// Commands run inside a sandbox through the engine: what they may do, how they end, and what is left of them.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createDockerRuntime } from "../../src/engine/docker.ts";
import type { ExecRequest, ExecResult, Runtime } from "../../src/engine/runtime.ts";
import { engineObstacle, sharedEngine } from "../harness/engine.ts";
import { present, sleeping, startHost, type TestHost } from "../harness/sandboxes.ts";

const timeoutMs = 10_000;

describe.skipIf(engineObstacle !== undefined)(`a command inside (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  let runtime: Runtime;
  let containerId: string;
  let user: string;
  beforeAll(async () => {
    host = await startHost();
    const timeouts = ["list", "inspect", "create", "start", "stop", "remove", "update", "pull", "pause"];
    runtime = createDockerRuntime({
      socket: sharedEngine(),
      timeoutsMs: Object.fromEntries(
        [...timeouts, "resume", "exec"].map((verb) => [verb, timeoutMs]),
      ) as never,
      observe: () => undefined,
    });
    const { status } = await host.run("inside", sleeping, { cpuMillis: 1000n });
    containerId = present(status).containerId;
    user = `${present(status).uid}:${present(status).uid}`;
  });
  afterAll(async () => {
    runtime?.close();
    await host?.daemon.cleanup();
  });

  function exec(script: string, change: Partial<ExecRequest> & { signal?: AbortSignal } = {}) {
    const { signal, ...request } = change;
    return runtime.exec(
      containerId,
      {
        command: ["sh", "-c", script],
        user,
        workingDir: "/tmp",
        timeoutMs,
        maxOutputBytes: 10_000,
        ...request,
      },
      signal === undefined ? {} : { signal },
    );
  }
  const outputOf = (result: ExecResult) => result.output.toString();

  /** Names of the processes inside, without those of this look. */
  async function processes(): Promise<readonly string[]> {
    const { Processes } = await host.docker.getContainer(containerId).top({ ps_args: "-eo pid,args" });
    return (Processes as string[][]).map(([, ...args]) => args.join(" ")).sort();
  }

  test("tells its exit code and both of its outputs", async () => {
    const result = await exec("echo out; echo err >&2; exit 3");
    expect(result).toMatchObject({ kind: "ended", exitCode: 3 });
    expect(outputOf(result).split("\n").sort()).toEqual(["", "err", "out"]);
  });

  test("has the sandbox's user, directory and confinement", async () => {
    const lines = outputOf(await exec("id -u; id -G; pwd; cat /proc/self/status")).split("\n");
    const [uid] = user.split(":");
    expect(lines.slice(0, 3)).toEqual([uid, uid, "/tmp"]);
    const status = new Map(lines.slice(3).map((line) => line.split(":\t") as [string, string]));
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
      expect([set, status.get(set)]).toEqual([set, "0000000000000000"]);
    }
    expect(status.get("NoNewPrivs")).toBe("1");
    expect(status.get("Seccomp")).toBe("2");
    expect(status.get("Groups")?.trim()).toMatch(/^$|^\d{5,}$/);
  });

  test("has the environment of the sandbox, and nothing of the daemon's", async () => {
    const names = outputOf(await exec("env"))
      .split("\n")
      .map((line) => line.split("=")[0]);
    for (const name of names) expect(["HOME", "HOSTNAME", "PATH", "PWD", "SHLVL", ""]).toContain(name);
  });

  test("that cannot be executed is told with 126 or 127, and why", async () => {
    const result = await exec("", { command: ["/no/such"] });
    expect(result).toMatchObject({ kind: "ended", exitCode: expect.toBeOneOf([126, 127]) });
    expect(outputOf(result)).toMatch(/no such file/);
  });

  test("keeps only as much output as was asked for", async () => {
    const result = await exec("head -c 100000 /dev/zero | tr '\\0' x", { maxOutputBytes: 50 });
    expect(result).toMatchObject({ kind: "ended", exitCode: 0 });
    expect(outputOf(result)).toBe("x".repeat(50));
  });

  test("that writes without end is killed, and nothing is left of it", async () => {
    const before = await processes();
    expect((await exec("yes")).kind).toBe("excess");
    expect(await processes()).toEqual(before);
  });

  test("that hangs is killed at its timeout with all that it started", async () => {
    const before = await processes();
    const began = performance.now();
    const result = await exec("echo begun; sleep 500 & (sleep 600 & sleep 700) & setsid sleep 800; wait", {
      timeoutMs: 1_000,
    });
    expect(performance.now() - began).toBeLessThan(5_000);
    expect(result.kind).toBe("timeout");
    expect(outputOf(result)).toBe("begun\n");
    expect(await processes()).toEqual(before);
  });

  test("that ends and leaves its output open is killed at its timeout with all that it started", async () => {
    const before = await processes();
    expect((await exec("sleep 500 & exit 0", { timeoutMs: 1_000 })).kind).toBe("timeout");
    expect(await processes()).toEqual(before);
  });

  test("whose caller gives up is killed", async () => {
    const before = await processes();
    const giving = new AbortController();
    const call = exec("sleep 500", { signal: giving.signal });
    setTimeout(() => giving.abort(new Error("gave up")), 500);
    await expect(call).rejects.toThrow("gave up");
    expect(await processes()).toEqual(before);
  });

  test("leaves nothing behind in the engine", async () => {
    await Promise.all(Array.from({ length: 10 }, () => exec("exit 0")));
    const { ExecIDs } = await host.docker.getContainer(containerId).inspect();
    expect(ExecIDs ?? []).toEqual([]);
  });

  test("is refused while the sandbox is paused", async () => {
    await host.sandboxes.pauseSandbox({ sandboxId: "inside" });
    await expect(exec("exit 0")).rejects.toMatchObject({ reason: "ENGINE_FAILED" });
    await host.sandboxes.resumeSandbox({ sandboxId: "inside" });
    expect(await exec("exit 0")).toMatchObject({ kind: "ended", exitCode: 0 });
  });

  test("in a container that is not there fails", async () => {
    await expect(
      runtime.exec("f".repeat(64), {
        command: ["true"],
        user,
        workingDir: "/",
        timeoutMs,
        maxOutputBytes: 1,
      }),
    ).rejects.toMatchObject({ reason: "ENGINE_FAILED" });
  });
});
