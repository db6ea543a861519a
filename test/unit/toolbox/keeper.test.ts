// What a keeper promises of a process: its output, its input, its end, and that it outlives whoever asked for it.

import { once } from "node:events";
import { existsSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { frame, request, writer } from "../../../src/toolbox/protocol.ts";
import {
  type Attached,
  becomes,
  type Event,
  type Exit,
  lives,
  type Output,
  Refused,
  startToolbox,
  type TestToolbox,
} from "./keeper-fixture.ts";

const [ENOENT, EAGAIN, EACCES, EEXIST, ENOTDIR, EINVAL, ENOEXEC, ENOTTY, EPROTO, ESRCH] = [
  2, 11, 13, 17, 20, 22, 8, 25, 71, 3,
];
const [SIGINT, SIGKILL, SIGTERM, SIGCONT, SIGSTOP] = [2, 9, 15, 18, 19];

let toolbox: TestToolbox;
beforeAll(async () => {
  toolbox = await startToolbox();
}, 120_000);
afterAll(() => toolbox.close());

const sh = (script: string) => ["sh", "-c", script];
const terminal = { rows: 24, columns: 80 };
const isExit = (event: Event): event is Exit => event.is === "exit";
const isOutput = (event: Event): event is Output => event.is === "output";
const isTaken = (event: Event) => event.is === "taken";
const outputOf = async (script: string, options = {}) =>
  (await (await toolbox.start(sh(script), options)).finish()).stdout.toString();
const nothingIsLeft = () => becomes("only the server is left", () => toolbox.processes().length === 1);

/** The start's refusal. */
async function refusal(argv: readonly string[], options = {}): Promise<{ errno: number; operation: string }> {
  const error = await toolbox.start(argv, options).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof Refused)) throw new Error(`not refused: ${String(error)}`);
  return { errno: error.errno, operation: error.operation };
}

describe("its end", () => {
  test("is told with the exit code", async () => {
    const { exit, bytes } = await (await toolbox.start(sh("exit 7"))).finish();
    expect(exit).toMatchObject({ how: "exited", status: 7, cause: "self", sequence: 2 });
    expect(bytes).toBe(0);
  });

  test("is told with the signal, and that it was not asked for", async () => {
    const { exit } = await (await toolbox.start(sh("kill -SEGV $$"))).finish();
    expect(exit).toMatchObject({ how: "signaled", status: 11, cause: "self" });
  });

  test("is told with what it used", async () => {
    const before = Date.now();
    const { exit } = await (
      await toolbox.start(sh("sleep 0.2; x=$(head -c 20000000 /dev/zero | tr '\\0' x)"))
    ).finish();
    expect(exit.durationUs).toBeGreaterThan(200_000);
    expect(exit.durationUs).toBeLessThan(20_000_000);
    expect(exit.userUs + exit.systemUs).toBeGreaterThan(5_000);
    expect(exit.maxResidentBytes).toBeGreaterThan(20_000_000);
    expect(Number(exit.endedNs / 1_000_000n)).toBeGreaterThanOrEqual(before + 200);
    expect(Number(exit.endedNs / 1_000_000n)).toBeLessThanOrEqual(Date.now());
  });

  test("is kept until it was taken, and then nothing is left of it", async () => {
    const held = await toolbox.start(sh("echo over; exit 3"), { id: "kept" });
    held.close();
    await becomes("it has ended", () => !lives(held.status.pid));
    for (let times = 0; times < 2; times += 1) {
      const again = await toolbox.attach("kept", 0);
      const exit = await again.until(isExit);
      expect(exit.status).toBe(3);
      again.close();
    }
    expect(await toolbox.list()).toEqual(["kept"]);
    const last = await toolbox.attach("kept", 1);
    expect(last.status.pid).toBe(0);
    // what was acknowledged is not told again; the exit is
    expect((await last.finish()).exit.status).toBe(3);
    await becomes("the keeper has gone", async () => (await toolbox.list()).length === 0);
    await nothingIsLeft();
  });

  test("is not held up by descendants that hold its output, and they are not by nobody who reads it", async () => {
    const done = path.join(toolbox.directory, "wrote");
    const held = await toolbox.start(
      sh(`(sleep 0.1; head -c 1000000 /dev/zero; touch ${done}; sleep 0.2) & echo mine`),
    );
    const { stdout, exit } = await held.finish();
    expect(stdout.toString()).toBe("mine\n");
    expect(exit.durationUs).toBeLessThan(5_000_000);
    expect(await toolbox.list()).toEqual([]);
    await becomes("the descendant wrote all", () => existsSync(done));
    await nothingIsLeft();
  });

  test("comes though a descendant never stops writing", async () => {
    const held = await toolbox.start(sh("yes & echo $!; exit 0"));
    const { exit, stdout } = await held.finish();
    expect(exit.status).toBe(0);
    process.kill(Number(/\d+/.exec(stdout.toString())?.[0]), "SIGKILL");
    await nothingIsLeft();
  });

  test("that is forgotten before it came is not of the protocol", async () => {
    const held = await toolbox.start(["sleep", "60"]);
    await held.forget();
    expect(await held.next()).toMatchObject({ is: "error", errno: EPROTO });
    expect(await held.next()).toBeUndefined();
    const again = await toolbox.attach(held.id, 0);
    await again.signal(SIGKILL, "process");
    expect((await again.finish()).exit.cause).toBe("signal");
  });
});

