// The life of sandboxes under thousands of schedules of callers, faults and time. SANDBOXD_TEST_SEED=<seed> plays one of them
// and prints all that happens in it; SANDBOXD_TEST_SCHEDULES=<number> plays so many instead of 5,000.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { linesOf, playAll } from "./children.ts";
import { planted } from "./planted.mjs";
import type { Report } from "./run.ts";

const seed = process.env["SANDBOXD_TEST_SEED"];
const schedules = Number(process.env["SANDBOXD_TEST_SCHEDULES"] ?? 5_000);
const fresh = Math.ceil(schedules / 20);
const timeoutMs = 600_000;

/** The least that shows it, and how to see it again. */
function wordsOf(reports: readonly Report[]): string {
  return reports
    .flatMap(({ failure }) =>
      failure === undefined
        ? []
        : [
            `seed ${failure.seed}: ${failure.violation}`,
            `the ${failure.steps} steps that it takes:`,
            ...failure.trace.filter((line) => !line.includes(" asks      list")),
            `again, with everything: SANDBOXD_TEST_SEED=${failure.seed} npm test -- simulation`,
          ],
    )
    .join("\n");
}

test.runIf(seed !== undefined)("the schedule that was asked for holds", { timeout: timeoutMs }, async () => {
  const lines = await linesOf(["--from", String(seed), "--trace", "--whole"]);
  console.log(lines.slice(0, -1).join("\n"));
  expect(JSON.parse(lines.at(-1) ?? "")).toEqual({ played: 1 });
});

test.each(planted)("there is still a place for the planted defect: $name", ({ file, search }) => {
  const source = readFileSync(join(import.meta.dirname, "../..", file), "utf8");
  expect(source.split(search)).toHaveLength(2);
});

test.skipIf(seed !== undefined)("the same seed plays the same schedule, to the last event", async () => {
  const trace = (from: number) => linesOf(["--from", String(from), "--count", "5", "--trace"]);
  const [once, again, other] = await Promise.all([trace(1), trace(1), trace(6)]);
  expect(once.length).toBeGreaterThan(100);
  expect(again).toEqual(once);
  expect(other).not.toEqual(once);
});

test.skipIf(seed !== undefined)(
  "whatever callers, faults and time do, what was promised holds",
  { timeout: timeoutMs },
  async () => {
    expect(wordsOf(await playAll(1, schedules - fresh))).toBe("");
  },
);

test.skipIf(seed !== undefined)(
  "so it does for seeds that were never played",
  { timeout: timeoutMs },
  async () => {
    const from = 1_000_000 + Math.floor(Math.random() * 1_000_000_000);
    console.log(`playing the seeds ${from} to ${from + fresh - 1}`);
    expect(wordsOf(await playAll(from, fresh))).toBe("");
  },
);
