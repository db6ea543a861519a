// Plays schedules in processes of their own, as their time is not that of this one.

import { execFile } from "node:child_process";
import { join } from "node:path";
import type { Report } from "./run.ts";

const program = join(import.meta.dirname, "run.ts");
const outputBytes = 64 * 2 ** 20;

/** What a run prints, line by line. */
export function linesOf(args: readonly string[]): Promise<readonly string[]> {
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [program, ...args], { maxBuffer: outputBytes }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout.trimEnd().split("\n"));
      else reject(new Error(`the simulation itself failed: ${stderr}`, { cause: error }));
    });
  });
}

/** Plays `count` schedules, half of them in each of two processes. Returns what each reports. */
export async function playAll(from: number, count: number): Promise<readonly Report[]> {
  const half = Math.ceil(count / 2);
  const parts = [
    [from, half],
    [from + half, count - half],
  ] as const;
  return await Promise.all(
    parts.map(async ([first, number]) => {
      const lines = await linesOf(["--from", String(first), "--count", String(number)]);
      return JSON.parse(lines.at(-1) ?? "") as Report;
    }),
  );
}