describe("output", () => {
  test("is told by stream, numbered without holes, with offsets over both", async () => {
    const held = await toolbox.start(sh("echo one; sleep 0.05; echo two >&2; sleep 0.05; echo three"));
    const seen: Output[] = [];
    const exit = await held.until((event): event is Exit => {
      if (event.is === "output") seen.push(event);
      return event.is === "exit";
    });
    expect(
      seen.map(({ stream, offset, sequence, bytes }) => [stream, offset, sequence, bytes.toString()]),
    ).toEqual([
      ["stdout", 0, 2, "one\n"],
      ["stderr", 4, 3, "two\n"],
      ["stdout", 8, 4, "three\n"],
    ]);
    expect(exit.sequence).toBe(5);
    await held.forget();
  });

  test("is told byte for byte, whatever it is made of", async () => {
    const octal = Array.from({ length: 256 }, (_, byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
    const held = await toolbox.start(["sh", "-c", `printf '${octal}'; head -c 65536 /dev/zero | tr '\\0' x`]);
    const { stdout } = await held.finish();
    expect(stdout.subarray(0, 256)).toEqual(Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)));
    expect(stdout.subarray(256).equals(Buffer.alloc(65_536, "x"))).toBe(true);
  });

  test("is counted exactly in a flood, and complete", async () => {
    const held = await toolbox.start(sh("yes | head -c 200M"));
    let offset = 0;
    let sequence = 1;
    const exit = await held.until((event): event is Exit => {
      if (event.is === "output") {
        if (event.offset !== offset || event.sequence !== sequence + 1)
          throw new Error(`a hole at ${offset}`);
        offset += event.bytes.length;
        sequence = event.sequence;
        // each frame is as the program wrote it
        const phase = event.offset % 2 === 0 ? "y\n" : "\ny";
        if (event.bytes.subarray(0, 2).toString() !== phase.slice(0, event.bytes.length))
          throw new Error("not as written");
      }
      return event.is === "exit";
    });
    expect(offset).toBe(200 * 1024 * 1024);
    expect(exit).toMatchObject({ status: 0, sequence: sequence + 1 });
    await held.forget();
  });

  test("holds the program back while it is not acknowledged, and loses nothing", async () => {
    const held = await toolbox.start(sh("head -c 3000000 /dev/zero; echo done >&2"), { retainBytes: 65_536 });
    await sleep(300);
    expect(lives(held.status.pid)).toBe(true);
    const { bytes, stderr } = await held.finish();
    expect(bytes).toBe(3_000_005);
    expect(stderr.toString()).toBe("done\n");
  });

  test("is dropped from the oldest on once the wait is over, and the gap is told exactly by the offsets", async () => {
    const held = await toolbox.start(sh("head -c 3000000 /dev/zero; exit 4"), {
      retainBytes: 65_536,
      waitMs: 100,
    });
    await becomes("the program has ended though nobody read", () => !lives(held.status.pid));
    let offset = 0;
    let gap = 0;
    let bytes = 0;
    let sequence = 1;
    const exit = await held.until((event): event is Exit => {
      if (event.is === "output") {
        // sequence and offset jump together
        expect(event.offset > offset).toBe(event.sequence > sequence + 1);
        gap += event.offset - offset;
        offset = event.offset + event.bytes.length;
        bytes += event.bytes.length;
        sequence = event.sequence;
      }
      return event.is === "exit";
    });
    expect(exit.status).toBe(4);
    expect(gap).toBeGreaterThan(1_000_000);
    expect(bytes + gap).toBe(3_000_000);
    await held.forget();
  });

  test("goes on for who comes back, from where that one was", async () => {
    const go = path.join(toolbox.directory, "go");
    const held = await toolbox.start(
      sh(`echo first; while [ ! -e ${go} ]; do sleep 0.01; done; echo second; exit 5`),
    );
    const first = await held.until(isOutput);
    held.close();
    writeFileSync(go, "");
    await becomes("it has ended", () => !lives(held.status.pid));
    const again = await toolbox.attach(held.id, first.sequence);
    expect(again.status).toMatchObject({ pid: 0, outputBytes: 13, oldestSequence: first.sequence + 1 });
    const { stdout, exit } = await again.finish();
    expect(stdout.toString()).toBe("second\n");
    expect(exit.status).toBe(5);
  });

  test("without anybody is dropped but for the tail, and never holds the program back", async () => {
    const held = await toolbox.start(sh("seq 1 400000; echo end"), {
      retainBytes: 65_536,
      waitMs: 3_600_000,
    });
    held.close();
    await becomes("it has ended", () => !lives(held.status.pid));
    const again = await toolbox.attach(held.id, 0);
    const first = await again.until(isOutput);
    expect(first.sequence).toBe(again.status.oldestSequence);
    const { stdout } = await again.finish();
    const tail = Buffer.concat([first.bytes, stdout]);
    expect(first.offset + tail.length).toBe(again.status.outputBytes);
    expect(tail.length).toBeGreaterThan(65_536 / 2);
    expect(tail.length).toBeLessThanOrEqual(65_536);
    expect(tail.toString().endsWith("399999\n400000\nend\n")).toBe(true);
  });

  test("written byte by byte while nobody reads becomes few frames", async () => {
    const held = await toolbox.start(sh("i=0; while [ $i -lt 2000 ]; do printf x; i=$((i+1)); done"));
    held.close();
    await becomes("it has ended", () => !lives(held.status.pid));
    const again = await toolbox.attach(held.id, 0);
    expect(again.status.outputBytes).toBe(2000);
    expect((await again.finish()).bytes).toBe(2000);
    expect(again.status.lastSequence).toBeLessThan(1000);
  });

  test("goes to the newest who asks, and the one before is let go", async () => {
    const held = await toolbox.start(sh("read x; echo $x"), { input: true });
    const newer = await toolbox.attach(held.id, 1);
    expect(await held.next()).toBeUndefined();
    await newer.input(0, "hello\n");
    expect((await newer.finish()).stdout.toString()).toBe("hello\n");
  });
});

