import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { hasEnded } from "../../../src/engine/process-end.ts";

/** A process table of one process with this line. */
function procOf(stat: string): string {
  const root = mkdtempSync(join(tmpdir(), "proc-"));
  onTestFinished(() => rmSync(root, { recursive: true }));
  mkdirSync(join(root, "7"));
  writeFileSync(join(root, "7", "stat"), stat);
  return root;
}

test("a process that runs has not ended, nor one whose name looks as if", () => {
  expect(hasEnded(process.pid)).toBe(false);
  expect(hasEnded(7, procOf("7 (a) Z 1 1 1 0 -1 4194308 (b)) S 1 7 7 0 -1 4194560 0 0"))).toBe(false);
});

test("one that is ending, or that nobody has waited for, has ended", () => {
  expect(hasEnded(7, procOf("7 (tini) S 1 7 7 0 -1 4194564 0 0"))).toBe(true);
  expect(hasEnded(7, procOf("7 (tini) Z 1 7 7 0 -1 4227084 0 0"))).toBe(true);
});

test("one that is gone has ended", async () => {
  const child = spawn("true");
  await new Promise((resolve) => child.once("exit", resolve));
  expect(hasEnded(child.pid ?? 0)).toBe(true);
});
