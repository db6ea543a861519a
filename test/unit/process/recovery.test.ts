// Processes over restarts of the daemon, broken connections, and the end of what looked after them, on a real toolbox.

import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { ProcessRecord } from "../../../src/process/record.ts";
import { openStore, type Store } from "../../../src/store/store.ts";
import { becomes } from "../toolbox/keeper-fixture.ts";
import { stateDirectoryOf } from "./directory.ts";
import { type Bench, openBench, sandboxId } from "./fixture.ts";

let state: ReturnType<typeof stateDirectoryOf>;
let store: Store;
let bench: Bench;
const begin = async (config = {}) => {
  bench = await openBench(store, config);
};
beforeEach(() => {
  state = stateDirectoryOf();
  store = openStore({ directory: state.path, eventRetention: { count: 1_000, ageMs: 1e12 } });
});
afterEach(async () => {
  await bench.close();
  store.close();
  state.remove();
});

const sh = (script: string) => ["sh", "-c", script];
const attending = () => ({ signal: new AbortController().signal });
const keyOf = (processId: string) => ({ sandboxId, processId });
const exitOf = async (processId: string) => (await bench.processes.get(keyOf(processId))).record.exit;
const kept = () => store.processDocuments().map((document) => JSON.parse(document) as ProcessRecord);

/** The keeper of a process, as this machine numbers it. */
async function keeperOf(processId: string): Promise<number> {
  const { pid } = await bench.processes.get(keyOf(processId));
  const [, parent] = /^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1")) ?? [];
  return Number(parent);
}

test("a process outlives the daemon: its output is resumed without a gap, its input goes on, its end is told", async () => {
  await begin();
  const stream = await bench.start(sh("echo one; read a; echo $a; read b; echo $b; exit 7"), {
    hasInput: true,
  });
  await stream.shows("one");
  const request = { ...keyOf(stream.processId), data: Buffer.from("two\n"), closes: false };
  await bench.processes.sendInput(request, attending());
  const seen = await stream.next();
  const before = await bench.processes.get(keyOf(stream.processId));
  bench.restart();
  const again = await bench.connect(stream.processId, 2);
  const after = await bench.processes.get(keyOf(stream.processId));
  expect([after.pid, after.record.startedAtMs]).toEqual([before.pid, before.record.startedAtMs]);
  expect(after).toMatchObject({ inputOffset: 4, lastSequence: seen.sequence, isInputOpen: true });
  expect(after.record.requestHash).toBe(before.record.requestHash);
  const rest = { ...keyOf(stream.processId), data: Buffer.from("three\n"), offset: 4, closes: false };
  expect(await bench.processes.sendInput(rest, attending())).toBe(10);
  const { told, stdout, exit } = await again.rest();
  expect(stdout).toBe("two\nthree\n");
  expect(told.some(({ kind }) => kind === "gap")).toBe(false);
  expect(exit).toMatchObject({ exitCode: 7, cause: "SELF" });
});

test("an end while the daemon was away is told by the next one, with its figures", async () => {
  await begin();
  const stream = await bench.start(sh("echo x; sleep 0.2; exit 9"));
  await stream.shows("x");
  bench.processes.close();
  await sleep(400);
  bench.restart();
  const { stdout, exit } = await (await bench.connect(stream.processId)).rest();
  expect([stdout, exit.exitCode, exit.cause]).toEqual(["x\n", 9, "SELF"]);
  expect(exit.durationUs).toBeLessThan(390_000);
  await becomes("the keeper goes", () => bench.toolbox.processes().length === 1);
});

test("an end that was told is known to the next daemon, without its output", async () => {
  await begin();
  const { exit } = await bench.run(sh("echo gone; exit 4"), { processId: "told" });
  bench.restart();
  const again = await (await bench.connect("told")).rest();
  expect(again.told.map(({ kind }) => kind)).toEqual(["started", "gap", "exited"]);
  expect(again.told[1]).toMatchObject({ droppedBytes: 5, nextSequence: 3, sequence: 1 });
  expect(again.exit).toEqual(exit);
});

test("the same request, sent again to the next daemon, is the same process", async () => {
  await begin();
  const command = sh("echo $$; sleep 0.3");
  const first = await bench.start(command, { processId: "again" });
  const pid = await first.shows("\n");
  bench.restart();
  const second = await bench.run(command, { processId: "again" });
  expect(second.stdout).toBe(pid);
  await expect(bench.start(["true"], { processId: "again" })).rejects.toThrow(/another request/);
});

test("a connection that breaks is made again, and no stream notices", async () => {
  await begin();
  const stream = await bench.start(sh("for i in $(seq 1 40); do echo $i; sleep 0.01; done"));
  for (let index = 0; index < 3; index++) {
    await sleep(60);
    for (const connection of bench.connections) connection.close();
  }
  const { told, stdout, exit } = await stream.rest();
  expect(stdout.split("\n")).toHaveLength(41);
  expect(told.some(({ kind }) => kind === "gap")).toBe(false);
  expect(exit.exitCode).toBe(0);
});