describe("input", () => {
  test("is at its end unless it was asked for", async () => {
    expect(await outputOf("cat; readlink /proc/self/fd/0")).toBe("/dev/null\n");
  });

  test("is taken in order, once, however often it is sent", async () => {
    const held = await toolbox.start(["cat"], { input: true });
    await held.input(0, "abc");
    await held.input(0, "abcdef");
    await held.input(3, "def");
    await held.input(2, "cdefgh");
    await held.closeInput(8);
    const taken: number[] = [];
    let text = "";
    await held.until((event): event is Exit => {
      if (event.is === "taken") taken.push(event.inputOffset);
      if (event.is === "output") text += event.bytes.toString();
      return event.is === "exit";
    });
    expect(text).toBe("abcdefgh");
    expect(taken.at(-1)).toBe(8);
    expect(taken).toEqual(taken.toSorted((a, b) => a - b));
    await held.forget();
  });

  test("with a hole is not of the protocol, and the process goes on", async () => {
    const held = await toolbox.start(["cat"], { input: true });
    await held.input(1, "x");
    expect(await held.next()).toMatchObject({ is: "error", errno: EPROTO });
    const again = await toolbox.attach(held.id, 0);
    expect(again.status).toMatchObject({ inputOffset: 0, inputOpen: true });
    await again.closeInput(0);
    expect((await again.finish()).exit.status).toBe(0);
  });

  test("is accepted only so far while the program does not read, and then to its end", async () => {
    const go = path.join(toolbox.directory, "read");
    const held = await toolbox.start(sh(`while [ ! -e ${go} ]; do sleep 0.01; done; wc -c`), { input: true });
    const part = Buffer.alloc(65_536);
    for (let offset = 0; offset < 262_144; offset += part.length) await held.input(offset, part);
    const taken = (await held.until(isTaken)) as Event & { inputOffset: number };
    expect(taken.inputOffset).toBeLessThan(262_144);
    writeFileSync(go, "");
    await held.until((event): event is Event => event.is === "taken" && event.inputOffset === 262_144);
    await held.closeInput(262_144);
    expect((await held.finish()).stdout.toString().trim()).toBe("262144");
  });

  test("beyond what may be sent is refused", async () => {
    const held = await toolbox.start(["sleep", "60"], { input: true });
    for (let offset = 0; offset < 524_288; offset += 65_536) await held.input(offset, Buffer.alloc(65_536));
    // the last word may be lost to who is still sending
    for (let event = await held.next(); event !== undefined; event = await held.next()) {
      if (event.is === "error") expect(event.errno).toBe(EPROTO);
    }
    const again = await toolbox.attach(held.id, 0);
    await again.end(0);
    await again.finish();
  });

  test("that was not taken is forgotten with who sent it, so that it can be sent again", async () => {
    const held = await toolbox.start(sh("sleep 0.3; wc -c"), { input: true });
    for (let offset = 0; offset < 262_144; offset += 65_536) await held.input(offset, Buffer.alloc(65_536));
    await held.until(isTaken);
    const again = await toolbox.attach(held.id, 0);
    const { inputOffset } = again.status;
    expect(inputOffset).toBeLessThan(262_144);
    await again.input(inputOffset, "12345");
    await again.closeInput(inputOffset + 5);
    expect((await again.finish()).stdout.toString().trim()).toBe(`${inputOffset + 5}`);
  });

  test("of a program that closed its side is told closed, and no harm is done", async () => {
    const held = await toolbox.start(sh("exec <&-; echo closed; sleep 0.2; exit 6"), { input: true });
    const taken = await held.until((event): event is Event => event.is === "taken" && !event.inputOpen);
    expect(taken).toMatchObject({ inputOffset: 0 });
    await held.input(0, "x");
    expect(await held.until(isTaken)).toMatchObject({ inputOffset: 0, inputOpen: false });
    expect((await held.finish()).exit.status).toBe(6);
  });
});

