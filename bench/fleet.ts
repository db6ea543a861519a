// What hundreds of sandboxes that run cost: CPU per sample, memory, and the time of a restart.

import { setTimeout as sleep } from "node:timers/promises";
import { sharedEngine } from "../test/harness/engine.ts";
import { startDevScheduler } from "./dev-scheduler.ts";
import { streamEngineStats } from "./engine-stats.ts";
import { cpuMicros, engineProcesses, residentBytes } from "./process-usage.ts";
import { type Result, resultOf } from "./result.ts";
import { type Sandboxes, startSandboxes } from "./sandboxes.ts";

const small = 100;
const large = 200;

/** What the daemon does every 30 s, sandboxes or none (comparing itself with the engine, the groups), is in each count of CPU once. */
const windowMs = 30_000;

/** After a change of load, until what came with it is over: compiling, first samples, and the collector's work on what it left. */
const settleMs = 40_000;

/** The same of the engine's streams. */
const streamSettleMs = 8_000;

const restarts = 5;

/** Measures those that are wanted, on one fleet that grows. */
export async function* measureFleet(wanted: ReadonlySet<string>): AsyncGenerator<Result> {
  const scheduler = await startDevScheduler();
  const sandboxes = await startSandboxes({ config: { scheduler: { endpoints: [scheduler.url] } } });
  try {
    const idle = wanted.has("sampling") ? await daemonCpu(sandboxes) : 0;
    if (wanted.has("sampling")) {
      await sandboxes.createMany(small);
      yield* await measureSampling(sandboxes, idle);
    }
    await sandboxes.createMany(large - (wanted.has("sampling") ? small : 0));
    if (wanted.has("sampling")) {
      const values = [await microsPerSample(sandboxes, large, idle)];
      yield resultOf({ name: "sampling-200", unit: "us", values, goal: { of: "p50", atMost: 70 } });
    }
    if (wanted.has("footprint")) {
      await sleep(settleMs);
      const values = [residentBytes(pidOf(sandboxes)) / 1e6];
      yield resultOf({ name: "footprint", unit: "MB", values, goal: { of: "p50", atMost: 120 } });
    }
    if (wanted.has("restart")) yield await measureRestart(sandboxes);
  } finally {
    await sandboxes.close();
    await scheduler.close();
  }
}

/** The daemon's cost of a sample, its report to the scheduler included, and that of the engine's stream of the same. */
async function measureSampling(sandboxes: Sandboxes, idle: number): Promise<readonly Result[]> {
  const engine = engineProcesses(sharedEngine());
  const look = () => ({ ms: performance.now(), all: cpuMicros(engine) });
  const ours = [await microsPerSample(sandboxes, small, idle)];
  const quiet = usageBetween(look(), await after(streamSettleMs, look));

  const { sandboxes: listed } = await sandboxes.client.listSandboxes({ pageSize: small });
  const stats = await streamEngineStats(
    sharedEngine(),
    listed.map(({ status }) => status?.containerId ?? ""),
  );
  try {
    await sleep(streamSettleMs);
    const before = stats.count();
    const busy = usageBetween(look(), await after(windowMs, look));
    const samplesPerMs = (stats.count() - before) / windowMs;
    const common = { unit: "us", values: ours, inverse: true } as const;
    const whole = [(busy - quiet) / samplesPerMs];
    const ratio = { of: "ratio", atLeast: 30 } as const;
    return [
      resultOf({ name: "sampling", ...common, baseline: whole, goal: { of: "p50", atMost: 70 } }),
      resultOf({ name: "sampling-ratio", ...common, baseline: whole, goal: ratio }),
    ];
  } finally {
    stats.close();
  }
}

interface Usage {
  readonly ms: number;
  readonly all: number;
}

/** Microseconds of CPU in a millisecond. */
function usageBetween(before: Usage, now: Usage): number {
  return (now.all - before.all) / (now.ms - before.ms);
}

async function after<T>(ms: number, look: () => T): Promise<T> {
  await sleep(ms);
  return look();
}

/** CPU of the daemon beyond that of an idle one, per sandbox and sample that it has really taken. */
async function microsPerSample(sandboxes: Sandboxes, count: number, idle: number): Promise<number> {
  const perMs = await daemonCpu(sandboxes);
  const { sandboxes: listed } = await sandboxes.client.listSandboxes({ pageSize: 1 });
  const window = { seconds: BigInt(windowMs / 1_000), nanos: 0 };
  const { summary } = await sandboxes.client.getSandboxStats({
    sandboxId: listed[0]?.sandboxId ?? "",
    window,
  });
  const coveredMs = Number(summary?.window?.seconds) * 1_000 + Number(summary?.window?.nanos) / 1e6;
  // the window reaches from the first sample to the last
  const samplesPerMs = (Number(summary?.samples) - 1) / coveredMs;
  return (perMs - idle) / (samplesPerMs * count);
}

/** Microseconds of CPU that the daemon uses in a millisecond. */
async function daemonCpu(sandboxes: Sandboxes): Promise<number> {
  await sleep(settleMs);
  const pid = pidOf(sandboxes);
  const [began, cpu] = [performance.now(), cpuMicros([pid])];
  await sleep(windowMs);
  return (cpuMicros([pid]) - cpu) / (performance.now() - began);
}

/** From the start of the process until its health says that it serves, every sandbox adopted. */
async function measureRestart({ daemon }: Sandboxes): Promise<Result> {
  const values: number[] = [];
  for (let run = 0; run < restarts; run += 1) {
    await daemon.stop();
    const began = performance.now();
    await daemon.start();
    values.push(performance.now() - began);
  }
  return resultOf({ name: "restart", unit: "ms", values, goal: { of: "p50", atMost: 1_500 } });
}

function pidOf({ daemon }: Sandboxes): number {
  const pid = daemon.pid();
  if (pid === undefined) throw new Error("the daemon does not run");
  return pid;
}
