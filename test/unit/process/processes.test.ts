// What callers are promised of processes, on a real toolbox of this machine: events, ends, input, signals, bounds.

import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import type { Told } from "../../../src/process/watcher.ts";
import { openStore, type Store } from "../../../src/store/store.ts";
import { stateDirectoryOf } from "./directory.ts";
import { type Bench, openBench, requestOf, sandboxId } from "./fixture.ts";

const state = stateDirectoryOf();
let store: Store;
let bench: Bench;
beforeAll(async () => {
  store = openStore({ directory: state.path, eventRetention: { count: 1_000, ageMs: 1e12 } });
  bench = await openBench(store, { maxRunning: 8 });
});
afterAll(async () => {
  await bench?.close();
  store?.close();
  state.remove();
});

const sh = (script: string) => ["sh", "-c", script];
const attending = () => ({ signal: new AbortController().signal });
const keyOf = (processId: string) => ({ sandboxId, processId });
const send = (processId: string, text: string, change: { offset?: number; closes?: boolean } = {}) =>
  bench.processes.sendInput(
    { ...keyOf(processId), data: Buffer.from(text), closes: false, ...change },
    attending(),
  );

async function errorOf(promise: Promise<unknown>): Promise<SandboxdError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof SandboxdError) return error;
    throw error;
  }
  throw new Error("it succeeded");
}

test("tells the start, the output of both streams, and the end, each with the next number", async () => {
  const { told, exit, stdout, stderr } = await bench.run(sh("echo out; sleep 0.05; echo err >&2; exit 3"));
  expect(told.map(({ kind, sequence }) => [kind, sequence])).toEqual([
    ["started", 1],
    ["output", 2],
    ["output", 3],
    ["exited", 4],
  ]);
  expect([stdout, stderr]).toEqual(["out\n", "err\n"]);
  expect(exit).toMatchObject({ exitCode: 3, signal: 0, oomKilled: false, cause: "SELF" });
  expect(exit.durationUs).toBeGreaterThan(50_000);
  const [started] = told;
  if (started?.kind !== "started") throw new Error("no start");
  expect(started.process.record).toMatchObject({
    state: "RUNNING",
    command: sh("echo out; sleep 0.05; echo err >&2; exit 3"),
  });
  expect(started.process.pid).toBeGreaterThan(0);
});

test("an end by a signal has 128 and its number, whoever sent it", async () => {
  const own = await bench.run(sh("kill -USR1 $$"));
  expect(own.exit).toMatchObject({ exitCode: 138, signal: 10, cause: "SELF" });
  const stream = await bench.start(["sleep", "60"]);
  await bench.processes.signal(keyOf(stream.processId), "SIGINT", "PROCESS", attending());
  expect((await stream.rest()).exit).toMatchObject({ exitCode: 130, signal: 2, cause: "SIGNALED" });
});

test("a timeout ends it with SIGTERM, and what does not listen with SIGKILL", async () => {
  const { exit } = await bench.run(["sleep", "60"], { timeoutMs: 50 });
  expect(exit).toMatchObject({ exitCode: 143, cause: "TIMEOUT" });
  const deaf = await bench.run(sh("trap '' TERM; while :; do sleep 0.01; done"), {
    timeoutMs: 50,
    killGraceMs: 50,
  });
  expect(deaf.exit).toMatchObject({ exitCode: 137, signal: 9, cause: "TIMEOUT", oomKilled: false });
});

test("killed by nobody known, while the sandbox ran out of memory, it was out of memory", async () => {
  const stream = await bench.start(sh("sleep 0.05; kill -KILL $$"));
  bench.oomKills += 1;
  expect((await stream.rest()).exit).toMatchObject({
    exitCode: 137,
    signal: 9,
    oomKilled: true,
    cause: "SELF",
  });
  expect((await bench.run(sh("kill -KILL $$"))).exit, "that was before").toMatchObject({ oomKilled: false });
  const asked = await bench.start(["sleep", "60"]);
  bench.oomKills += 1;
  await bench.processes.signal(keyOf(asked.processId), "KILL", "GROUP", attending());
  expect((await asked.rest()).exit).toMatchObject({ signal: 9, oomKilled: false, cause: "SIGNALED" });
});

