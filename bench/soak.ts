// Hours of churn on a fleet: whether memory, descriptors or timers of the daemon grow, and whether its events stay in order.

import { mkdtempSync, rmSync } from "node:fs";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import { RestartMode } from "../gen/sandboxd/v1/lifecycle_pb.ts";
import { SandboxState } from "../gen/sandboxd/v1/sandbox_pb.ts";
import { createDevScheduler } from "../src/dev-scheduler/server.ts";
import { createLog } from "../src/observe/log.ts";
import { baseImage } from "../test/harness/engine.ts";
import { type Result, resultOf } from "./result.ts";
import { resources, type Sandboxes, startSandboxes } from "./sandboxes.ts";

const fleetSize = 100;
const callers = 4;

/** From one sandbox's replacement to the next, of each caller. */
const turnMs = 5_000;

const sampleMs = 15_000;

/** Until what fills up once has filled up: histories of 300 samples, code that gets hot, caches. It is not judged. */
const warmUpShare = 0.25;

/** A turn creates a sandbox, uses another, and deletes the oldest. */
interface Counts {
  turns: number;
  failures: number;
}

interface Reading {
  readonly hours: number;
  readonly residentMB: number;
  readonly descriptors: number;
  readonly timers: number;
}

/** Churns for so long; then the slopes of a straight line through what was read (least squares), an hour. */
export async function* measureSoak(minutes: number): AsyncGenerator<Result> {
  const log = createLog({ level: "error", destination: process.stderr });
  const scheduler = await createDevScheduler({ listen: { host: "127.0.0.1", port: 0 }, log: log.pino });
  const directory = mkdtempSync(join(tmpdir(), "soak-"));
  const metricsSocket = join(directory, "metrics.sock");
  const sandboxes = await startSandboxes({
    config: {
      scheduler: { endpoints: [scheduler.url] },
      metrics: { address: `unix:${metricsSocket}` },
    },
  });
  try {
    const { daemon } = sandboxes;
    const began = performance.now();
    const isOver = () => performance.now() - began > minutes * 60_000;
    const readings: Reading[] = [];
    const counts: Counts = { turns: 0, failures: 0 };
    const churning = Promise.all(
      Array.from({ length: callers }, (_, caller) => churn(sandboxes, caller, counts, isOver)),
    );
    const watching = (async () => {
      while (!isOver()) {
        await sleep(sampleMs);
        const reading = await read(metricsSocket, (performance.now() - began) / 3_600_000);
        readings.push(reading);
        if (readings.length % 20 === 1) {
          console.error(`soak: ${JSON.stringify({ ...reading, ...counts })}`);
        }
      }
    })();
    await Promise.all([churning, watching]);
    const newest = () => scheduler.host(daemon.hostId)?.receivedSequence ?? 0;
    console.error(`soak: ${counts.turns} turns, ${counts.failures} failed, ${newest()} events`);
    const violations = scheduler.checker.violations();
    for (const violation of violations) console.error(`soak: ${JSON.stringify(violation)}`);

    const judged = readings.slice(Math.floor(readings.length * warmUpShare));
    const growth = (of: keyof Reading) => [slope(judged.map((one) => [one.hours, one[of]]))];
    const atMost = (limit: number) => ({ of: "p50", atMost: limit }) as const;
    // some 2,500 sandboxes live in an hour, and what is open wavers with how many of them run: one descriptor, timer or
    // kilobyte that each left behind would be far beyond these
    yield resultOf({ name: "soak-memory", unit: "MB/h", values: growth("residentMB"), goal: atMost(2) });
    yield resultOf({
      name: "soak-descriptors",
      unit: "1/h",
      values: growth("descriptors"),
      goal: atMost(10),
    });
    yield resultOf({ name: "soak-timers", unit: "1/h", values: growth("timers"), goal: atMost(1) });
    yield resultOf({ name: "soak-violations", unit: "1", values: [violations.length], goal: atMost(0) });
    yield resultOf({ name: "soak-failures", unit: "1", values: [counts.failures], goal: atMost(0) });
  } finally {
    await sandboxes.close();
    await scheduler.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** One caller: keeps its share of the fleet, replaces the oldest of it turn by turn, and uses the others meanwhile. */
async function churn(
  { client }: Sandboxes,
  caller: number,
  counts: Counts,
  isOver: () => boolean,
): Promise<void> {
  const alive: string[] = [];
  for (let turn = 0; !isOver(); turn += 1) {
    const due = performance.now() + turnMs;
    try {
      await takeTurn(client, alive, { caller, turn });
      counts.turns += 1;
    } catch (error) {
      counts.failures += 1;
      console.error(`soak: turn ${turn} of caller ${caller}: ${String(error)}`);
    }
    if (alive.length >= fleetSize / callers) await sleep(Math.max(0, due - performance.now()));
  }
}

async function takeTurn(
  client: Sandboxes["client"],
  alive: string[],
  { caller, turn }: { readonly caller: number; readonly turn: number },
): Promise<void> {
  const sandboxId = `soak-${caller}-${turn}`;
  await client.createSandbox({ sandboxId, tenant: `tenant-${caller}`, spec: specOf(turn) });
  alive.push(sandboxId);
  if (alive.length <= fleetSize / callers) return;

  const used = alive[turn % (alive.length - 1)] ?? sandboxId;
  const uses = [
    () => client.pauseSandbox({ sandboxId: used }).then(() => client.resumeSandbox({ sandboxId: used })),
    () => client.stopSandbox({ sandboxId: used }).then(() => client.startSandbox({ sandboxId: used })),
    () => client.updateSandbox({ sandboxId: used, resources: { cpuMillis: BigInt(400 + (turn % 100)) } }),
    () => client.explainSandbox({ sandboxId: used }),
  ];
  const state = (await client.getSandbox({ sandboxId: used })).sandbox?.status?.state;
  // one that fails by design may have ended in between
  if (state === SandboxState.RUNNING) await uses[turn % uses.length]?.().catch(unlessPrecondition);
  await client.listSandboxes({ pageSize: 50 });
  for await (const _ of client.streamLogs({ sandboxId: used, tailLines: 10 }));
  await client.deleteSandbox({ sandboxId: alive.shift() ?? "" });
}

function unlessPrecondition(error: unknown): void {
  if (ConnectError.from(error).code !== Code.FailedPrecondition) throw error;
}

/** Of each ten, one writes much, one fails and is restarted, and one has a health check; the others sleep. */
function specOf(turn: number) {
  const shell = (script: string) => ({ image: baseImage, command: ["sh", "-c", script], resources });
  const often = { seconds: 30n };
  switch (turn % 10) {
    case 3:
      return shell("while :; do date; sleep 0.2; done");
    case 6: {
      const restart = { mode: RestartMode.ON_FAILURE, delay: often, maxDelay: often, maxAttempts: 3 };
      return { ...shell("sleep 10; exit 3"), restart };
    }
    case 9: {
      const probe = { case: "exec" as const, value: { command: ["true"] } };
      return { ...shell("exec sleep 100000"), healthCheck: { probe, interval: often } };
    }
    default:
      return shell("exec sleep 100000");
  }
}

async function read(socketPath: string, hours: number): Promise<Reading> {
  const text = await textAt(socketPath);
  const figure = (name: string) =>
    Number(
      text
        .split("\n")
        .find((line) => line.startsWith(`${name} `))
        ?.slice(name.length + 1),
    );
  return {
    hours,
    residentMB: figure("process_resident_memory_bytes") / 1e6,
    descriptors: figure("process_open_fds"),
    timers: figure('nodejs_active_resources{type="Timeout"}'),
  };
}

function textAt(socketPath: string): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ socketPath, path: "/metrics" }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve(text));
    }).on("error", reject);
  });
}

/** Of the straight line nearest to the points. */
function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (at: 0 | 1) => points.reduce((sum, point) => sum + point[at], 0) / points.length;
  const [middleX, middleY] = [mean(0), mean(1)];
  const over = points.reduce((sum, [x, y]) => sum + (x - middleX) * (y - middleY), 0);
  return over / points.reduce((sum, [x]) => sum + (x - middleX) ** 2, 0);
}
