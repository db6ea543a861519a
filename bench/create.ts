// How long a create takes, one alone and fifty at once, against the engine's own create and start.

import type { BareEngine } from "./bare-engine.ts";
import { parallel } from "./parallel.ts";
import { type Result, resultOf } from "./result.ts";
import type { Sandboxes } from "./sandboxes.ts";

const warmUps = 2;
const burstSize = 50;
const burstRounds = 8;

/** The engine is best somewhere between these, depending on the cores; the daemon is held to the best. */
const bareConcurrencies = [2, 4, 8] as const;

/** Milliseconds of one create at a time, in turn with the baseline. */
export async function createTurns(
  sandboxes: Sandboxes,
  bare: BareEngine,
  runs: number,
): Promise<{ readonly values: readonly number[]; readonly baseline: readonly number[] }> {
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let run = -warmUps; run < runs; run += 1) {
    const turns = [
      async () => void ours.push(await timed(() => sandboxes.create())),
      async () => void theirs.push(await timed(() => bare.create())),
    ];
    for (const turn of run % 2 === 0 ? turns : turns.toReversed()) await turn();
    await sandboxes.removeAll();
    await bare.removeAll();
  }
  return { values: ours.slice(warmUps), baseline: theirs.slice(warmUps) };
}

export async function measureCreate(
  sandboxes: Sandboxes,
  bare: BareEngine,
  runs: number,
): Promise<readonly Result[]> {
  const { values, baseline } = await createTurns(sandboxes, bare, runs);
  return [
    resultOf({ name: "create", unit: "ms", values, baseline, goal: { of: "ratio", atMost: 1.05 } }),
    resultOf({
      name: "create-p95",
      unit: "ms",
      values,
      baseline,
      compared: 0.95,
      goal: { of: "ratio", atMost: 1.15 },
    }),
  ];
}

/**
 * Fifty creates asked at once, until the last one runs, against fifty on the engine at its best concurrency. Which that is, is found out
 * beforehand: the least of several figures that waver is less than any of them is, measured again.
 */
export async function measureBurst(sandboxes: Sandboxes, bare: BareEngine): Promise<readonly Result[]> {
  const items = Array.from({ length: burstSize });
  const burst = async (create: () => Promise<unknown>, width: number) => {
    const ms = await timed(() => parallel(items, width, create));
    await sandboxes.removeAll();
    await bare.removeAll();
    return ms;
  };
  const onEngine = (width: number) => burst(() => bare.create(), width);
  // the first of all does not count
  await burst(() => sandboxes.create(), burstSize);
  const trials: { readonly width: number; readonly ms: number }[] = [];
  for (const width of [...bareConcurrencies, ...bareConcurrencies.toReversed()]) {
    trials.push({ width, ms: await onEngine(width) });
  }
  const total = (wanted: number) =>
    trials.filter(({ width }) => width === wanted).reduce((sum, { ms }) => sum + ms, 0);
  const best = bareConcurrencies.toSorted((a, b) => total(a) - total(b))[0] ?? bareConcurrencies[0];
  const [values, baseline] = [[] as number[], [] as number[]];
  for (let round = 0; round < burstRounds; round += 1) {
    const turns = [
      async () => void values.push(await burst(() => sandboxes.create(), burstSize)),
      async () => void baseline.push(await onEngine(best)),
    ];
    for (const turn of round % 2 === 0 ? turns : turns.toReversed()) await turn();
  }
  const goal = { of: "ratio", atMost: 1.05 } as const;
  return [resultOf({ name: "burst", unit: "ms", values, baseline, goal })];
}

/** Milliseconds that it takes. */
async function timed(run: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await run();
  return performance.now() - began;
}