test.each([
  [
    "an executable that is not there",
    ["no-such-program"],
    { env: { PATH: "/usr/bin:/bin" } },
    "COMMAND_UNUSABLE",
    /"no-such-program".*ENOENT/,
  ],
  ["one that may not be executed", ["/etc/passwd"], {}, "COMMAND_UNUSABLE", /EACCES/],
  ["a directory as one", ["/tmp"], {}, "COMMAND_UNUSABLE", /EACCES/],
  [
    "a directory that is not there",
    ["true"],
    { workingDir: "/nowhere" },
    "FILE_NOT_FOUND",
    /working_dir: "\/nowhere"/,
  ],
  ["a file as directory", ["true"], { workingDir: "/etc/passwd" }, "FILE_WRONG_TYPE", /working_dir/],
  ["a directory of another user's", ["true"], { workingDir: "/root" }, "FILE_NOT_ALLOWED", /working_dir/],
])("refuses %s, and keeps nothing of it", async (_what, command, change, reason, message) => {
  const error = await errorOf(bench.start(command, { ...change, processId: "refused" }));
  expect([error.reason, error.message]).toEqual([reason, expect.stringMatching(message)]);
  await expect(bench.processes.get(keyOf("refused"))).rejects.toThrow(/no process/);
  expect(store.processDocuments().some((document) => document.includes('"refused"'))).toBe(false);
});

test("the environment is laid over that of the sandbox", async () => {
  const { stdout } = await bench.run(sh("echo $A $OF_SERVER $HOME"), {
    env: { A: "mine", HOME: "/elsewhere" },
  });
  expect(stdout).toBe("mine yes /elsewhere\n");
});

test("the same request again is the same process; another under its id is refused", async () => {
  const change = { processId: "twice" };
  const [first, second] = await Promise.all([
    bench.start(sh("echo $$; sleep 0.2"), change),
    bench.start(sh("echo $$; sleep 0.2"), change),
  ]);
  const [one, other] = await Promise.all([first.rest(), second.rest()]);
  expect(one.stdout).toMatch(/^\d+\n$/);
  expect(other.stdout).toBe(one.stdout);
  const later = await bench.run(sh("echo $$; sleep 0.2"), change);
  expect(later.told.map(({ kind }) => kind)).toEqual(["started", "output", "exited"]);
  expect(later.exit).toEqual(one.exit);
  const error = await errorOf(bench.start(["true"], change));
  expect(error).toMatchObject({
    reason: "PROCESS_ALREADY_EXISTS",
    details: { metadata: { process_id: "twice" } },
  });
});

test("no more run at once than the host allows; ended ones do not count", async () => {
  const streams = await Promise.all(Array.from({ length: 8 }, () => bench.start(["sleep", "60"])));
  const error = await errorOf(bench.start(["true"]));
  expect(error).toMatchObject({
    reason: "PROCESS_LIMIT_REACHED",
    details: {
      quotas: [{ level: "SANDBOX", resource: "processes", limit: 8, promised: 8, asked: 1, free: 0 }],
    },
  });
  for (const { processId } of streams) {
    await bench.processes.signal(keyOf(processId), "TERM", "GROUP", attending());
  }
  await Promise.all(streams.map((stream) => stream.rest()));
  expect((await bench.run(["true"])).exit.exitCode).toBe(0);
});