describe("a terminal", () => {
  const shell = (options = {}) =>
    toolbox.start(["bash", "--norc", "--noprofile", "--noediting", "-i"], {
      terminal,
      env: ["PS1=> "],
      ...options,
    });

  test("echoes, has a name, a type and the size asked for", async () => {
    const held = await shell();
    await held.shows("> ");
    await held.input(0, "tty; echo $TERM; stty size\n");
    const seen = await held.shows("24 80");
    expect(seen).toMatch(/tty; echo \$TERM; stty size\r\n\/dev\/pts\/\d+\r\nxterm-256color\r\n24 80/);
    await held.input(27, "exit 9\n");
    const { exit } = await held.finish();
    expect(exit.status).toBe(9);
  });

  test("has the type that was asked for", async () => {
    const held = await toolbox.start(sh("echo $TERM"), { terminal, env: ["TERM=vt100"] });
    expect((await held.finish()).terminal.toString()).toBe("vt100\r\n");
  });

  test("gives back all that was written before the end", async () => {
    const held = await toolbox.start(["seq", "1", "20000"], { terminal });
    const lines = (await held.finish()).terminal.toString().split("\r\n");
    expect(lines.length).toBe(20_001);
    expect(lines[19_999]).toBe("20000");
  });

  test("lets Ctrl-C end the job in the foreground, and the shell lives on", async () => {
    const held = await shell();
    await held.shows("> ");
    await held.input(0, "sleep 50\n");
    await held.shows("sleep 50\r\n");
    await sleep(50);
    await held.input(9, "\x03");
    await held.shows("^C");
    await held.input(10, "echo $?\n");
    await held.shows("130");
    await held.input(18, "\x04");
    expect((await held.finish()).exit.how).toBe("exited");
  });

  test("has job control", async () => {
    const held = await shell();
    await held.shows("> ");
    await held.input(0, "sleep 50\n");
    await held.shows("sleep 50\r\n");
    await sleep(50);
    await held.input(9, "\x1a");
    await held.shows("Stopped");
    await held.input(10, "bg\n");
    await held.shows("sleep 50 &");
    await held.input(13, "kill %1; wait; exit 2\n");
    expect((await held.finish()).exit.status).toBe(2);
  });

  test("sends a signal for the group to the job in the foreground", async () => {
    const held = await shell();
    await held.shows("> ");
    await held.input(0, "sleep 50\n");
    await held.shows("sleep 50\r\n");
    await sleep(50);
    await held.signal(SIGINT, "group");
    await held.input(9, "echo $?\n");
    await held.shows("130");
    await held.input(17, "exit\n");
    await held.finish();
  });

  test("is resized, and its program told so; once for a size, twice to paint again", async () => {
    const held = await toolbox.start(
      ["bash", "-c", "trap 'stty size' WINCH; echo ready; for i in $(seq 400); do sleep 0.01; done"],
      { terminal },
    );
    await held.shows("ready");
    await held.resize(30, 100);
    expect(await held.shows("30 100")).not.toContain("29 100");
    // bash passes over a signal that comes while it takes one of the same kind
    await sleep(60);
    await held.resize(30, 100, true);
    expect(await held.shows(/30 100/)).toContain("29 100");
    await held.resize(0, 0);
    expect(await held.until((event): event is Event => event.is === "failed")).toMatchObject({
      errno: EINVAL,
    });
    await held.signal(SIGKILL, "process");
    await held.finish();
  });

  test("stays when whoever had it open closes it and opens it again", async () => {
    const held = await toolbox.start(
      sh("tty=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.1; echo back >$tty"),
      {
        terminal,
      },
    );
    expect((await held.finish()).terminal.toString()).toBe("back\r\n");
  });

  test("that is not there cannot be resized", async () => {
    const held = await toolbox.start(["sleep", "60"]);
    await held.resize(10, 10);
    expect(await held.next()).toEqual({ is: "failed", errno: ENOTTY, operation: "resize" });
    await held.end(0);
    await held.finish();
  });
});