test("a toolbox that was ended is nothing to the processes that it started", async () => {
  await begin();
  const stream = await bench.start(sh("sleep 0.3; echo still; exit 2"));
  bench.toolbox.server.kill("SIGKILL");
  const { stdout, exit } = await stream.rest();
  expect([stdout, exit.exitCode]).toEqual(["still\n", 2]);
  await bench.toolbox.serve();
});

test("a process whose keeper was ended from inside is lost, and its stream says so", async () => {
  await begin();
  const stream = await bench.start(["sleep", "60"]);
  process.kill(await keeperOf(stream.processId), "SIGKILL");
  const { exit } = await stream.rest();
  expect(exit).toMatchObject({ exitCode: 255, signal: 0, cause: "UNKNOWN" });
  expect((await bench.processes.get(keyOf(stream.processId))).record.state).toBe("LOST");
  expect(kept()).toMatchObject([{ state: "LOST" }]);
});

test("processes end with their sandbox, and are known as long as their ends are retained", async () => {
  await begin();
  const stream = await bench.start(["sleep", "60"]);
  bench.sandboxIs({ state: "STOPPED" });
  const { exit } = await stream.rest();
  expect(exit).toMatchObject({ exitCode: 137, signal: 9, cause: "SANDBOX_ENDED" });
  await expect(bench.start(["true"])).rejects.toThrow(/is STOPPED/);
  bench.restart();
  expect(await exitOf(stream.processId)).toEqual(exit);
});

test("processes of another run of the sandbox are over, also those that were not seen to end", async () => {
  await begin();
  const stream = await bench.start(["sleep", "60"]);
  bench.processes.close();
  bench.sandboxIs({ ranSinceMs: 2 });
  bench.restart();
  await expect.poll(() => exitOf(stream.processId)).toMatchObject({ cause: "SANDBOX_ENDED" });
});

test("nothing is kept of the processes of a sandbox that was deleted", async () => {
  await begin();
  const stream = await bench.start(["sleep", "60"]);
  await bench.run(["true"]);
  expect(kept()).toHaveLength(2);
  bench.sandboxIs(undefined);
  expect((await stream.rest()).exit.cause).toBe("SANDBOX_ENDED");
  expect(kept()).toEqual([]);
  await expect(bench.processes.get(keyOf(stream.processId))).rejects.toThrow(/no sandbox/);
  bench.sandboxIs({ instance: "another" });
  await expect(bench.processes.get(keyOf(stream.processId))).rejects.toThrow(/no process/);
});

test("a process that was accepted, and of which no keeper knows, never was", async () => {
  await begin();
  const { processId } = await bench.start(["sleep", "60"], { processId: "intent" });
  bench.processes.close();
  const [record] = kept();
  process.kill(await keeperOf(processId), "SIGKILL");
  store.transact((transaction) =>
    transaction.putProcess(sandboxId, processId, JSON.stringify({ ...record, state: "STARTING" })),
  );
  bench.restart();
  await becomes("it is forgotten", () => kept().length === 0);
  expect((await bench.run(["true"], { processId: "intent" })).exit.exitCode).toBe(0);
});

test("keepers that a lost state had known of are found again", async () => {
  await begin();
  const stream = await bench.start(sh("echo before; sleep 0.4; echo after; exit 6"), { processId: "found" });
  await stream.shows("before");
  store.transact((transaction) => {
    transaction.removeProcess(sandboxId, "found");
    transaction.setMeta("processes_known", "");
  });
  bench.sandboxIs({ toolbox: "version" });
  bench.restart();
  await becomes("it is known", () => kept().length === 1);
  const { stdout, exit } = await (await bench.connect("found")).rest();
  expect([stdout, exit.exitCode]).toEqual(["before\nafter\n", 6]);
  await expect(bench.start(["true"], { processId: "found" })).rejects.toThrow(/another request/);
});

test("a process that is tied to its streams waits half a minute for them after a restart", async () => {
  await begin();
  const stream = await bench.start(["sleep", "60"], { killsOnDisconnect: true });
  bench.restart();
  await sleep(800);
  const again = await bench.connect(stream.processId);
  await again.next();
  again.leave();
  await expect
    .poll(() => exitOf(stream.processId), { timeout: 10_000 })
    .toMatchObject({ cause: "DISCONNECTED" });
});

test("ends are kept for a time, and only so many of them", async () => {
  await begin({ maxRetained: 2, exitRetentionMs: 1_000 });
  for (const processId of ["a", "b", "c"]) await bench.run(["true"], { processId });
  await expect(bench.processes.get(keyOf("a"))).rejects.toThrow(/no process/);
  expect(await exitOf("c")).toMatchObject({ exitCode: 0 });
  await becomes("all are forgotten", () => kept().length === 0, 5_000);
  await expect(bench.processes.get(keyOf("c"))).rejects.toThrow(/no process/);
});
