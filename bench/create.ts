// How long a create takes, one alone and fifty at once, against the engine's own create and start.

import type { BareEngine } from "./bare-engine.ts";
import { parallel } from "./parallel.ts";
import { percentile, type Result, resultOf } from "./result.ts";
import type { Sandboxes } from "./sandboxes.ts";

const warmUps = 2;
const burstSize = 50;
const burstRounds = 5;

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

/** Fifty creates asked at once, until the last one runs, against fifty on the engine at its best concurrency. */
export async function measureBurst(sandboxes: Sandboxes, bare: BareEngine): Promise<readonly Result[]> {
  const items = Array.from({ length: burstSize });
  const ours: number[] = [];
  const theirs = new Map(bareConcurrencies.map((width) => [width, [] as number[]]));
  const turns = [
    async () => void ours.push(await timed(() => parallel(items, burstSize, () => sandboxes.create()))),
    ...[...theirs].map(
      ([width, totals]) =>
        async () =>
          void totals.push(await timed(() => parallel(items, width, () => bare.create()))),
    ),
  ];
  for (let round = 0; round < burstRounds; round += 1) {
    // each round begins with another one, so that none always has the fresh engine
    for (const turn of [...turns.slice(round), ...turns.slice(0, round)]) {
      await turn();
      await sandboxes.removeAll();
      await bare.removeAll();
    }
  }
  const best = [...theirs.values()].reduce((a, b) => (percentile(a, 0.5) <= percentile(b, 0.5) ? a : b));
  const goal = { of: "ratio", atMost: 1.05 } as const;
  return [resultOf({ name: "burst", unit: "ms", values: ours, baseline: best, goal })];
}

/** Milliseconds that it takes. */
async function timed(run: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await run();
  return performance.now() - began;
}