describe("a signal", () => {
  /** A process with a child in its group, one in a session of its own, and one that lost its parents. */
  const family = `
    sleep 100 & echo group $!
    setsid sh -c 'echo session $$; exec sleep 101' &
    (setsid sh -c 'sh -c "echo lost \\$\\$; exec sleep 102" &' &)
    trap 'exit 143' TERM
    while :; do sleep 0.02; done`;

  async function startFamily() {
    const held = await toolbox.start(sh(family));
    let text = "";
    await held.until((event): event is Output => {
      if (event.is === "output") text += event.bytes.toString();
      return (
        ["group", "session", "lost"].every((name) => text.includes(`${name} `)) && text.split("\n").length > 3
      );
    });
    const pid = (name: string) => Number(new RegExp(`${name} (\\d+)`).exec(text)?.[1]);
    return { held, group: pid("group"), session: pid("session"), lost: pid("lost") };
  }

  test("for the process reaches it alone", async () => {
    const { held, group, session, lost } = await startFamily();
    await held.signal(SIGTERM, "process");
    const exit = await held.until(isExit);
    expect(exit).toMatchObject({ how: "exited", status: 143, cause: "signal" });
    expect([group, session, lost].map(lives)).toEqual([true, true, true]);
    await held.signal(SIGKILL, "tree");
    await becomes("all have ended", () => ![group, session, lost].some(lives));
    await held.forget();
    await nothingIsLeft();
  });

  test("for the group leaves out who left it", async () => {
    const { held, group, session, lost } = await startFamily();
    await held.signal(SIGKILL, "group");
    const exit = await held.until(isExit);
    expect(exit).toMatchObject({ how: "signaled", status: 9, cause: "signal" });
    await becomes("the group has ended", () => !lives(group));
    expect([session, lost].map(lives)).toEqual([true, true]);
    await held.signal(SIGTERM, "tree");
    await becomes("all have ended", () => ![session, lost].some(lives));
    await held.forget();
    await nothingIsLeft();
  });

  test("for the tree reaches all, and stopped ones as well", async () => {
    const { held, group, session, lost } = await startFamily();
    await held.signal(SIGSTOP, "tree");
    await held.signal(SIGKILL, "tree");
    const { exit } = await held.finish();
    expect(exit).toMatchObject({ how: "signaled", status: 9 });
    expect([group, session, lost].map(lives)).toEqual([false, false, false]);
    await nothingIsLeft();
  });

  test("that stops and goes on does neither to anything but the process", async () => {
    const held = await toolbox.start(sh("sleep 0.1; echo on"));
    await held.signal(SIGSTOP, "process");
    await sleep(200);
    await held.signal(SIGCONT, "process");
    const { stdout, exit } = await held.finish();
    expect(stdout.toString()).toBe("on\n");
    expect(exit).toMatchObject({ status: 0, cause: "self" });
  });

  test("to what has ended, or of no kind, was not done", async () => {
    const held = await toolbox.start(["sleep", "60"]);
    await held.signal(0, "process");
    expect(await held.next()).toEqual({ is: "failed", errno: EINVAL, operation: "signal" });
    await held.signal(200, "process");
    expect(await held.next()).toEqual({ is: "failed", errno: EINVAL, operation: "signal" });
    await held.signal(SIGKILL, "process");
    await held.until(isExit);
    for (const scope of ["process", "group", "tree"] as const) {
      await held.signal(SIGTERM, scope);
      expect(await held.next()).toEqual({ is: "failed", errno: ESRCH, operation: "signal" });
    }
    await held.forget();
  });

  test("that the program does not take from itself is not its asker's", async () => {
    const held = await toolbox.start(sh("trap '' HUP; echo ready; sleep 0.2; kill -KILL $$"));
    await held.shows("ready");
    await held.signal(1, "process");
    expect((await held.finish()).exit).toMatchObject({ how: "signaled", status: 9, cause: "self" });
  });
});

