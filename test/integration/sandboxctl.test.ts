// sandboxctl, the real program: what it prints and how it ends, for everything that is not about the inside of a sandbox.

import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { type CtlOptions, ctl, startCtl } from "../harness/sandboxctl.ts";
import { isIn, sleeping, startHost, type TestHost } from "../harness/sandboxes.ts";
import { type Authority, createAuthority } from "../unit/api/certificates.ts";

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

describe.skipIf(engineObstacle !== undefined)(`sandboxctl (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  let address: Record<string, string>;
  let directory: string;
  let callers: Authority;
  let hosts: Authority;
  let tlsAddress: string;
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "sandboxctl-"));
    [callers, hosts] = await Promise.all([
      createAuthority(directory, "callers"),
      createAuthority(directory, "hosts"),
    ]);
    const own = await hosts.issue("host", {
      subject: "/CN=host",
      names: "IP:127.0.0.1",
      usage: "serverAuth",
    });
    tlsAddress = `127.0.0.1:${await freePort()}`;
    const tls = {
      address: tlsAddress,
      certificate: own.certFile,
      key: own.keyFile,
      client_ca: callers.certFile,
    };
    host = await startHost({ config: { listen: { tls } } });
    address = { SANDBOXCTL_HOST: `unix://${host.daemon.socketPath}` };
    await host.run("kept", `echo out; echo err >&2; ${sleeping}`);
  });
  afterAll(async () => {
    rmSync(directory, { recursive: true, force: true });
    await host?.daemon.cleanup();
  });

  const run = (args: readonly string[], options: CtlOptions = {}) =>
    ctl(args, { ...options, env: { ...address, ...options.env } });

  test("ps lists sandboxes that live, and all with -a, as a table, as JSON lines, or as ids", async () => {
    await host.run("gone", "exit 3");
    await host.until("gone", isIn(SandboxState.FAILED));
    const asked = [["ps"], ["ps", "-aq"], ["ps", "--all", "-o=json"], ["ps", "-q", "--tenant", "nobody"]];
    const [table, ids, json, none] = await Promise.all(asked.map(async (args) => (await run(args)).stdout));
    expect(table?.split("\n")[0]).toMatch(/^SANDBOX +TENANT +IMAGE +COMMAND +CREATED +STATUS$/);
    expect(table).toMatch(/^kept +acme +sandboxd-base:latest +"sh -c .*" +\d+s ago +running \d+s$/m);
    expect(table).not.toContain("gone");
    expect(ids).toBe("gone\nkept\n");
    const [first, second] = json?.split("\n").map((line) => line && JSON.parse(line)) ?? [];
    expect(first).toMatchObject({
      sandboxId: "gone",
      status: { state: "SANDBOX_STATE_FAILED", exit: { code: 3 } },
    });
    expect(second).toMatchObject({ sandboxId: "kept" });
    expect(none).toBe("");
  });

  test("a sandbox is created, paused, resumed, stopped, started, inspected and removed by name", async () => {
    const spec = [
      "--tenant=acme",
      "--image",
      "sandboxd-base:latest",
      "-m",
      "32m",
      "--cpus",
      "0.1",
      "--pids=32",
    ];
    const created = await run(
      ["create", "--id", "made", ...spec, "-l", "a=b", "-e", "X=1", "-e", "HOME", "sleep", "1000"],
      {
        env: { HOME: "/nowhere" },
      },
    );
    expect(created).toMatchObject({ code: 0, stdout: "made\n", stderr: "" });
    const [inspected] = JSON.parse((await run(["inspect", "made"])).stdout);
    expect(inspected).toMatchObject({
      sandboxId: "made",
      spec: {
        command: ["sleep", "1000"],
        env: { X: "1", HOME: "/nowhere" },
        labels: { a: "b" },
        resources: { memoryBytes: "33554432", cpuMillis: "100", pids: "32" },
      },
    });
    expect((await run(["ps", "-q", "-l", "a=b"])).stdout).toBe("made\n");
    expect(await run(["pause", "made"])).toMatchObject({ code: 0, stdout: "made\n" });
    expect((await run(["resume", "made"])).code).toBe(0);
    expect(await run(["rm", "made"])).toMatchObject({
      code: 1,
      stdout: "",
      stderr: "sandboxctl: sandbox made has not ended: stop it first, or use rm --force\n",
    });
    expect((await run(["stop", "-t", "0", "made"])).stdout).toBe("made\n");
    expect((await run(["start", "made"])).stdout).toBe("made\n");
    expect(await run(["rm", "-f", "made"])).toMatchObject({ code: 0, stdout: "made\n" });
  });

  test("of several, one that fails is told and does not keep the others", async () => {
    const result = await run(["inspect", "never-was", "kept"]);
    expect(result.code).toBe(1);
    expect(result.stderr).toContain("(SANDBOX_NOT_FOUND)");
    expect(JSON.parse(result.stdout)).toMatchObject([{ sandboxId: "kept" }]);
  });

  test("run shows output, and ends with the exit code of the command", async () => {
    const spec = ["--tenant=acme", "--image=sandboxd-base:latest", "-m=32m"];
    const script = "echo one; echo two >&2; printf three; exit 7";
    const result = await run(["run", "--rm", "--id=ran", ...spec, "--", "sh", "-c", script]);
    expect(result).toMatchObject({ code: 7, stdout: "one\nthree", stderr: "two\n" });
    expect((await run(["inspect", "ran"])).code, "it was removed").toBe(1);
    expect(await run(["run", "--rm", "--id=cannot", ...spec, "--", "/nowhere"])).toMatchObject({
      code: 127,
      stdout: "",
    });
  });

  test("run stops its sandbox at a SIGTERM", async () => {
    const script = "trap 'echo stopping; exit 9' TERM; echo up; while :; do sleep 0.05; done";
    const spec = ["--tenant=acme", "--image=sandboxd-base:latest", "-m=32m"];
    const running = startCtl(["run", "--rm", ...spec, "sh", "-c", script], address);
    await expect.poll(running.stdout, { timeout: 10_000 }).toBe("up\n");
    running.kill("SIGTERM");
    expect(await running.ended).toMatchObject({ code: 9, stdout: "up\nstopping\n" });
  });

  test("logs go to where they were written to, with times that --since finds again", async () => {
    const asked = [["kept"], ["--tail=0", "kept"], ["-t", "kept"], ["--since=10m", "kept"]];
    const [all, none, timed, recent] = await Promise.all(asked.map((args) => run(["logs", ...args])));
    expect(all).toMatchObject({ code: 0, stdout: "out\n", stderr: "err\n" });
    expect(none).toMatchObject({ code: 0, stdout: "", stderr: "" });
    expect(timed?.stdout).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z out\n$/);
    expect(timed?.stderr).toMatch(/Z err\n$/);
    expect(recent?.stdout).toBe("out\n");
  });

  test("events are told from a number on, and as they happen", async () => {
    const listed = await run(["events", "--since=0", "--no-follow", "--sandbox=kept"]);
    expect(listed.stdout).toMatch(/^\S+Z \d+ sandbox_created sandbox=kept tenant=acme$/m);
    expect(listed.stdout).toContain("state=RUNNING");
    const following = startCtl(["events", "--since=0", "-o=json", "--sandbox=seen"], address);
    await host.run("seen", sleeping);
    const types = () =>
      following
        .stdout()
        .split("\n")
        .filter((line) => line.endsWith("}"))
        .map((line) => JSON.parse(line).type);
    await expect.poll(types, { timeout: 10_000 }).toContain("EVENT_TYPE_SANDBOX_STATE_CHANGED");
    following.kill("SIGINT");
    expect((await following.ended).signal ?? (await following.ended).code).toBe("SIGINT");
  });

  test("stats, explain, host, host check, tenants and workspaces tell of what there is", async () => {
    const told = async (...args: readonly string[]) => (await run(args)).stdout;
    const [stats, explained, summary, checks, tenants, acme, workspaces, versions] = await Promise.all([
      told("stats", "--no-stream", "kept"),
      told("explain", "kept"),
      told("host"),
      told("host", "check"),
      told("tenants"),
      told("tenants", "get", "acme"),
      told("workspaces"),
      told("version"),
    ]);
    expect(stats).toMatch(/^kept +\d+\.\d\d +[\d.]+\w+ \/ 32MiB +[\d.]+% +- +\S+ \/ \S+ +\d+ \/ 32$/m);
    expect(explained).toMatch(/\S/);
    expect(summary).toMatch(new RegExp(`^Host: +${host.daemon.hostId}$`, "m"));
    expect(summary).toMatch(/^Accepting: +yes$/m);
    expect(checks).toMatch(/^CHECK +VERDICT +MESSAGE\n/);
    expect(tenants).toMatch(/^acme +\d+ +\d+/m);
    expect(JSON.parse(acme)).toMatchObject([{ tenant: "acme" }]);
    expect(workspaces).toMatch(/^WORKSPACE .*\n$/);
    expect(versions).toMatch(/^sandboxctl \S+\nsandboxd +\S+ on /);
  });

  test("a host is cordoned and opened again", async () => {
    expect(await run(["host", "cordon", "--reason=repair"])).toMatchObject({ code: 0, stdout: "cordoned\n" });
    expect((await run(["host"])).stdout).toMatch(/^Accepting: +no, cordoned: repair$/m);
    expect((await run(["create", "--tenant=acme", "--image=sandboxd-base:latest"])).stderr).toContain(
      "(HOST_CORDONED)",
    );
    expect((await run(["host", "uncordon"])).stdout).toBe("uncordoned\n");
  });

  test("a refusal says what of the request was wrong", async () => {
    const result = await run(["create", "--tenant=acme", "--image=sandboxd-base:latest", "-m", "1k"]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/^sandboxctl: .*\bspec\.resources\.memory_bytes: .* \(INVALID_FIELD\)\n/);
  });

  test("a daemon that is not there is one line and a hint, and code 1, or 125 of commands that run others", async () => {
    const elsewhere = ["-H", "unix:///nowhere/sandboxd.sock"];
    const result = await ctl([...elsewhere, "ps"]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(
      /^sandboxctl: no answer from unix:\/\/\/nowhere\/sandboxd.sock: .*ENOENT.*\nhint: /,
    );
    expect((await ctl([...elsewhere, "exec", "kept", "true"])).code).toBe(125);
  });

  test("a daemon elsewhere is called over TLS, as who the certificate says", async () => {
    const viewer = await callers.issue("viewer", { subject: "/CN=v", names: "URI:sandboxd://role/viewer" });
    const given = {
      SANDBOXCTL_HOST: `https://${tlsAddress}`,
      SANDBOXCTL_CERT: viewer.certFile,
      SANDBOXCTL_KEY: viewer.keyFile,
    };
    const [seen, refused, untrusted] = await Promise.all([
      ctl(["--ca", hosts.certFile, "ps", "-q"], { env: given }),
      ctl(["--ca", hosts.certFile, "stop", "kept"], { env: given }),
      ctl(["ps"], { env: given }),
    ]);
    expect(seen.stdout).toMatch(/^kept$/m);
    expect(refused.stderr).toContain("(ROLE_NOT_ALLOWED)");
    expect(untrusted).toMatchObject({ code: 1, stdout: "" });
    expect(untrusted.stderr).toMatch(/^sandboxctl: .*certificate/);
  });

  test("wrong usage is code 2, and help is code 0", async () => {
    const wrong = [["nonsense"], ["ps", "--nonsense"], ["inspect"], ["-H", "tcp://x", "ps"]];
    for (const result of await Promise.all(wrong.map((args) => run(args))))
      expect(result).toMatchObject({ code: 2, stdout: "" });
    const [all, one] = await Promise.all([run(["help"]), run(["ps", "--help"])]);
    expect(all.stdout).toContain("Usage: sandboxctl");
    expect(one).toMatchObject({ code: 0, stderr: "" });
    expect(one.stdout).toContain("Usage: sandboxctl ps");
  });
});