test("whoever connects resumes from any event without losing or doubling a byte", async () => {
  const stream = await bench.start(sh("for i in 1 2 3 4 5 6; do echo $i; sleep 0.02; done"));
  const { told } = await stream.rest();
  const outputs = told.filter((one) => one.kind === "output");
  expect(outputs.length).toBeGreaterThan(3);
  for (let after = 0; after <= outputs.length + 2; after++) {
    const rest = await (await bench.connect(stream.processId, after)).rest();
    const missed = outputs.filter(({ sequence }) => sequence > after);
    expect(rest.stdout).toBe(Buffer.concat(missed.map(({ data }) => data)).toString());
    expect(rest.told[0]?.kind).toBe(after === 0 ? "started" : missed.length > 0 ? "output" : "exited");
    expect(rest.told.at(-1)?.sequence).toBe(told.at(-1)?.sequence);
    // what was there already comes in one piece, with the number of its last event
    if (missed.length > 0) expect(rest.told.at(-2)?.sequence).toBe(outputs.at(-1)?.sequence);
  }
  const error = await errorOf(bench.connect(stream.processId, 1_000));
  expect(error).toMatchObject({ reason: "SEQUENCE_TRUNCATED" });
});

/** What a stream told of output: bytes seen, and bytes said to be missing. */
function sumOf(told: readonly Told[]) {
  let [seen, dropped] = [0, 0];
  for (const one of told) {
    if (one.kind === "output") seen += one.data.length;
    if (one.kind === "gap") dropped += one.droppedBytes;
  }
  return { seen, dropped };
}

test("a reader that does not read holds up neither the program nor other readers, and is told what it missed", async () => {
  const size = 8_000_000;
  const slow = await bench.start(sh(`sleep 0.2; head -c ${size} /dev/zero; echo`), { retainedBytes: 65_536 });
  await slow.next();
  const fast = await bench.connect(slow.processId);
  const all = await fast.rest();
  expect(all.exit.exitCode).toBe(0);
  const late = await slow.rest();
  const { seen, dropped } = sumOf(late.told);
  expect(dropped).toBeGreaterThan(0);
  expect(seen + dropped).toBe(size + 1);
  expect(sumOf(all.told).seen).toBeGreaterThan(seen);
  const gap = late.told.find(({ kind }) => kind === "gap");
  const after = late.told[late.told.findIndex(({ kind }) => kind === "gap") + 1];
  if (gap?.kind !== "gap" || after === undefined) throw new Error("no gap");
  expect(gap.sequence, "it carries the number of the event before").toBe(1);
  expect(after.sequence).toBeGreaterThanOrEqual(gap.nextSequence);
  const view = await bench.processes.get(keyOf(slow.processId));
  expect(view).toMatchObject({ outputBytes: size + 1, watchers: 0 });
  expect(view.droppedBytes).toBeGreaterThanOrEqual(size - 65_536 - 65_536);
  const again = await (await bench.connect(slow.processId)).rest();
  expect(sumOf(again.told).seen + sumOf(again.told).dropped).toBe(size + 1);
});

test("in the mode WAIT the program is held back while a stream is behind, and no byte is lost", async () => {
  const size = 6_000_000;
  const change = { waits: true, retainedBytes: 65_536 };
  const stream = await bench.start(sh(`head -c ${size} /dev/zero`), change);
  await stream.next();
  await sleep(300);
  const view = await bench.processes.get(keyOf(stream.processId));
  expect(view.record.exit).toBeUndefined();
  expect(view.outputBytes).toBeLessThan(1_000_000);
  const { told } = await stream.rest();
  expect(sumOf(told)).toEqual({ seen: size, dropped: 0 });
});

test("in the mode WAIT nothing waits for nobody, and for no stream longer than was asked", async () => {
  const size = 4_000_000;
  const change = { waits: true, retainedBytes: 65_536, maxWaitMs: 200 };
  const left = await bench.start(sh(`sleep 0.1; head -c ${size} /dev/zero`), change);
  left.leave();
  await expect
    .poll(async () => (await bench.processes.get(keyOf(left.processId))).record.exit?.exitCode)
    .toBe(0);
  const stream = await bench.start(sh(`head -c ${size} /dev/zero`), change);
  await stream.next();
  await expect
    .poll(async () => (await bench.processes.get(keyOf(stream.processId))).record.exit?.exitCode, {
      timeout: 20_000,
    })
    .toBe(0);
  const { seen, dropped } = sumOf((await stream.rest()).told);
  expect(dropped).toBeGreaterThan(0);
  expect(seen + dropped).toBe(size);
});