describe("it is ended", () => {
  const stubborn =
    "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 100' & echo ready; while :; do sleep 0.02; done";

  test("at its timeout, first by SIGTERM", async () => {
    const held = await toolbox.start(sh("trap 'echo asked; exit 8' TERM; while :; do sleep 0.01; done"), {
      timeoutMs: 150,
      graceMs: 60_000,
    });
    const { exit, stdout } = await held.finish();
    expect(exit).toMatchObject({ how: "exited", status: 8, cause: "timeout" });
    expect(stdout.toString()).toBe("asked\n");
    expect(exit.durationUs).toBeGreaterThan(140_000);
  });

  test("at its timeout and the grace, with all its descendants", async () => {
    const held = await toolbox.start(sh(stubborn), { timeoutMs: 100, graceMs: 100 });
    const { exit } = await held.finish();
    expect(exit).toMatchObject({ how: "signaled", status: 9, cause: "timeout" });
    expect(exit.durationUs).toBeGreaterThan(190_000);
    expect(exit.durationUs).toBeLessThan(5_000_000);
    await nothingIsLeft();
  });

  test("when nobody has been there for its time, and not while somebody is", async () => {
    const held = await toolbox.start(["sleep", "60"], { orphanMs: 150, graceMs: 100 });
    await sleep(250);
    expect(lives(held.status.pid)).toBe(true);
    held.close();
    await sleep(50);
    const again = await toolbox.attach(held.id, 0);
    await sleep(200);
    expect(lives(held.status.pid)).toBe(true);
    again.close();
    await becomes("it has ended", () => !lives(held.status.pid));
    const last = await toolbox.attach(held.id, 0);
    expect((await last.finish()).exit).toMatchObject({ how: "signaled", status: 15, cause: "orphaned" });
  });

  test("when that is asked for, with a fork bomb", async () => {
    const limited = await startToolbox({ limits: ["--nproc=200"] });
    try {
      // bash tries a fork that was refused again for some seconds; other shells end, and the bomb may be over before it is looked at
      const held = await limited.start(["bash", "-c", "bomb() { bomb & bomb & wait; }; bomb 2>/dev/null"]);
      await becomes("it has many", () => limited.processes().length > 100, 20_000);
      await held.end(0);
      const { exit } = await held.finish();
      expect(exit.cause).toBe("orphaned");
      await becomes("none is left", () => limited.processes().length === 1);
    } finally {
      await limited.close();
    }
  });

  test("when it was stopped, too", async () => {
    const held = await toolbox.start(sh("trap 'exit 3' TERM; while :; do sleep 0.01; done"));
    await sleep(50);
    await held.signal(SIGSTOP, "tree");
    await held.end(60_000);
    expect((await held.finish()).exit).toMatchObject({ how: "exited", status: 3, cause: "orphaned" });
  });
});

