// A program on a pseudo terminal, as a person has it: typed at, resized, and looked at.

import { spawn, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";

const driver = fileURLToPath(new URL("terminal.py", import.meta.url));

/** Why no program can be run on a terminal here; undefined when one can. For `test.skipIf`. */
export const terminalObstacle =
  spawnSync("python3", ["-c", "import pty, termios"]).status === 0
    ? undefined
    : "python3 is missing: apt-get install python3";

/** Against what hangs. */
const patienceMs = 30_000;

export interface OnTerminal {
  type(text: string): void;
  resize(rows: number, columns: number): void;
  kill(signal: number): void;
  /** All that it wrote. */
  output(): string;
  /** Resolves once what it wrote since the last call of this, matches. */
  until(pattern: RegExp): Promise<void>;
  /** Its exit code, and whether the terminal's settings are those from before. */
  readonly ended: Promise<{ readonly code: number; readonly restored: boolean }>;
}

export function onTerminal(
  argv: readonly string[],
  env: Readonly<Record<string, string>> = {},
  { rows = 24, columns = 80 }: { readonly rows?: number; readonly columns?: number } = {},
): OnTerminal {
  const child = spawn("python3", [driver, `${rows}`, `${columns}`, ...argv], {
    env: { ...process.env, ...env },
  });
  const chunks: Buffer[] = [];
  let report = "";
  let seen = 0;
  child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => {
    report += chunk.toString();
  });
  child.stdin.on("error", () => {});
  const output = () => Buffer.concat(chunks).toString();
  const tell = (command: object) => void child.stdin.write(`${JSON.stringify(command)}\n`);
  return {
    type: (text) => tell({ type: text }),
    resize: (toRows, toColumns) => tell({ size: [toRows, toColumns] }),
    kill: (signal) => tell({ signal }),
    output,
    async until(pattern) {
      const rest = () => output().slice(seen);
      await expect.poll(rest, { timeout: 10_000, interval: 20 }).toMatch(pattern);
      const found = pattern.exec(rest());
      seen += (found?.index ?? 0) + (found?.[0].length ?? 0);
    },
    ended: new Promise((resolve, reject) => {
      const timer = setTimeout(() => child.kill("SIGKILL"), patienceMs);
      child.once("close", () => {
        clearTimeout(timer);
        if (report === "") reject(new Error(`the terminal was ended: ${output()}`));
        else resolve(JSON.parse(report));
      });
    }),
  };
}
