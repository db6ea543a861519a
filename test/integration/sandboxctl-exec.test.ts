// sandboxctl exec and what belongs to it, the real program: streams, exit codes, signals, and a broken connection.

import { createHash, randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { engineObstacle } from "../harness/engine.ts";
import { type CtlOptions, ctl, startCtl } from "../harness/sandboxctl.ts";
import { eventually, sleeping, startHost, type TestHost } from "../harness/sandboxes.ts";

const patience = { timeout: 10_000, interval: 20 };

describe.skipIf(engineObstacle !== undefined)(`sandboxctl exec (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  let address: Record<string, string>;
  beforeAll(async () => {
    host = await startHost();
    address = { SANDBOXCTL_HOST: `unix://${host.daemon.socketPath}` };
    await host.run("box", sleeping, { cpuMillis: 1_000n, memoryBytes: 128n * 1024n * 1024n, pids: 64n });
  });
  afterAll(() => host?.daemon.cleanup());

  const run = (args: readonly string[], options: CtlOptions = {}) =>
    ctl(args, { ...options, env: { ...address, ...options.env } });
  const sha = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

  test("both streams, the environment, the place and the exit code are the command's", async () => {
    const script = 'echo "$A $B" ; pwd; echo err >&2; exit 42';
    const result = await run(["exec", "-e", "A=1", "-eB=2", "-w/tmp", "box", "sh", "-c", script]);
    expect(result).toMatchObject({ code: 42, stdout: "1 2\n/tmp\n", stderr: "err\n" });
  });

  test("what cannot be started is code 127, or 126, with one line; a sandbox that is not there is 125", async () => {
    const missing = await run(["exec", "box", "no-such-command"]);
    expect(missing.code).toBe(127);
    expect(missing.stderr).toMatch(/^sandboxctl: .*no-such-command.* \(COMMAND_UNUSABLE\)\n/);
    expect((await run(["exec", "box", "/etc/passwd"])).code).toBe(126);
    const nowhere = await run(["exec", "nowhere", "true"]);
    expect(nowhere.code).toBe(125);
    expect(nowhere.stderr).toContain("(SANDBOX_NOT_FOUND)");
  });

  test("input goes in and comes out byte for byte, with its end", async () => {
    const input = randomBytes(2 * 1024 * 1024 + 7);
    const result = await run(["exec", "-i", "box", "cat"], { input });
    expect(result.code, result.stderr).toBe(0);
    expect(sha(result.bytes)).toBe(sha(input));
    expect((await run(["exec", "box", "cat"], { input: "not asked for" })).stdout).toBe("");
  });

  test("a slow reader loses nothing, and a reader that goes away ends the command", async () => {
    const slow = startCtl(["exec", "box", "sh", "-c", "head -c 20000000 /dev/zero"], address);
    slow.pause();
    await sleep(1_000);
    slow.resume();
    const { bytes, code, stderr } = await slow.ended;
    expect([bytes.length, code, stderr]).toEqual([20_000_000, 0, ""]);
    const cut = startCtl(["exec", "--id=endless", "box", "yes"], address);
    await expect.poll(cut.stdout, patience).toContain("y\n");
    cut.closeOutput();
    expect((await cut.ended).code).toBe(141);
    const state = async () => (await run(["processes", "box"])).stdout.match(/^endless .*$/m)?.[0];
    await eventually("the end of yes", state, (line) => line?.includes("exited 141") === true);
  });

  test("signals are passed on, and tell in the exit code", async () => {
    const trap = "trap 'echo got INT; exit 5' INT; echo up; while :; do sleep 0.05; done";
    const trapping = startCtl(["exec", "box", "sh", "-c", trap], address);
    await expect.poll(trapping.stdout, patience).toBe("up\n");
    trapping.kill("SIGINT");
    expect(await trapping.ended).toMatchObject({ code: 5, stdout: "up\ngot INT\n" });
    const plain = startCtl(["exec", "box", "sh", "-c", "echo up; exec sleep 1000"], address);
    await expect.poll(plain.stdout, patience).toBe("up\n");
    plain.kill("SIGTERM");
    expect((await plain.ended).code).toBe(143);
    expect((await run(["exec", "--timeout=200ms", "box", "sleep", "1000"])).code).toBe(143);
  });

  test("what is started detached is listed, seen by top, attached to, and killed", async () => {
    const script = "echo first; read line; echo got $line; exec sleep 1000";
    const detached = await run(["exec", "-d", "-i", "--id=apart", "box", "sh", "-c", script]);
    expect(detached).toMatchObject({ code: 0, stdout: "apart\n", stderr: "" });
    expect((await run(["processes", "-q", "box"])).stdout.split("\n")).toContain("apart");
    expect((await run(["top", "box"])).stdout).toMatch(
      /^\d+ +\d+ +\d+:\d\d\.\d\d +\S+ +apart +sh -c echo first/m,
    );
    const attached = startCtl(["attach", "box", "apart"], address);
    await expect.poll(attached.stdout, patience).toBe("first\n");
    attached.stdin.write("hello\n");
    await expect.poll(attached.stdout, patience).toBe("first\ngot hello\n");
    expect((await run(["kill", "-s", "HUP", "box", "apart"])).code).toBe(0);
    expect((await attached.ended).code).toBe(129);
    expect((await run(["kill", "box", "apart"])).stderr).toContain("(INVALID_STATE)");
  });

  test("no byte is lost or sent twice when the daemon is killed in the middle", async () => {
    const script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.3; done; cat; exit 3";
    const running = startCtl(["exec", "-i", "box", "sh", "-c", script], address);
    await expect.poll(running.stdout, patience).toContain("2\n");
    await host.daemon.kill("SIGKILL");
    running.stdin.write("input\n");
    await host.daemon.start();
    await expect.poll(running.stdout, { timeout: 15_000 }).toContain("input\n");
    running.stdin.end("more\n");
    const { code, stdout, stderr } = await running.ended;
    expect(stdout).toBe(`${[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].join("\n")}\ninput\nmore\n`);
    expect(code).toBe(3);
    expect(stderr).toMatch(/^sandboxctl: the connection broke; trying again\nsandboxctl: connected again\n/);
  });
});