describe("it starts", () => {
  test("with the environment asked for over the server's, and PATH from there", async () => {
    const held = await toolbox.start(["sh", "-c", "echo $OF_SERVER $HOME $A"], {
      env: ["A=a=b", "HOME=/nowhere"],
    });
    expect((await held.finish()).stdout.toString()).toBe("yes /nowhere a=b\n");
    expect(await refusal(["sh", "-c", "exit"], { env: ["PATH=/nowhere"] })).toEqual({
      errno: ENOENT,
      operation: "exec",
    });
  });

  test("with three descriptors, default signals, and a session of its own", async () => {
    const fds = await (await toolbox.start(["ls", "/proc/self/fd"])).finish();
    // the fourth is that of ls, for the directory
    expect(fds.stdout.toString()).toBe("0\n1\n2\n3\n");
    const masks = await (await toolbox.start(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])).finish();
    expect(masks.stdout.toString()).toBe("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    const held = await toolbox.start(sh("cut -d' ' -f 1,5,6 /proc/$$/stat"));
    const pid = held.status.pid;
    expect((await held.finish()).stdout.toString()).toBe(`${pid} ${pid} ${pid}\n`);
  });

  test("where it was asked to, but not in /proc or /sys, nor where nothing or no directory is", async () => {
    const held = await toolbox.start(["pwd"], { directory: "/usr" });
    expect((await held.finish()).stdout.toString()).toBe("/usr\n");
    const file = path.join(toolbox.directory, "file");
    writeFileSync(file, "");
    const at = (directory: string) => refusal(["pwd"], { directory });
    expect(await at("/proc")).toEqual({ errno: EACCES, operation: "directory" });
    expect(await at("/proc/self/root/proc/1")).toEqual({ errno: EACCES, operation: "directory" });
    expect(await at("/sys/kernel")).toEqual({ errno: EACCES, operation: "directory" });
    expect(await at("/nowhere")).toEqual({ errno: ENOENT, operation: "directory" });
    expect(await at(file)).toEqual({ errno: ENOTDIR, operation: "directory" });
    expect(await toolbox.list()).toEqual([]);
  });

  test("unless it cannot be executed: the reason is the kernel's", async () => {
    const file = path.join(toolbox.directory, "text");
    writeFileSync(file, "echo not a program\n", { mode: 0o755 });
    expect(await refusal(["no-such-program"])).toEqual({ errno: ENOENT, operation: "exec" });
    expect(await refusal(["/no/such/program"])).toEqual({ errno: ENOENT, operation: "exec" });
    expect(await refusal(["/etc/passwd"])).toEqual({ errno: EACCES, operation: "exec" });
    expect(await refusal([file])).toEqual({ errno: ENOEXEC, operation: "exec" });
    expect(await refusal([])).toEqual({ errno: EPROTO, operation: "request" });
    expect(await refusal(["true"], { id: "../up" })).toEqual({ errno: EPROTO, operation: "request" });
    await nothingIsLeft();
  });

  test("once for an id, until its end was taken", async () => {
    const held = await toolbox.start(["sleep", "60"], { id: "twice" });
    expect(await refusal(["true"], { id: "twice" })).toEqual({ errno: EEXIST, operation: "id" });
    await held.end(0);
    await held.until(isExit);
    expect(await refusal(["true"], { id: "twice" })).toEqual({ errno: EEXIST, operation: "id" });
    await held.forget();
  });

  test("once of fifty at a time with one id", async () => {
    const all = await Promise.allSettled(
      Array.from({ length: 50 }, () => toolbox.start(["sleep", "60"], { id: "race" })),
    );
    const started = all.filter((one) => one.status === "fulfilled");
    expect(started.length).toBe(1);
    for (const one of all) {
      if (one.status === "rejected") expect(one.reason).toMatchObject({ errno: EEXIST, operation: "id" });
    }
    await started[0]?.value.end(0);
    await started[0]?.value.finish();
  });

  test("in the place of one whose keeper was killed, which is listed until then, or until it is cleared", async () => {
    const before = new Set(toolbox.processes());
    const held = await toolbox.start(["sleep", "60"], { id: "stale" });
    const keeper = toolbox.processes().find((pid) => !before.has(pid) && pid !== held.status.pid);
    process.kill(Number(keeper), "SIGKILL");
    expect(await held.next()).toBeUndefined();
    process.kill(held.status.pid, "SIGKILL");
    await expect(toolbox.attach("stale", 0)).rejects.toMatchObject({ code: "ECONNREFUSED" });
    expect(await toolbox.list()).toEqual(["stale"]);
    const next = await toolbox.start(sh("exit 1"), { id: "stale" });
    const clear = async () => {
      const connection = await toolbox.open();
      await connection.send(request().str("stale").frame(frame.clear));
      expect(await connection.receive()).toMatchObject({ type: frame.done });
    };
    // not while somebody listens there
    await clear();
    expect(await toolbox.list()).toEqual(["stale"]);
    expect((await next.finish()).exit.status).toBe(1);
    await nothingIsLeft();
  });

  test("not at the limit of processes, and says so", async () => {
    const limited = await startToolbox({ limits: ["--nproc=6"] });
    try {
      const refusals: unknown[] = [];
      const held: Attached[] = [];
      for (let times = 0; times < 6; times += 1) {
        await limited.start(["sleep", "60"]).then(
          (one) => held.push(one),
          (error: unknown) => refusals.push(error),
        );
      }
      expect(held.length).toBe(2);
      for (const error of refusals) expect(error).toMatchObject({ errno: EAGAIN, operation: "fork" });
      for (const one of held) {
        await one.end(0);
        expect((await one.finish()).exit.cause).toBe("orphaned");
      }
      expect(await limited.list()).toEqual([]);
    } finally {
      await limited.close();
    }
  });
});

