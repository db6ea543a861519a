// sandboxctl on a terminal, the real program on a real one: keys, sizes, job control, leaving a process and taking it up again.

import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { engineObstacle } from "../harness/engine.ts";
import { ctl, program } from "../harness/sandboxctl.ts";
import { sleeping, startHost, type TestHost } from "../harness/sandboxes.ts";
import { onTerminal, terminalObstacle } from "../harness/terminal.ts";

const obstacle = engineObstacle ?? terminalObstacle;

describe.skipIf(obstacle !== undefined)(`sandboxctl on a terminal (${obstacle ?? "engine"})`, () => {
  let host: TestHost;
  let address: Record<string, string>;
  beforeAll(async () => {
    host = await startHost();
    address = { SANDBOXCTL_HOST: `unix://${host.daemon.socketPath}` };
    await host.run("box", sleeping, { cpuMillis: 1_000n, memoryBytes: 128n * 1024n * 1024n, pids: 64n });
  });
  afterAll(() => host?.daemon.cleanup());

  const start = (args: readonly string[], size = {}) => onTerminal([program, ...args], address, size);
  const run = (args: readonly string[]) => ctl(args, { env: address });

  test("a shell has a terminal of this one's size, which follows it, and Ctrl-C, and job control", async () => {
    const shell = start(["shell", "-e", "PS1=$ ", "box"], { rows: 31, columns: 101 });
    await shell.until(/\$ /);
    shell.type("stty size; tty; echo $TERM\r");
    await shell.until(/\r\n31 101\r\n\/dev\/pts\/\d+\r\nxterm-256color\r\n\$ /);
    shell.resize(40, 120);
    shell.type("sleep 0.3; stty size\r");
    await shell.until(/\r\n40 120\r\n\$ /);
    shell.type("sleep 1000\r");
    await shell.until(/sleep 1000\r\n/);
    // the shell has still to hand the terminal on
    await sleep(200);
    shell.type("\u0003");
    await shell.until(/\^C\r?\n?\$ /);
    shell.type("sleep 1000\r");
    await shell.until(/sleep 1000\r\n/);
    await sleep(200);
    shell.type("\u001a");
    await shell.until(/Stopped/);
    shell.type("fg\r");
    await shell.until(/fg\r\nsleep 1000\r\n/);
    await sleep(200);
    shell.type("\u0003");
    await shell.until(/\$ /);
    shell.type("printf '\\303'; sleep 0.1; printf '\\251\\n'; exit 7\r");
    await shell.until(/é\r\n/);
    expect(await shell.ended).toEqual({ code: 7, restored: true });
  });

  test("bytes of a program that fills the screen come through as they are", async () => {
    const exec = start(["exec", "-it", "box", "sh", "-c", "stty raw; printf 'a\\nb\\r\\nc\\033[2Jd'"]);
    const { code } = await exec.ended;
    expect(code).toBe(0);
    expect(exec.output()).toContain("a\nb\r\nc\u001b[2Jd");
  });

  test("a process is left by the detach keys, and taken up with its screen and the size of the new terminal", async () => {
    const script =
      "printf 'one\\n\\033[1mtwo\\033[0m\\n\\033[6n'; while read line; do echo said $line; stty size; done; exit 4";
    const first = start(["exec", "-it", "--id=left", "box", "sh", "-c", script]);
    await first.until(/two/);
    first.type("x\r");
    await first.until(/said x\r\n24 80\r\n/);
    first.type("\u0010\u0011");
    expect(await first.ended).toEqual({ code: 0, restored: true });
    expect(first.output()).toContain("left running as left");
    expect((await run(["processes", "box"])).stdout).toMatch(/^left +\d+ .* running /m);
    const second = start(["attach", "box", "left"], { rows: 20, columns: 60 });
    await second.until(/two.*said x\r+\n24 80/s);
    expect(second.output(), "it is not asked a second time where its cursor is").not.toContain("\u001b[6n");
    // it got another size for a moment, by which programs are told to paint again
    await sleep(300);
    second.type("y\r");
    await second.until(/said y\r\n20 60\r\n/);
    second.type("\u0004");
    expect(await second.ended).toEqual({ code: 4, restored: true });
  });

  test("the detach keys can be others, and what only begins like them is sent", async () => {
    const exec = start(["exec", "-it", "--detach-keys=a,b", "box", "cat"]);
    exec.type("ac\r");
    await exec.until(/ac\r\nac\r\n/);
    exec.type("ab");
    expect(await exec.ended).toEqual({ code: 0, restored: true });
  });

  test("the terminal is put back when the program is ended, and when the sandbox is", async () => {
    const exec = start(["exec", "-it", "box", "sh", "-c", "echo up; exec cat"]);
    await exec.until(/up\r\n/);
    exec.kill(15);
    expect(await exec.ended).toEqual({ code: 143, restored: true });
    await host.run("short", sleeping);
    const other = start(["exec", "-it", "short", "sh", "-c", "echo up; exec cat"]);
    await other.until(/up\r\n/);
    await host.sandboxes.deleteSandbox({ sandboxId: "short" });
    expect(await other.ended).toEqual({ code: 137, restored: true });
  });

  test("without a terminal, one is not asked for", async () => {
    const result = await run(["exec", "-it", "box", "true"]);
    expect(result).toMatchObject({
      code: 1,
      stderr: "sandboxctl: standard input is no terminal: leave out --tty\n",
    });
    expect((await run(["exec", "-t", "box", "tty"])).stdout).toMatch(/^\/dev\/pts\/\d+\r\n$/);
  });
});
