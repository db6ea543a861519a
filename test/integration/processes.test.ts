// ProcessService as callers have it: on real sandboxes, through the API.

import { readdirSync, readFileSync } from "node:fs";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type ProcessEvent,
  type ProcessExit,
  ProcessExitCause,
  ProcessState,
} from "../../gen/sandboxd/v1/process_pb.ts";
import {
  OutputMode,
  ProcessService,
  SignalScope,
  type StartProcessRequestSchema,
} from "../../gen/sandboxd/v1/process_service_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import {
  eventually,
  type LocalHost,
  mebibyte,
  present,
  refusalOf,
  sleeping,
  startHost,
} from "../harness/sandboxes.ts";

type Start = Omit<MessageInitShape<typeof StartProcessRequestSchema>, "$typeName">;

describe.skipIf(engineObstacle !== undefined)(`processes (${engineObstacle ?? "engine"})`, () => {
  let host: LocalHost;
  let processes: Client<typeof ProcessService>;
  const sandboxId = "work";
  const usual = { cpuMillis: 2_000n, memoryBytes: BigInt(128 * mebibyte), pids: 128n };

  beforeAll(async () => {
    host = await startHost();
    processes = host.daemon.client(ProcessService);
    await host.run(sandboxId, sleeping, usual);
  });
  afterAll(() => host?.daemon.cleanup());

  const sh = (script: string) => ["sh", "-c", script];

  async function* eventsOf(responses: AsyncIterable<{ readonly event?: ProcessEvent }>) {
    for await (const { event } of responses) yield present(event);
  }

  const start = (command: readonly string[], change: Start = {}) =>
    eventsOf(processes.startProcess({ sandboxId, command: [...command], ...change }));
  const connect = (processId: string, afterSequence = 0n, id = sandboxId) =>
    eventsOf(processes.connectProcess({ sandboxId: id, processId, afterSequence }));

  interface Ended {
    readonly events: readonly ProcessEvent[];
    readonly stdout: Buffer;
    readonly stderr: Buffer;
    readonly terminal: Buffer;
    readonly dropped: bigint;
    readonly exit: ProcessExit;
  }

  /** All of a stream, which ends after the process's end. */
  async function ended(stream: AsyncIterable<ProcessEvent>): Promise<Ended> {
    const events: ProcessEvent[] = [];
    for await (const event of stream) events.push(event);
    const of = (kind: "stdout" | "stderr" | "terminal") =>
      Buffer.concat(events.flatMap(({ event }) => (event.case === kind ? [event.value] : [])));
    const dropped = events.reduce(
      (sum, { event }) => sum + (event.case === "gap" ? event.value.droppedBytes : 0n),
      0n,
    );
    const last = events.at(-1)?.event;
    if (last?.case !== "exited") throw new Error(`the stream ended with ${last?.case}`);
    const exit = present(last.value.exit);
    return { events, stdout: of("stdout"), stderr: of("stderr"), terminal: of("terminal"), dropped, exit };
  }

  const run = (command: readonly string[], change: Start = {}) => ended(start(command, change));

  /** Reads until the output has the text. */
  async function shows(stream: AsyncIterator<ProcessEvent>, text: string): Promise<string> {
    let seen = "";
    while (!seen.includes(text)) {
      const { value, done } = await stream.next();
      if (done) throw new Error(`the stream ended after ${JSON.stringify(seen)}`);
      const { event } = value as ProcessEvent;
      if (event.case === "stdout" || event.case === "stderr" || event.case === "terminal")
        seen += Buffer.from(event.value).toString();
      if (event.case === "exited") throw new Error(`it ended after ${JSON.stringify(seen)}`);
    }
    return seen;
  }

  const stateOf = async (processId: string, id = sandboxId) =>
    present((await processes.getProcess({ sandboxId: id, processId })).process);

  /** What the sandbox's processes are called, as the kernel has them. */
  const commandsIn = async (id = sandboxId) =>
    (await processes.listProcesses({ sandboxId: id, includeOthers: true, pageSize: 1_000 })).processes.map(
      ({ command }) => command.join(" "),
    );

  test("a command's output and exit code come back; it runs as the sandbox's user, as confined as that", async () => {
    const { events, stdout, stderr, exit } = await run(
      sh(
        "id -u; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/1/status >/dev/null; echo oops >&2; exit 5",
      ),
    );
    const uid = (await host.get(sandboxId)).status?.uid;
    const text = stdout.toString();
    expect(text).toContain(`${uid}\n`);
    expect(text).toMatch(/CapEff:\s+0{16}\n/);
    expect(text).toMatch(/NoNewPrivs:\s+1\n/);
    expect(text).toMatch(/Seccomp:\s+2\n/);
    expect([stderr.toString(), exit.exitCode, exit.cause]).toEqual(["oops\n", 5, ProcessExitCause.SELF]);
    expect(events[0]?.event.case).toBe("started");
  });

  test("a million lines come complete, in order, in the mode WAIT", async () => {
    const { stdout, dropped, exit } = await run(sh("seq 1 1000000"), { outputMode: OutputMode.WAIT });
    expect([exit.exitCode, dropped]).toEqual([0, 0n]);
    const lines = stdout.toString().split("\n");
    expect(lines).toHaveLength(1_000_001);
    expect(lines.every((line, index) => index === 1_000_000 || line === String(index + 1))).toBe(true);
  });

  test("a flood that nobody reads fast enough is told with its gaps, byte for byte, and costs no memory", async () => {
    const size = 30_000_000;
    const before = residentBytes();
    const { stdout, dropped } = await run(sh(`head -c ${size} /dev/zero`));
    expect(BigInt(stdout.length) + dropped).toBe(BigInt(size));
    expect(residentBytes() - before).toBeLessThan(64 * mebibyte);
  });

  /** Of the daemon. */
  function residentBytes(): number {
    const status = readFileSync(`/proc/${host.daemon.pid()}/status`, "latin1");
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1_024;
  }

  test("binary output, and 64 KiB without a line's end, come as they were written", async () => {
    const { stdout } = await run(
      sh('i=0; while [ $i -lt 256 ]; do printf "\\\\$(printf %o $i)"; i=$((i+1)); done'),
    );
    expect([...stdout]).toEqual(Array.from({ length: 256 }, (_, index) => index));
    const long = await run(sh("head -c 65536 /dev/zero | tr '\\0' x"));
    expect(long.stdout.toString()).toBe("x".repeat(65_536));
  });

  test("several readers, of which one comes back from where it was, all see the same", async () => {
    const script = "for i in $(seq 1 30); do echo line $i; sleep 0.02; done";
    const first = start(sh(script), { processId: "watched" });
    const begun = first[Symbol.asyncIterator]();
    await begun.next();
    const others = [connect("watched"), connect("watched")].map(ended);
    const { value } = await begun.next();
    const seen = (value as ProcessEvent).sequence;
    await begun.return?.(undefined);
    const resumed = await ended(connect("watched", seen));
    const [one, other] = await Promise.all(others);
    expect(one?.stdout.toString()).toBe(
      Array.from({ length: 30 }, (_, index) => `line ${index + 1}\n`).join(""),
    );
    expect(other?.stdout.equals(present(one).stdout)).toBe(true);
    expect(one?.stdout.toString().endsWith(resumed.stdout.toString())).toBe(true);
    expect(resumed.events[0]?.sequence).toBeGreaterThan(seen);
    expect(await refusalOf(ended(connect("watched", 10_000n)))).toMatchObject({
      code: "OutOfRange",
      reason: "SEQUENCE_TRUNCATED",
    });
  });

  test("50 processes at once keep their outputs and exit codes apart", async () => {
    const all = await Promise.all(
      Array.from({ length: 50 }, (_, index) => run(sh(`echo ${index}; exit ${index}`))),
    );
    expect(all.map(({ exit }) => exit.exitCode)).toEqual(all.map((_, index) => index));
    expect(all.map(({ stdout }) => stdout.toString())).toEqual(all.map((_, index) => `${index}\n`));
  });

  test("input is typed, ended, and refused where there is none", async () => {
    const stream = start(["cat"], { processId: "typed", input: true });
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    const ids = { sandboxId, processId: "typed" };
    expect((await processes.sendInput({ ...ids, data: Buffer.from("abc") })).offset).toBe(3n);
    expect((await processes.sendInput({ ...ids, data: Buffer.from("abcdef"), offset: 0n })).offset).toBe(6n);
    expect(
      await refusalOf(processes.sendInput({ ...ids, data: Buffer.from("x"), offset: 9n })),
    ).toMatchObject({
      code: "OutOfRange",
      reason: "INPUT_OUT_OF_ORDER",
    });
    await processes.closeInput(ids);
    const { stdout } = await ended(connect("typed"));
    expect(stdout.toString()).toBe("abcdef");
    const { stdout: nothing } = await run(sh("cat; echo end"));
    expect(nothing.toString()).toBe("end\n");
    expect(await refusalOf(processes.sendInput({ ...ids, data: Buffer.from("x") }))).toMatchObject({
      code: "FailedPrecondition",
      reason: "INVALID_STATE",
    });
  });

  test("a terminal is one: its size, its change, its job control, and characters cut in two", async () => {
    const change = { processId: "tty", terminal: { rows: 33, columns: 99 } };
    const stream = start(["sh"], change)[Symbol.asyncIterator]();
    await stream.next();
    const ids = { sandboxId, processId: "tty" };
    const type = (data: Uint8Array) => processes.sendInput({ ...ids, data });
    await type(Buffer.from("tty; stty size\n"));
    expect(await shows(stream, "33 99")).toContain("/dev/pts/");
    await processes.resizeTerminal({ ...ids, size: { rows: 50, columns: 120 } });
    await type(Buffer.from("stty size; echo $TERM\n"));
    await shows(stream, "50 120");
    const euro = Buffer.from("echo '€'; stty -echo\n");
    for (const byte of euro) await type(Uint8Array.of(byte));
    await shows(stream, "€\r\n");
    await type(Buffer.from("sleep 1000\n"));
    await eventually("it sleeps", commandsIn, (found) => found.includes("sleep 1000") && found.length > 0);
    await type(Uint8Array.of(3));
    await type(Buffer.from("echo $((6*7)); exit 4\n"));
    await shows(stream, "42");
    expect((await ended(connect("tty"))).exit.exitCode).toBe(4);
    expect(
      await refusalOf(processes.resizeTerminal({ ...ids, size: { rows: 1, columns: 1 } })),
    ).toMatchObject({
      reason: "INVALID_STATE",
    });
  });

  test("signals reach the process, its group, or all that it started", async () => {
    const script = (mark: string) => `setsid sleep ${mark}1 & sleep ${mark}2 & echo up; wait`;
    const left = async (mark: string) =>
      (await commandsIn()).filter((one) => one.startsWith(`sleep ${mark}`));
    const cases = [
      { mark: "771", scope: SignalScope.PROCESS, left: 2 },
      { mark: "772", scope: SignalScope.GROUP, left: 1 },
      { mark: "773", scope: SignalScope.TREE, left: 0 },
    ];
    for (const { mark, scope, left: expected } of cases) {
      const processId = `signal-${mark}`;
      const stream = start(sh(script(mark)), { processId })[Symbol.asyncIterator]();
      await shows(stream, "up");
      await eventually(
        "both sleep",
        () => left(mark),
        (found) => found.length === 2,
      );
      await processes.signalProcess({ sandboxId, processId, signal: "SIGTERM", scope });
      expect((await ended(connect(processId))).exit).toMatchObject({
        exitCode: 143,
        signal: 15,
        cause: ProcessExitCause.SIGNALED,
      });
      await eventually(
        `${expected} are left`,
        () => left(mark),
        (found) => found.length === expected,
      );
      await run(sh(`pkill -f 'sleep ${mark}'`));
    }
    expect(
      await refusalOf(processes.signalProcess({ sandboxId, processId: "signal-771", signal: "TERM" })),
    ).toMatchObject({ reason: "INVALID_STATE" });
    expect(
      await refusalOf(processes.signalProcess({ sandboxId, processId: "signal-771", signal: "SIGWHAT" })),
    ).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
  });

  test("what cannot be started says why, and leaves nothing", async () => {
    const refused = async (command: readonly string[], change: Start = {}) =>
      refusalOf(run(command, { processId: "never", ...change }));
    expect(await refused(["no-such-program"])).toMatchObject({
      code: "FailedPrecondition",
      reason: "COMMAND_UNUSABLE",
    });
    expect(await refused(["/etc"])).toMatchObject({ reason: "COMMAND_UNUSABLE" });
    expect(await refused(["true"], { workingDir: "/nowhere" })).toMatchObject({ reason: "FILE_NOT_FOUND" });
    expect(await refused(["true"], { workingDir: "/proc/1" })).toMatchObject({ reason: "INVALID_FIELD" });
    expect(await refused(["true"], { env: { LD_PRELOAD: "x" } })).toMatchObject({ reason: "INVALID_FIELD" });
    expect(await refused([])).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
    expect(await refused(["true"], { sandboxId: "never-was" })).toMatchObject({
      reason: "SANDBOX_NOT_FOUND",
    });
    expect(await refusalOf(processes.getProcess({ sandboxId, processId: "never" }))).toMatchObject({
      code: "NotFound",
      reason: "PROCESS_NOT_FOUND",
    });
  });

  test("a fork bomb inside is held by the pids limit, which others are told of, and ends by one signal", async () => {
    await host.run("bomb", sleeping, { ...usual, pids: 24n });
    const bomb = start(["awk", 'BEGIN { while (1) system("exec 2>/dev/null; sleep 500 &") }'], {
      sandboxId: "bomb",
      processId: "bomb",
    });
    await bomb[Symbol.asyncIterator]().next();
    const refusal = await eventually(
      "a refusal",
      () => refusalOf(run(["true"], { sandboxId: "bomb" })),
      () => true,
    );
    expect(refusal).toMatchObject({ code: "ResourceExhausted", reason: "PROCESS_LIMIT_REACHED" });
    await processes.signalProcess({
      sandboxId: "bomb",
      processId: "bomb",
      signal: "KILL",
      scope: SignalScope.TREE,
    });
    expect((await ended(connect("bomb", 0n, "bomb"))).exit.cause).toBe(ProcessExitCause.SIGNALED);
    expect((await run(["true"], { sandboxId: "bomb" })).exit.exitCode).toBe(0);
    await host.sandboxes.deleteSandbox({ sandboxId: "bomb" });
  });

  test("one that the kernel killed for want of memory is told as that", async () => {
    await host.run("small", sleeping, { ...usual, memoryBytes: BigInt(24 * mebibyte) });
    const { exit } = await run(sh("exec tail /dev/zero"), {
      sandboxId: "small",
      outputMode: OutputMode.WAIT,
    });
    expect(exit).toMatchObject({ exitCode: 137, signal: 9, oomKilled: true, cause: ProcessExitCause.SELF });
    await host.sandboxes.deleteSandbox({ sandboxId: "small" });
  });

  test("secrets given at the start are in no place but the process", async () => {
    const events: string[] = [];
    const engineEvents = await host.docker.getEvents({});
    engineEvents.on("data", (chunk: Buffer) => events.push(chunk.toString()));
    const secret = "hunter2-never-shown";
    const stream = start(sh("echo up; sleep 1000"), { processId: "secretive", env: { TOKEN: secret } });
    await shows(stream[Symbol.asyncIterator](), "up");
    expect(
      (
        await run(
          sh("tr '\\0' '\\n' </proc/$(pgrep -f 'sleep 1000' | head -1)/environ | grep -c TOKEN || true"),
        )
      ).exit.exitCode,
    ).toBe(0);
    const { containerId } = present((await host.get(sandboxId)).status);
    const inspected = JSON.stringify(await host.docker.getContainer(containerId).inspect());
    const listed = JSON.stringify(await stateOf("secretive"), (_key, value: unknown) =>
      typeof value === "bigint" ? String(value) : value,
    );
    const state = readdirSync(host.daemon.stateDirectory)
      .filter((name) => name.startsWith("state.db"))
      .map((name) => readFileSync(`${host.daemon.stateDirectory}/${name}`, "latin1"))
      .join();
    const daemon = `${readFileSync(`/proc/${host.daemon.pid()}/cmdline`, "latin1")}${host.daemon.logs()}`;
    for (const place of [inspected, listed, state, daemon, events.join()])
      expect(place).not.toContain(secret);
    expect(state, "it was looked for in the right place").toContain("secretive");
    (engineEvents as unknown as { destroy(): void }).destroy();
    await processes.signalProcess({ sandboxId, processId: "secretive", signal: "KILL" });
  });

  test("lists what was started in the order of its start, page by page, and what else there is", async () => {
    await host.run("listed", sleeping, usual);
    const ids = ["a", "b", "c", "d", "e"];
    for (const processId of ids) await run(["true"], { sandboxId: "listed", processId });
    const stream = start(sh("exec sleep 4321"), { sandboxId: "listed", processId: "z" })[
      Symbol.asyncIterator
    ]();
    await stream.next();
    const seen: string[] = [];
    for (let pageToken = "", pages = 0; pages === 0 || pageToken !== ""; pages++) {
      const page = await processes.listProcesses({ sandboxId: "listed", pageSize: 2, pageToken });
      seen.push(...page.processes.map(({ processId }) => processId));
      pageToken = page.nextPageToken;
    }
    expect(seen).toEqual([...ids, "z"]);
    const { processes: all } = await eventually(
      "it sleeps",
      () => processes.listProcesses({ sandboxId: "listed", includeOthers: true }),
      ({ processes: found }) => found.some(({ command }) => command.join(" ") === "sleep 1000"),
    );
    const own = all.find(({ processId }) => processId === "z");
    expect(own?.state).toBe(ProcessState.RUNNING);
    expect(own?.usage?.residentBytes).toBeGreaterThan(0n);
    const first = all.find(({ pid }) => pid === 1);
    expect(first).toMatchObject({ processId: "", usage: { parentPid: 0 } });
    const main = all.find(({ command }) => command.join(" ") === "sleep 1000");
    expect(main).toMatchObject({ processId: "", state: ProcessState.RUNNING, usage: { parentPid: 1 } });
    expect(all.filter(({ command }) => command.join(" ") === "sleep 4321")).toHaveLength(0);
    expect(await refusalOf(processes.listProcesses({ sandboxId: "listed", pageToken: "x" }))).toMatchObject({
      reason: "INVALID_FIELD",
    });
    await host.sandboxes.deleteSandbox({ sandboxId: "listed" });
  });

  test("nothing survives the sandbox's stop, and streams tell it; nothing is known after its deletion", async () => {
    await host.run("stopped", sleeping, usual);
    const stream = ended(
      start(sh("setsid sleep 5555 & trap '' TERM; sleep 5555; true"), {
        sandboxId: "stopped",
        processId: "p",
      }),
    );
    await eventually(
      "both run",
      () => commandsIn("stopped"),
      (found) => found.filter((one) => one === "sleep 5555").length === 2,
    );
    await host.sandboxes.stopSandbox({ sandboxId: "stopped" });
    expect((await stream).exit).toMatchObject({
      exitCode: 137,
      signal: 9,
      cause: ProcessExitCause.SANDBOX_ENDED,
    });
    expect(hostCommands().filter((one) => one.includes("sleep\x005555"))).toEqual([]);
    expect((await stateOf("p", "stopped")).state).toBe(ProcessState.EXITED);
    expect(await refusalOf(run(["true"], { sandboxId: "stopped" }))).toMatchObject({
      code: "FailedPrecondition",
      reason: "INVALID_STATE",
    });
    await host.sandboxes.startSandbox({ sandboxId: "stopped" });
    expect((await run(sh("echo again"), { sandboxId: "stopped" })).stdout.toString()).toBe("again\n");
    await host.sandboxes.deleteSandbox({ sandboxId: "stopped" });
    expect(await refusalOf(stateOf("p", "stopped"))).toMatchObject({ reason: "SANDBOX_NOT_FOUND" });
  });

  function hostCommands(): readonly string[] {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map((pid) => {
        try {
          return readFileSync(`/proc/${pid}/cmdline`, "latin1");
        } catch {
          return "";
        }
      });
  }

  test("the RPC's deadline ends the stream, not the process", async () => {
    const stream = processes.startProcess(
      { sandboxId, processId: "long", command: sh("echo begun; sleep 0.8; echo done") },
      { timeoutMs: 400 },
    );
    expect(await refusalOf(ended(eventsOf(stream)))).toMatchObject({ code: "DeadlineExceeded" });
    const { stdout, exit } = await ended(connect("long"));
    expect([stdout.toString(), exit.exitCode]).toEqual(["begun\ndone\n", 0]);
  });
});
