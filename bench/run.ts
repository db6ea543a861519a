// Which benchmarks there are, and telling what they found.

import { parseArgs } from "node:util";
import { measureAdmission } from "./admission.ts";
import { measureExitLatency, measureUnary } from "./calls.ts";
import { measureBurst, measureCreate } from "./create.ts";
import { measureFleet } from "./fleet.ts";
import { insideNames, measureInside } from "./inside.ts";
import { measureNetwork } from "./network.ts";
import { measurePorts } from "./ports.ts";
import { type Result, tableOf } from "./result.ts";
import { startSandboxes } from "./sandboxes.ts";
import { measureSoak } from "./soak.ts";
import { measureWorkspaces } from "./workspace.ts";

/** With a few sandboxes at a time; the others need a fleet. */
const single = ["unary", "create", "exit-latency", "burst"] as const;
const fleet = ["sampling", "footprint", "restart"] as const;
const usual: readonly string[] = [
  ...single,
  "admission",
  "workspace",
  "network",
  "ports",
  ...insideNames,
  ...fleet,
];
/** Takes hours, so it is measured only when it is named. */
const names: readonly string[] = [...usual, "soak"];

const usage = `Usage: npm run bench -- [${names.join("|")}]... [--json] [--runs N] [--minutes N]`;

/**
 * Runs the benchmarks that the arguments name, all of them if none. Resolves to the exit status: 0 when everything was
 * measured, whether or not it met its goal; 2 for arguments that make no sense.
 */
export async function runBenchmarks(args: readonly string[]): Promise<number> {
  const { values: options, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      json: { type: "boolean", default: false },
      // how often a create and a death are measured
      runs: { type: "string", default: "30" },
      // how long a soak is
      minutes: { type: "string", default: "120" },
    },
  });
  const [runs, minutes] = [Number(options.runs), Number(options.minutes)];
  const isNumber = (value: number) => Number.isInteger(value) && value > 0;
  if (positionals.some((name) => !names.includes(name)) || !isNumber(runs) || !isNumber(minutes)) {
    console.error(usage);
    return 2;
  }
  const wanted: ReadonlySet<string> = new Set(positionals.length > 0 ? positionals : usual);
  const results: Result[] = [];
  for await (const result of measure(wanted, runs, minutes)) {
    results.push(result);
    if (options.json) console.log(JSON.stringify(result));
  }
  if (!options.json) console.log(tableOf(results));
  return 0;
}

async function* measure(wanted: ReadonlySet<string>, runs: number, minutes: number): AsyncGenerator<Result> {
  if (single.some((name) => wanted.has(name))) yield* measureSingle(wanted, runs);
  if (wanted.has("admission")) yield await measureAdmission(runs * 30);
  if (wanted.has("workspace")) yield* measureWorkspaces(runs);
  if (wanted.has("network")) yield* measureNetwork(runs);
  if (wanted.has("ports")) yield* measurePorts(runs);
  if (insideNames.some((name) => wanted.has(name))) yield* measureInside(wanted, runs);
  if (fleet.some((name) => wanted.has(name))) yield* measureFleet(wanted);
  if (wanted.has("soak")) yield* measureSoak(minutes);
}

async function* measureSingle(wanted: ReadonlySet<string>, runs: number): AsyncGenerator<Result> {
  const sandboxes = await startSandboxes();
  try {
    const bare = await sandboxes.openBareEngine();
    try {
      if (wanted.has("unary")) yield* await measureUnary(sandboxes, bare, runs * 30);
      if (wanted.has("create")) yield* await measureCreate(sandboxes, bare, runs);
      if (wanted.has("exit-latency")) yield* await measureExitLatency(sandboxes, bare, runs);
      if (wanted.has("burst")) yield* await measureBurst(sandboxes, bare);
    } finally {
      await bare.removeAll();
      bare.close();
    }
  } finally {
    await sandboxes.close();
  }
}