test("input goes in, in order, and its end too; what was not asked for is closed", async () => {
  const stream = await bench.start(["cat"], { hasInput: true });
  expect(await send(stream.processId, "hello ")).toBe(6);
  expect(await send(stream.processId, "hello world", { offset: 0 })).toBe(11);
  expect((await errorOf(send(stream.processId, "x", { offset: 20 }))).reason).toBe("INPUT_OUT_OF_ORDER");
  expect(await bench.processes.get(keyOf(stream.processId))).toMatchObject({
    inputOffset: 11,
    isInputOpen: true,
  });
  await bench.processes.closeInput(keyOf(stream.processId), attending());
  await bench.processes.closeInput(keyOf(stream.processId), attending());
  expect((await errorOf(send(stream.processId, "x"))).reason).toBe("INVALID_STATE");
  const { stdout, exit } = await stream.rest();
  expect([stdout, exit.exitCode]).toEqual(["hello world", 0]);
  const closed = await bench.start(sh("cat; sleep 60"));
  expect((await errorOf(send(closed.processId, "x"))).reason).toBe("INVALID_STATE");
  await bench.processes.signal(keyOf(closed.processId), "KILL", "TREE", attending());
  await closed.rest();
  expect((await errorOf(send(closed.processId, "x"))).message).toMatch(/has ended/);
});

test("input that is not read is accepted as far as it fits, and what was is known at the deadline", async () => {
  const stream = await bench.start(sh("sleep 0.3; head -c 2000000 | wc -c"), { hasInput: true });
  const data = Buffer.alloc(1_000_000, "x");
  const abort = AbortSignal.timeout(100);
  const request = { ...keyOf(stream.processId), data, offset: 0, closes: false };
  await expect(bench.processes.sendInput(request, { signal: abort })).rejects.toThrow(/timeout/);
  const { inputOffset } = await bench.processes.get(keyOf(stream.processId));
  expect(inputOffset).toBeGreaterThan(0);
  expect(inputOffset).toBeLessThan(1_000_000);
  expect(await bench.processes.sendInput(request, attending())).toBe(1_000_000);
  expect(await bench.processes.sendInput({ ...request, offset: 1_000_000, closes: true }, attending())).toBe(
    2_000_000,
  );
  expect((await stream.rest()).stdout.trim()).toBe("2000000");
});

test("a terminal has the size asked for, and gets another", async () => {
  const change = { terminal: { rows: 30, columns: 100 } };
  const stream = await bench.start(sh("stty size; read line; stty size; echo $TERM $line"), change);
  await stream.shows("30 100");
  await bench.processes.resize(keyOf(stream.processId), { rows: 40, columns: 120 }, attending());
  expect((await errorOf(bench.processes.closeInput(keyOf(stream.processId), attending()))).reason).toBe(
    "INVALID_STATE",
  );
  await send(stream.processId, "é!\n");
  const { terminal } = await stream.rest();
  expect(terminal).toContain("40 120\r\nxterm-256color é!\r\n");
  const plain = await bench.start(["sleep", "60"]);
  const error = await errorOf(
    bench.processes.resize(keyOf(plain.processId), { rows: 1, columns: 1 }, attending()),
  );
  expect(error.reason).toBe("INVALID_STATE");
  await bench.processes.signal(keyOf(plain.processId), "TERM", "PROCESS", attending());
  await plain.rest();
});

test("Ctrl-C reaches the program in the foreground of a terminal", async () => {
  const stream = await bench.start(
    sh("trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.02; done"),
    {
      terminal: { rows: 0, columns: 0 },
    },
  );
  await stream.shows("ready");
  await send(stream.processId, "\u0003");
  expect((await stream.rest()).terminal).toContain("caught");
});

