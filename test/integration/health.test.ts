// Health checks of real sandboxes: each kind of probe, what comes of it, and servers that mean harm.

import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HealthState, RestartMode, UnhealthyPolicy } from "../../gen/sandboxd/v1/lifecycle_pb.ts";
import { type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { baseImage, engineObstacle } from "../harness/engine.ts";
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

type Check = Exclude<SpecInit["healthCheck"], undefined>;

const second = { seconds: 1n };
const exec = (script: string): Check["probe"] => ({
  case: "exec",
  value: { command: ["sh", "-c", script] },
});
const tcp = (port: number): Check["probe"] => ({ case: "tcp", value: { port } });
const http = (port: number, path = ""): Check["probe"] => ({ case: "http", value: { port, path } });

/** Takes the request from the connection: what closes with something unread resets it, and its answer with it. */
const hearing = "dd bs=4k count=1 of=/dev/null 2>/dev/null";

const isHealth = (state: HealthState) => (sandbox: Sandbox) => sandbox.status?.health?.state === state;
const messageOf = (sandbox: Sandbox) => sandbox.status?.health?.message ?? "";

/** Is healthy for some seconds, and stopped after that. */
const checked = {
  image: baseImage,
  command: ["sh", "-c", "touch /tmp/up; sleep 6; rm /tmp/up; exec sleep 1000"],
  health_check: {
    exec: ["test", "-e", "/tmp/up"],
    interval: "1s",
    timeout: "2s",
    start_period: "0s",
    retries: 2,
    on_unhealthy: "stop",
  },
};

describe.skipIf(engineObstacle !== undefined)(`health checks (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  beforeAll(async () => {
    host = await startHost({ config: { templates: { checked } } });
  });
  afterAll(() => host?.daemon.cleanup());

  /** Creates a sandbox with a check each second, unhealthy at the second failure. */
  async function run(id: string, script: string, check: Check, spec: SpecInit = {}): Promise<Sandbox> {
    const healthCheck = {
      interval: second,
      timeout: second,
      startPeriod: { seconds: 0n },
      retries: 2,
      ...check,
    } as Check;
    const { sandbox } = await host.sandboxes.createSandbox({
      sandboxId: id,
      tenant,
      spec: { ...specOf(script, { cpuMillis: 500n }), healthCheck, ...spec },
    });
    return present(sandbox);
  }

  /** Command lines of what runs in the sandbox. */
  async function processes(containerId: string): Promise<readonly string[]> {
    const { Processes } = await host.docker.getContainer(containerId).top({ ps_args: "-eo pid,args" });
    return (Processes as string[][]).map(([, ...args]) => args.join(" "));
  }

  /** The kinds of events of a sandbox so far. */
  async function changes(id: string): Promise<readonly string[]> {
    const { events } = await host.events.listEvents({ pageSize: 1000 });
    return events
      .filter(({ sandboxId }) => sandboxId === id)
      .map(({ sandbox }) => {
        const health = sandbox?.status?.health?.state;
        return `${whereIs(present(sandbox)).state}${health === undefined ? "" : ` ${HealthState[health]}`}`;
      });
  }

  test("begin as STARTING; an exec probe's exit code decides, and its output is told", async () => {
    const created = await run("exec", sleeping, {
      probe: exec("test ! -e /tmp/broken || { echo oh no; exit 4; }"),
    });
    expect(created.status?.health).toMatchObject({ state: HealthState.STARTING, failures: 0 });
    const well = await host.until("exec", isHealth(HealthState.HEALTHY));
    expect(messageOf(well)).toBe("exit code 0");
    expect(well.status?.health?.time).toBeDefined();

    const { containerId, uid } = present(well.status);
    const touch = await host.docker
      .getContainer(containerId)
      .exec({ Cmd: ["touch", "/tmp/broken"], User: `${uid}` });
    await touch.start({ Detach: true });
    const ill = await host.until("exec", isHealth(HealthState.UNHEALTHY));
    expect(ill.status?.health).toMatchObject({ failures: 2, message: "exit code 4: oh no" });
    expect(whereIs(ill).state, "it is only reported").toBe("RUNNING");
    await host.until("exec", (sandbox) => (sandbox.status?.health?.failures ?? 0) > 2);
    expect(await changes("exec"), "an event tells a change of state, not each probe").toEqual([
      "PENDING",
      "CREATING",
      "RUNNING STARTING",
      "RUNNING HEALTHY",
      "RUNNING UNHEALTHY",
    ]);
  });

  test("find a listening port without a connection, and its end", async () => {
    await run("tcp", "timeout 4 httpd -f -p 9000; exec sleep 1000", { probe: tcp(9000) });
    await host.until("tcp", isHealth(HealthState.HEALTHY));
    const ill = await host.until("tcp", isHealth(HealthState.UNHEALTHY));
    expect(messageOf(ill)).toBe("nothing listens on port 9000");
  });

  test("ask over HTTP; a status of 404 is a failure", async () => {
    const script = "mkdir /tmp/w; echo hi >/tmp/w/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp/w";
    await run("http", script, { probe: http(8080) });
    await run("http-404", script, { probe: http(8080, "/none?a=b") });
    expect(messageOf(await host.until("http", isHealth(HealthState.HEALTHY)))).toBe("status 200");
    expect(messageOf(await host.until("http-404", isHealth(HealthState.UNHEALTHY)))).toBe("status 404");
  });

  test("over HTTP see the sandbox's own network, never the host's", async () => {
    await run("http-none", sleeping, { probe: http(22) });
    const ill = await host.until("http-none", isHealth(HealthState.UNHEALTHY));
    expect(messageOf(ill)).toBe("port 22 takes no connection");
  });

  describe("over HTTP, of a server that means harm, fail and nothing else", () => {
    test.each([
      ["endless", `${hearing}; yes HTTP/1.1`, "does not speak HTTP"],
      ["zeros", `${hearing}; cat /dev/zero`, "does not speak HTTP"],
      ["silent", "sleep 1000", "no answer on port 8080 within 1 s"],
      ["drip", "printf HTTP; sleep 1; printf /1.1; sleep 1000", "no answer on port 8080 within 1 s"],
      ["closing", hearing, "closed without an answer"],
      ["short", `${hearing}; printf 'HTTP/1.1 20'`, "does not speak HTTP"],
      ["odd", `${hearing}; printf 'HTTP/1.1 999 x\\r\\n\\r\\n'`, "does not speak HTTP"],
    ])("%s", async (name, answer, message) => {
      const script = `while :; do nc -l -p 8080 -e sh -c "${answer}"; done`;
      await run(`hostile-${name}`, script, { probe: http(8080) });
      await host.until(`hostile-${name}`, (sandbox) => messageOf(sandbox).endsWith(message));
      await host.until(`hostile-${name}`, isHealth(HealthState.UNHEALTHY));
      await host.sandboxes.deleteSandbox({ sandboxId: `hostile-${name}` });
    });

    test("a redirect is an answer, and is not followed", async () => {
      const answer = `${hearing}; printf 'HTTP/1.1 302 Found\\r\\nLocation: http://127.0.0.1:8080/\\r\\n\\r\\n'`;
      await run("redirect", `while :; do nc -l -p 8080 -e sh -c "${answer}"; done`, { probe: http(8080) });
      expect(messageOf(await host.until("redirect", isHealth(HealthState.HEALTHY)))).toBe("status 302");
    });
  });

  test("kill a command that hangs, with all that it started", async () => {
    await run("hanging", sleeping, { probe: exec("sleep 901 & sleep 902 & wait") });
    const ill = await host.until("hanging", isHealth(HealthState.UNHEALTHY));
    expect(messageOf(ill)).toBe("the command did not end within 1 s");
    await host.until("hanging", (sandbox) => (sandbox.status?.health?.failures ?? 0) >= 4);
    const left = (await processes(present(ill.status).containerId)).filter((args) => /sleep 90/.test(args));
    expect(left.length, "at most those of the probe that runs now").toBeLessThanOrEqual(2);
  });

  test("do not count failures in the start period, which the first success ends", async () => {
    const began = performance.now();
    await run("slow", "sleep 4; touch /tmp/up; exec sleep 1000", {
      probe: exec("test -e /tmp/up"),
      startPeriod: { seconds: 30n },
      retries: 1,
    });
    await host.until("slow", (sandbox) => messageOf(sandbox) === "exit code 1");
    await host.until("slow", isHealth(HealthState.HEALTHY));
    expect(performance.now() - began).toBeGreaterThan(3_500);
    expect(await changes("slow")).not.toContain("RUNNING UNHEALTHY");
  });

  test("with the policy STOP end in STOPPED", async () => {
    await run("stopping", sleeping, { probe: exec("exit 1"), onUnhealthy: UnhealthyPolicy.STOP });
    const stopped = await host.until("stopping", isIn(SandboxState.STOPPED));
    expect(whereIs(stopped).reason).toBe("UNHEALTHY");
    expect(stopped.status?.transition?.message).toBe("unhealthy: exit code 1");
    expect(stopped.status?.health).toBeUndefined();
  });

  test("with the policy RESTART start it again, as often as its restart policy allows, then fail it", async () => {
    const restart = { mode: RestartMode.NEVER, delay: second, maxAttempts: 2, resetAfter: second };
    await run(
      "restarting",
      "echo begun; exec sleep 1000",
      { probe: exec("exit 1"), retries: 1, onUnhealthy: UnhealthyPolicy.RESTART },
      { restart },
    );
    const waiting = await host.until("restarting", isIn(SandboxState.BACKING_OFF));
    expect(whereIs(waiting).reason).toBe("UNHEALTHY");
    expect(waiting.status?.restarts).toMatchObject({ count: 1n, attempts: 1 });
    const failed = await host.until("restarting", isIn(SandboxState.FAILED));
    expect(whereIs(failed).reason).toBe("UNHEALTHY");
    expect(failed.status?.transition?.message).toMatch(/not started again after 2 restarts/);
    expect(failed.status?.restarts?.count).toBe(2n);
    expect((await host.output("restarting")).split("\n").filter((line) => line === "begun")).toHaveLength(3);
    expect(failed.status?.exit?.oomKilled).toBe(false);
  });

  test("rest while the sandbox is paused, and go on afterwards with what they knew", async () => {
    await run("pausing", sleeping, { probe: exec("echo probe >> /tmp/probes; wc -l < /tmp/probes") });
    await host.until("pausing", isHealth(HealthState.HEALTHY));
    const { sandbox: paused } = await host.sandboxes.pauseSandbox({ sandboxId: "pausing" });
    const before = present(paused?.status?.health);
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    expect((await host.get("pausing")).status?.health).toEqual(before);
    const { sandbox: resumed } = await host.sandboxes.resumeSandbox({ sandboxId: "pausing" });
    expect(resumed?.status?.health?.state, "a pause is no start").toBe(HealthState.HEALTHY);
    await host.until("pausing", (sandbox) => messageOf(sandbox) !== before.message);
  });

  test("of a template are in force and shown in the spec; a request's own replaces all of it", async () => {
    const { resources, stopGrace } = specOf(sleeping, { cpuMillis: 500n });
    const create = async (sandboxId: string, spec: SpecInit): Promise<Sandbox> => {
      const request = { sandboxId, tenant, spec: { template: "checked", resources, stopGrace, ...spec } };
      return present((await host.sandboxes.createSandbox(request as object)).sandbox);
    };
    const [inherited, replaced] = await Promise.all([
      create("inherited", {}),
      create("replaced", { healthCheck: { probe: tcp(9000) } as Check }),
    ]);
    expect(inherited.spec?.healthCheck).toMatchObject({
      probe: { case: "exec", value: { command: ["test", "-e", "/tmp/up"] } },
      interval: { seconds: 1n },
      timeout: { seconds: 2n },
      startPeriod: { seconds: 0n },
      retries: 2,
      onUnhealthy: UnhealthyPolicy.STOP,
    });
    expect(replaced.spec?.healthCheck).toMatchObject({
      probe: { case: "tcp", value: { port: 9000 } },
      interval: { seconds: 30n },
      retries: 3,
      onUnhealthy: UnhealthyPolicy.REPORT,
    });

    expect(messageOf(await host.until("inherited", isHealth(HealthState.HEALTHY)))).toBe("exit code 0");
    const stopped = await host.until("inherited", isIn(SandboxState.STOPPED));
    expect(whereIs(stopped).reason).toBe("UNHEALTHY");
    await host.until("replaced", (sandbox) => messageOf(sandbox) === "nothing listens on port 9000");
    expect(whereIs(await host.get("replaced")).state, "its template would have stopped it").toBe("RUNNING");
    expect((await host.get("replaced")).spec).toEqual(replaced.spec);
  });

  test("that are under way when the daemon is stopped are ended", async () => {
    await run("stopped", sleeping, { probe: exec("sleep 903"), timeout: { seconds: 300n } });
    const isBegun = (found: readonly string[]) => found.some((args) => args.includes("sleep 903"));
    const { containerId } = present((await host.get("stopped")).status);
    await eventually("the probe", () => processes(containerId), isBegun);
    await host.daemon.stop();
    const left = await processes(containerId);
    await host.daemon.start();
    expect(isBegun(left)).toBe(false);
  });

  test("go on after a restart of the daemon", async () => {
    await run("kept", sleeping, { probe: exec("date +%s") });
    const { status } = await host.until("kept", isHealth(HealthState.HEALTHY));
    await host.daemon.restart();
    expect((await host.get("kept")).status?.health?.state).toBe(HealthState.HEALTHY);
    const told = present(status?.health?.message);
    await host.until("kept", (sandbox) => messageOf(sandbox) > told);
  });

  test("leave no process of the daemon's when their sandboxes are gone", async () => {
    for (const { sandboxId } of (await host.sandboxes.listSandboxes({})).sandboxes) {
      await host.sandboxes.deleteSandbox({ sandboxId });
    }
    const pid = present(host.daemon.pid());
    const below = (parent: number): readonly number[] => {
      const children = readFileSync(`/proc/${parent}/task/${parent}/children`, "latin1").trim();
      return children === "" ? [] : children.split(" ").map(Number);
    };
    // shells that wait for programs to begin, and run none
    const isWaiting = (child: number) =>
      readFileSync(`/proc/${child}/cmdline`, "latin1") === "sh\0" && below(child).length === 0;
    const left = () => below(pid).filter((child) => !isWaiting(child));
    await eventually("the end of its children", left, (found) => found.length === 0);
    expect(below(pid).length).toBeLessThanOrEqual(2);
  });

  describe("are refused before anything is made", () => {
    test.each<[string, Check, string]>([
      ["no probe", {} as Check, "spec.health_check.probe"],
      ["no command", { probe: { case: "exec", value: { command: [] } } }, "spec.health_check.exec.command"],
      ["a NUL", { probe: exec("a\0b") }, "spec.health_check.exec.command[2]"],
      ["too many words", { probe: exec("x".repeat(16_384)) }, "spec.health_check.exec.command"],
      ["port 0", { probe: tcp(0) }, "spec.health_check.tcp.port"],
      ["port 65536", { probe: http(65_536) }, "spec.health_check.http.port"],
      ["a path without a slash", { probe: http(80, "x") }, "spec.health_check.http.path"],
      ["a path with a line break", { probe: http(80, "/a\r\nHost: b") }, "spec.health_check.http.path"],
      ["a long path", { probe: http(80, `/${"a".repeat(1_024)}`) }, "spec.health_check.http.path"],
      ["a short interval", { probe: tcp(1), interval: { nanos: 999_999_999 } }, "spec.health_check.interval"],
      ["a short timeout", { probe: tcp(1), timeout: { nanos: 1 } }, "spec.health_check.timeout"],
      [
        "a negative start period",
        { probe: tcp(1), startPeriod: { seconds: -1n } },
        "spec.health_check.start_period",
      ],
      ["no retries", { probe: tcp(1), retries: 0 }, "spec.health_check.retries"],
      [
        "an unknown policy",
        { probe: tcp(1), onUnhealthy: 9 as UnhealthyPolicy },
        "spec.health_check.on_unhealthy",
      ],
    ])("%s", async (_, healthCheck, field) => {
      const spec = { ...specOf(sleeping), healthCheck };
      const before = (await host.containers()).length;
      const refused = await refusalOf(host.sandboxes.createSandbox({ sandboxId: "refused", tenant, spec }));
      expect(refused).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
      expect(refused.message).toContain(field);
      expect(await host.containers()).toHaveLength(before);
      expect((await refusalOf(host.get("refused"))).reason).toBe("SANDBOX_NOT_FOUND");
    });
  });
});
