// What it costs to work inside of a sandbox: commands, terminals, output and files, against the bare engine's exec.

import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { FilesystemService } from "../gen/sandboxd/v1/filesystem_service_pb.ts";
import { OutputMode, ProcessService } from "../gen/sandboxd/v1/process_service_pb.ts";
import { createConnection } from "../src/cli/ctl/connection.ts";
import { openBareExec } from "./bare-exec.ts";
import { measureFiles } from "./files.ts";
import { assertRead, type Inside, inTurn, megabytesPerSecond, warmUps } from "./in-turn.ts";
import { residentBytes } from "./process-usage.ts";
import { type Result, resultOf } from "./result.ts";
import { type Sandboxes, spec, startSandboxes } from "./sandboxes.ts";

const mebibyte = 1_024 ** 2;

/** What all of it is done in: with room for what is measured. */
const roomy = {
  ...spec,
  resources: {
    cpuMillis: 2_000n,
    memoryBytes: BigInt(768 * mebibyte),
    pids: 512n,
    tmpfsBytes: BigInt(400 * mebibyte),
    tmpfsInodes: 20_000n,
  },
};

export const insideNames = ["exec", "throughput", "files"] as const;

/** Those of `insideNames` that are wanted. */
export async function* measureInside(wanted: ReadonlySet<string>, runs: number): AsyncGenerator<Result> {
  const sandboxes = await startSandboxes();
  const { socketPath: path } = sandboxes.daemon;
  // as sandboxctl reads
  const connection = createConnection({ kind: "unix", name: "bench", path });
  const session = connectHttp2("http://sandboxd", {
    createConnection: () => connect(sandboxes.daemon.socketPath),
  });
  try {
    const { sandbox } = await sandboxes.client.createSandbox({
      tenant: "bench",
      sandboxId: "inside",
      spec: roomy,
    });
    const { containerId = "", uid = 0n } = sandbox?.status ?? {};
    const inside: Inside = {
      sandboxId: "inside",
      processes: connection.client(ProcessService),
      files: connection.client(FilesystemService),
      session,
      bare: openBareExec(containerId, `${uid}:${uid}`),
    };
    if (wanted.has("exec")) {
      yield* await measureExec(inside, runs);
      yield* await measureKeystrokes(inside);
    }
    if (wanted.has("throughput")) yield await measureThroughput(inside);
    if (wanted.has("files")) yield* await measureFiles(inside, runs);
    if (wanted.has("exec")) yield await measureAttached(sandboxes);
  } finally {
    session.destroy();
    await sandboxes.close();
  }
}

/** `true` until its exit code is known. */
async function measureExec({ sandboxId, processes, bare }: Inside, runs: number): Promise<readonly Result[]> {
  const ours = async () => {
    for await (const { event } of processes.startProcess({ sandboxId, command: ["true"] })) {
      if (event?.event.case === "exited" && event.event.value.exit?.exitCode !== 0) {
        throw new Error("true was false");
      }
    }
  };
  const { values, baseline } = await inTurn(runs, ours, async () => {
    if ((await bare.run(["true"])).exitCode !== 0) throw new Error("true was false");
  });
  const common = { unit: "ms", values, baseline } as const;
  return [
    resultOf({ name: "exec", ...common, goal: { of: "ratio", atMost: 1.05 } }),
    resultOf({ name: "exec-latency", ...common, goal: { of: "p50", atMost: 15 } }),
  ];
}

const keystrokes = 1_000;