test("a signal goes to the process alone, to its group, or to all that it started", async () => {
  const script = "trap '' TERM; setsid sleep 61 & sleep 62 & echo ready; wait; wait";
  const stream = await bench.start(sh(script));
  await stream.shows("ready");
  const sleepers = () => bench.toolbox.processes().length;
  const before = sleepers();
  await bench.processes.signal(keyOf(stream.processId), "USR2", "PROCESS", attending());
  expect((await stream.rest()).exit).toMatchObject({ signal: 12 });
  expect(before - sleepers(), "its children go on").toBeLessThanOrEqual(2);
  const whole = await bench.start(sh("trap 'exit 5' TERM; setsid sleep 63 & echo ready; wait"));
  await whole.shows("ready");
  await bench.processes.signal(keyOf(whole.processId), "TERM", "TREE", attending());
  expect((await whole.rest()).exit).toMatchObject({ exitCode: 5, signal: 0, cause: "SELF" });
});

test("a stream with nothing to tell says so from time to time, with the number of the event before", async () => {
  const stream = await bench.start(sh("echo x; sleep 0.7"), { keepaliveMs: 200 });
  const { told } = await stream.rest();
  const alive = told.filter(({ kind }) => kind === "keepalive");
  expect(alive.length).toBeGreaterThanOrEqual(1);
  expect(new Set(alive.map(({ sequence }) => sequence))).toEqual(new Set([2]));
});

test("a process ends after its last stream only if that was asked for, and not while another reads", async () => {
  const kept = await bench.start(["sleep", "60"]);
  const tied = await bench.start(["sleep", "60"], { killsOnDisconnect: true });
  const shared = await bench.start(["sleep", "60"], { killsOnDisconnect: true });
  const other = await bench.connect(shared.processId);
  await other.next();
  for (const stream of [kept, tied, shared]) stream.leave();
  await expect
    .poll(async () => (await bench.processes.get(keyOf(tied.processId))).record.exit, { timeout: 10_000 })
    .toMatchObject({ exitCode: 143, cause: "DISCONNECTED" });
  expect((await bench.processes.get(keyOf(kept.processId))).record.exit).toBeUndefined();
  expect((await bench.processes.get(keyOf(shared.processId))).record.exit).toBeUndefined();
  for (const { processId } of [kept, shared]) {
    await bench.processes.signal(keyOf(processId), "KILL", "GROUP", attending());
  }
  await other.rest();
});

test("a daemon that stops ends streams, not processes that are tied to them", async () => {
  const stream = await bench.start(["sleep", "60"], { killsOnDisconnect: true });
  stream.leave(new SandboxdError("SHUTTING_DOWN", "stopping"));
  await sleep(800);
  expect((await bench.processes.get(keyOf(stream.processId))).record.exit).toBeUndefined();
  await bench.processes.signal(keyOf(stream.processId), "KILL", "GROUP", attending());
});

test("what is unknown is not found", async () => {
  const unknown = [
    bench.connect("never-was"),
    send("never-was", "x"),
    bench.processes.signal(keyOf("never-was"), "TERM", "GROUP", attending()),
    bench.processes.resize(keyOf("never-was"), { rows: 1, columns: 1 }, attending()),
  ];
  for (const one of unknown) expect((await errorOf(one)).reason).toBe("PROCESS_NOT_FOUND");
  const elsewhere = { ...requestOf(["true"]), sandboxId: "never-was" };
  expect((await errorOf(bench.processes.start(elsewhere, attending()))).reason).toBe("SANDBOX_NOT_FOUND");
  await expect(bench.processes.list("never-was", { includeOthers: false })).rejects.toThrow(/no sandbox/);
});

test("secrets of the environment and of the input are in neither the state nor the log nor an error", async () => {
  const stream = await bench.start(["cat"], {
    hasInput: true,
    env: { TOKEN: "hunter2-secret" },
    processId: "secretive",
  });
  await send(stream.processId, "typed-secret", { closes: true });
  await stream.rest();
  const text = store.processDocuments().join() + bench.logs();
  expect(text).toContain("secretive");
  expect(text).not.toMatch(/hunter2|typed-secret/);
});

test("the end is on disk before it is told", async () => {
  const { exit } = await bench.run(["true"], { processId: "kept" });
  const document = store.processDocuments().find((one) => one.includes('"kept"'));
  expect(JSON.parse(document ?? "{}")).toMatchObject({ state: "EXITED", exit });
});
