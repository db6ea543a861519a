// Processes while what looks after them goes away: the daemon, the engine, the toolbox inside, a keeper, the sandbox, the reader.

import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type Process,
  type ProcessEvent,
  ProcessExitCause,
  ProcessState,
} from "../../gen/sandboxd/v1/process_pb.ts";
import { ProcessService } from "../../gen/sandboxd/v1/process_service_pb.ts";
import type { PrivateEngine } from "../../tools/lib/engine.mjs";
import { engineObstacle, ownEngine } from "../harness/engine.ts";
import {
  eventually,
  type LocalHost,
  mebibyte,
  present,
  refusalOf,
  sleeping,
  startHost,
} from "../harness/sandboxes.ts";

describe.skipIf(engineObstacle !== undefined)(`processes in trouble (${engineObstacle ?? "engine"})`, () => {
  let engine: PrivateEngine;
  let host: LocalHost;
  let processes: Client<typeof ProcessService>;
  const sandboxId = "work";
  const usual = { cpuMillis: 1_000n, memoryBytes: BigInt(64 * mebibyte), pids: 64n };

  beforeAll(async () => {
    engine = await ownEngine({ liveRestore: true });
    host = await startHost({ engine: engine.socket });
    processes = host.daemon.client(ProcessService);
    await host.run(sandboxId, sleeping, usual);
  });
  afterAll(async () => {
    // the containers go with their engine
    await host?.daemon.stop();
    await engine?.stop();
    await host?.daemon.cleanup().catch(() => undefined);
  });

  /** What one reader has of a process: goes on in the background. */
  interface Reader {
    readonly events: ProcessEvent[];
    readonly text: () => string;
    /** Resolves to the error that ended it, or undefined for its proper end. */
    readonly over: Promise<unknown>;
  }

  function read(responses: AsyncIterable<{ readonly event?: ProcessEvent }>): Reader {
    const events: ProcessEvent[] = [];
    const text = () =>
      Buffer.concat(events.flatMap(({ event }) => (event.case === "stdout" ? [event.value] : []))).toString();
    const over = (async () => {
      for await (const { event } of responses) events.push(present(event));
    })().then(
      () => undefined,
      (error: unknown) => error,
    );
    return { events, text, over };
  }

  const start = (processId: string, script: string) =>
    read(processes.startProcess({ sandboxId, processId, command: ["sh", "-c", script], input: true }));
  const connect = (processId: string, afterSequence = 0n) =>
    read(processes.connectProcess({ sandboxId, processId, afterSequence }));
  const get = async (processId: string): Promise<Process> =>
    present((await processes.getProcess({ sandboxId, processId })).process);
  const exitOf = ({ events }: Reader) => {
    const last = events.at(-1)?.event;
    return last?.case === "exited" ? last.value.exit : undefined;
  };
  const shows = (reader: Reader, text: string) =>
    expect.poll(reader.text, { timeout: 20_000 }).toContain(text);

  const half = 40;
  const allLines = Array.from({ length: 2 * half }, (_, index) => `line ${index + 1}\n`).join("");
  /** Counts to one half, slowly, and to the whole once it is told to go on. */
  const counting = (end: string) => {
    const count = (most: number) => `while [ $i -lt ${most} ]; do i=$((i+1)); echo line $i; sleep 0.01; done`;
    return `i=0; ${count(half)}; read go; ${count(2 * half)}; ${end}`;
  };
  const goOn = (processId: string) =>
    processes.sendInput({ sandboxId, processId, data: Buffer.from("go\n") });

  test("the daemon is killed: the process goes on, its output is resumed where it was, and its end is told", async () => {
    const before = start("outlives", counting("exit 6"));
    await shows(before, "line 7");
    const { pid, startedAt } = await get("outlives");
    await host.daemon.kill("SIGKILL");
    expect(await before.over).toBeInstanceOf(Error);
    await host.daemon.start();
    const last = present(before.events.at(-1)).sequence;
    const after = connect("outlives", last);
    expect(await get("outlives")).toMatchObject({ pid, startedAt, state: ProcessState.RUNNING });
    await goOn("outlives");
    expect(await after.over).toBeUndefined();
    expect(after.events.some(({ event }) => event.case === "gap")).toBe(false);
    expect(before.text() + after.text()).toBe(allLines);
    expect(exitOf(after)).toMatchObject({ exitCode: 6, cause: ProcessExitCause.SELF });
  });

  test("the daemon is killed, and the process ends meanwhile: the next one tells how", async () => {
    const reader = start("ends-alone", "echo begun; sleep 0.5; exit 9");
    await shows(reader, "begun");
    await host.daemon.kill("SIGKILL");
    await reader.over;
    // longer than the process has left
    await sleep(600);
    await host.daemon.start();
    const after = connect("ends-alone");
    expect(await after.over).toBeUndefined();
    expect(exitOf(after)).toMatchObject({ exitCode: 9, cause: ProcessExitCause.SELF });
    expect((await get("ends-alone")).exit).toEqual(exitOf(after));
  });

  test("the daemon stops in order: streams end with SHUTTING_DOWN, processes go on", async () => {
    const reader = start("stopped-around", counting("exit 0"));
    await shows(reader, "line 5");
    await host.daemon.stop();
    expect(String(await reader.over)).toContain("unavailable");
    await host.daemon.start();
    const after = connect("stopped-around", present(reader.events.at(-1)).sequence);
    await goOn("stopped-around");
    expect(await after.over).toBeUndefined();
    expect(reader.text() + after.text()).toBe(allLines);
  });

  test("the engine is restarted under its containers: no stream notices", async () => {
    const reader = start("under-way", counting("exit 3"));
    await shows(reader, "line 10");
    await engine.restart();
    await goOn("under-way");
    expect(await reader.over).toBeUndefined();
    expect(reader.text()).toBe(allLines);
    expect(exitOf(reader)).toMatchObject({ exitCode: 3 });
  });

  test("the toolbox's server is killed from inside: nothing is lost, and another takes its place", async () => {
    const reader = start("serverless", counting("exit 2"));
    await shows(reader, "line 3");
    const killer = start("killer", "pkill -KILL -o -f '^/.sandboxd/toolbox serve'; echo done");
    expect(await killer.over).toBeUndefined();
    const next = start("next", "echo served");
    expect(await next.over).toBeUndefined();
    expect(next.text()).toBe("served\n");
    await goOn("serverless");
    expect(await reader.over).toBeUndefined();
    expect([reader.text(), exitOf(reader)?.exitCode]).toEqual([allLines, 2]);
  });

  test("a keeper is killed from inside: the process is lost, and that is told", async () => {
    const reader = start("kept", "echo up; sleep 1000");
    await shows(reader, "up");
    const { processes: all } = await processes.listProcesses({
      sandboxId,
      includeOthers: true,
      pageSize: 1_000,
    });
    const keeper = present(all.find(({ processId }) => processId === "kept")?.usage).parentPid;
    const killer = start("murder", `kill -KILL ${keeper}`);
    expect(await killer.over).toBeUndefined();
    expect(await reader.over).toBeUndefined();
    expect(exitOf(reader)).toMatchObject({ exitCode: 255, cause: ProcessExitCause.UNKNOWN });
    expect((await get("kept")).state).toBe(ProcessState.LOST);
  });

  test("a reader that goes away leaves the process, unless that was asked otherwise", async () => {
    const leave = async (processId: string, killOnDisconnect: boolean) => {
      const abort = new AbortController();
      const request = { sandboxId, processId, command: ["sleep", "1000"], killOnDisconnect };
      const reader = read(processes.startProcess(request, { signal: abort.signal }));
      await expect.poll(() => reader.events.length).toBe(1);
      abort.abort();
      await reader.over;
    };
    await Promise.all([leave("left", false), leave("tied", true)]);
    const tied = await eventually(
      "its end",
      () => get("tied"),
      ({ exit }) => exit !== undefined,
    );
    expect(tied.exit).toMatchObject({ exitCode: 143, cause: ProcessExitCause.DISCONNECTED });
    expect(await get("left")).toMatchObject({ state: ProcessState.RUNNING, watchers: 0 });
  });

  test("the sandbox is killed behind the daemon: streams tell that it ended", async () => {
    await host.run("victim", sleeping, usual);
    const reader = read(
      processes.startProcess({
        sandboxId: "victim",
        processId: "p",
        command: ["sh", "-c", "echo up; sleep 1000"],
      }),
    );
    await shows(reader, "up");
    const { containerId } = present((await host.get("victim")).status);
    await host.docker.getContainer(containerId).kill();
    expect(await reader.over).toBeUndefined();
    expect(exitOf(reader)).toMatchObject({
      exitCode: 137,
      signal: 9,
      cause: ProcessExitCause.SANDBOX_ENDED,
    });
  });

  test("the sandbox ends while the daemon is away: the next one says so of its processes", async () => {
    await host.run("gone", sleeping, usual);
    const reader = read(
      processes.startProcess({
        sandboxId: "gone",
        processId: "p",
        command: ["sh", "-c", "echo up; sleep 1000"],
      }),
    );
    await shows(reader, "up");
    const { containerId } = present((await host.get("gone")).status);
    await host.daemon.kill("SIGKILL");
    await reader.over;
    await host.docker.getContainer(containerId).kill();
    await host.daemon.start();
    const after = read(processes.connectProcess({ sandboxId: "gone", processId: "p" }));
    expect(await after.over).toBeUndefined();
    expect(exitOf(after)).toMatchObject({ cause: ProcessExitCause.SANDBOX_ENDED });
    expect(
      await refusalOf(
        read(processes.startProcess({ sandboxId: "gone", command: ["true"] })).over.then((error) => {
          throw error;
        }),
      ),
    ).toMatchObject({ reason: "INVALID_STATE" });
  });
});