describe("the toolbox", () => {
  test("leaves its processes to the next server", async () => {
    const other = await startToolbox();
    try {
      const held = await other.start(sh("read x; echo $x"), { input: true, id: "outlives" });
      other.server.kill("SIGKILL");
      await once(other.server, "exit");
      await other.serve();
      expect(await other.list()).toEqual(["outlives"]);
      await held.input(0, "still ");
      held.close();
      const again = await other.attach("outlives", 0);
      await again.input(again.status.inputOffset, "here\n");
      expect((await again.finish()).stdout.toString()).toBe("still here\n");
    } finally {
      await other.close();
    }
  });

  test("is not harmed by what is no frame, nor are its processes", async () => {
    const held = await toolbox.start(["cat"], { input: true, id: "victim" });
    const places = [
      path.join(toolbox.directory, "toolbox.sock"),
      path.join(toolbox.directory, "p-victim.sock"),
    ];
    const start = request().str("x").list(["true"]).frame(frame.start);
    const huge = writer().u8(1).str("x").u32(0xffffffff).frame(frame.start);
    const hostile = [
      Buffer.alloc(0),
      Buffer.from([0, 0, 0, 0]),
      Buffer.from([255, 255, 255, 255, 0x11]),
      Buffer.from([1, 0, 0]),
      Buffer.alloc(100_000, 0x31),
      start.subarray(0, start.length - 3),
      start,
      huge,
      request().str("a\0b").list([]).frame(frame.start),
      writer().u8(9).frame(frame.ping),
      request().frame(0xff),
      request().frame(frame.attach),
      writer().u8(9).u64(0).frame(frame.attach),
      ...Array.from({ length: 200 }, (_, seed) =>
        Buffer.from(
          Array.from(
            { length: 60 },
            (_, at) =>
              (at < 4 ? [40, 0, 0, 0][at] : (seed * 7919 + at * at * 31 + (seed % 7)) % 256) as number,
          ),
        ),
      ),
    ];
    for (const place of places) {
      for (const bytes of hostile) {
        const socket = connect(place);
        socket.on("error", () => undefined);
        await new Promise<void>((resolve) => socket.end(bytes, () => resolve()));
        socket.destroy();
      }
    }
    for (const type of [
      frame.input,
      frame.closeInput,
      frame.resize,
      frame.signal,
      frame.ack,
      frame.end,
      frame.start,
      0xff,
    ]) {
      const again = await toolbox.attach("victim", 0);
      await again.send(writer().u8(1).frame(type));
      expect(await again.next()).toMatchObject({ is: "error", errno: EPROTO, operation: "request" });
    }
    const last = await toolbox.attach("victim", Number.MAX_SAFE_INTEGER);
    await last.ack(Number.MAX_SAFE_INTEGER);
    await last.input(0, "alive");
    await last.closeInput(5);
    expect((await last.finish()).stdout.toString()).toBe("alive");
    await nothingIsLeft();
    held.close();
  });
});