/** A byte typed into a terminal, until its echo is read; and the same in a terminal of the engine's. */
async function measureKeystrokes({ sandboxId, processes, bare }: Inside): Promise<readonly Result[]> {
  const processId = "keys";
  const abort = new AbortController();
  const events = processes.startProcess(
    { sandboxId, processId, command: ["cat"], terminal: {}, keepalive: { seconds: 60n } },
    { signal: abort.signal },
  );
  let echoed = () => {};
  let started = () => {};
  const isStarted = new Promise<void>((resolve) => {
    started = resolve;
  });
  const reading = (async () => {
    for await (const { event } of events) {
      if (event?.event.case === "started") started();
      if (event?.event.case === "terminal") echoed();
    }
  })().catch((error: unknown) => {
    if (!abort.signal.aborted) throw error;
  });
  await isStarted;
  const values: number[] = [];
  const data = Buffer.from("x");
  for (let count = -warmUps; count < keystrokes; count += 1) {
    const echo = new Promise<void>((resolve) => {
      echoed = resolve;
    });
    const began = performance.now();
    const sent = processes.sendInput({ sandboxId, processId, data });
    await echo;
    if (count >= 0) values.push(performance.now() - began);
    await sent;
  }
  await processes.signalProcess({ sandboxId, processId, signal: "KILL" });
  await reading;
  abort.abort();
  const baseline = await bare.keystrokes(keystrokes);
  const common = { unit: "ms", values, baseline } as const;
  return [
    resultOf({ name: "exec-keystroke", ...common, goal: { of: "p50", atMost: 3 } }),
    resultOf({
      name: "exec-keystroke-p99",
      unit: "ms",
      values: percentile99(values),
      goal: { of: "p50", atMost: 15 },
    }),
  ];
}

/** As the only value, so that it is told as it is. */
function percentile99(values: readonly number[]): readonly number[] {
  const sorted = values.toSorted((a, b) => a - b);
  return [sorted[Math.ceil(sorted.length * 0.99) - 1] ?? Number.NaN];
}

const outputBytes = 512 * mebibyte;
const outputRuns = 5;

/** Half a gigabyte of a command's output, every byte of it, until the command's end is told. */
async function measureThroughput({ sandboxId, processes, bare }: Inside): Promise<Result> {
  const command = ["head", "-c", `${outputBytes}`, "/dev/zero"];
  const ours = async () => {
    let read = 0;
    const outputMode = OutputMode.WAIT;
    for await (const { event } of processes.startProcess({ sandboxId, command, outputMode })) {
      if (event?.event.case === "stdout") read += event.event.value.length;
    }
    assertRead(read, outputBytes);
  };
  const { values, baseline } = await inTurn(outputRuns, ours, async () => {
    assertRead((await bare.run(command)).outputBytes, outputBytes);
  });
  return resultOf({
    name: "throughput",
    unit: "MB/s",
    values: values.map((ms) => megabytesPerSecond(outputBytes, ms)),
    baseline: baseline.map((ms) => megabytesPerSecond(outputBytes, ms)),
    goal: { of: "ratio", atLeast: 0.8 },
  });
}

const idleSandboxes = 4;
const idleProcesses = 200;

/** Memory of the daemon for processes that do nothing, each with a stream that reads it. */
async function measureAttached({ client, daemon }: Sandboxes): Promise<Result> {
  const processes = daemon.client(ProcessService);
  const ids = Array.from({ length: idleSandboxes }, (_, index) => `idle-${index}`);
  for (const sandboxId of ids) await client.createSandbox({ tenant: "bench", sandboxId, spec: roomy });
  // what the first of them loads is not theirs
  for (const sandboxId of ids) {
    for await (const _ of processes.startProcess({ sandboxId, command: ["true"] }));
  }
  const resident = () => residentBytes(daemon.pid() ?? 0) / 1e6;
  await sleep(5_000);
  const before = resident();
  const abort = new AbortController();
  const reading = Array.from({ length: idleProcesses }, async (_, index) => {
    const sandboxId = ids[index % idleSandboxes] ?? "";
    const request = { sandboxId, command: ["sleep", "1000"], input: true };
    try {
      for await (const _ of processes.startProcess(request, { signal: abort.signal }));
    } catch (error) {
      if (!abort.signal.aborted) throw error;
    }
  });
  await sleep(10_000);
  const values = [resident() - before];
  abort.abort();
  await Promise.all(reading);
  for (const sandboxId of ids) await client.deleteSandbox({ sandboxId });
  return resultOf({ name: "exec-attached", unit: "MB", values, goal: { of: "p50", atMost: 30 } });
}
