// The caller's own terminal, while a process in a sandbox has it: raw, so that every key and every byte goes through as it is, and put
// back in every case.

import { spawnSync } from "node:child_process";

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

export interface RawTerminal {
  /** As before. Already so is fine. */
  restore(): void;
}

/** Makes the terminal on standard input raw. Node itself puts it back when the program ends, whatever ends it but SIGKILL. */
export function makeRaw(): RawTerminal {
  process.stdin.setRawMode(true);
  // Node leaves the output as it was: newlines of a program that fills the screen would also return the carriage
  spawnSync("stty", ["-opost"], { stdio: ["inherit", "ignore", "ignore"] });
  const restore = () => void process.stdin.setRawMode(false);
  process.once("exit", restore);
  return {
    restore() {
      process.off("exit", restore);
      restore();
    },
  };
}

/** Of the terminal on standard output. Undefined if it is none. */
export function terminalSize(): TerminalSize | undefined {
  if (!process.stdout.isTTY) return undefined;
  const [columns, rows] = process.stdout.getWindowSize();
  return rows > 0 && columns > 0
    ? { rows: Math.min(rows, 1_000), columns: Math.min(columns, 1_000) }
    : undefined;
}

/** Calls back with each new size of it, until the abort. */
export function onResize(listener: (size: TerminalSize) => void, signal: AbortSignal): void {
  const resized = () => {
    const size = terminalSize();
    if (size !== undefined) listener(size);
  };
  process.stdout.on("resize", resized);
  signal.addEventListener("abort", () => process.stdout.off("resize", resized), { once: true });
}

/**
 * What a program may have switched on in a terminal that another one, after it, should not find: mouse reports, bracketed paste, another
 * character set, a hidden cursor, colours. The screen itself stays.
 */
export const resetModes =
  "\u001b[?1000l\u001b[?1002l\u001b[?1003l\u001b[?1006l\u001b[?2004l\u001b[?1l\u001b>\u001b[?25h\u001b[0m";
