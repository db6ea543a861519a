// Child processes: run one to its end, start one that stays, end one with a bound.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** The folder that holds package.json. */
export const root = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");

/** A failure that a person can act on: its message is one line and says what to do. No stack is shown for it. */
export class Advice extends Error {}

/**
 * Runs a command to its end and returns `{ status, output }`; status is 124 when `timeoutMs` ran out. By default
 * what it prints is shown; with `quiet` it is only returned.
 */
export function run(command, args, { quiet = false, timeoutMs, input, ...options } = {}) {
  return new Promise((resolve) => {
    const stdio = [
      input === undefined ? "ignore" : "pipe",
      quiet ? "pipe" : "inherit",
      quiet ? "pipe" : "inherit",
    ];
    const child = spawn(command, args, { cwd: root, stdio, ...options });
    let output = "";
    let timedOut = false;
    const timer = timeoutMs
      ? setTimeout(() => {
          timedOut = true;
          child.kill("SIGKILL");
        }, timeoutMs)
      : undefined;
    const collect = (chunk) => {
      output += chunk;
    };
    child.stdout?.on("data", collect);
    child.stderr?.on("data", collect);
    child.stdin?.end(input);
    child.on("error", (error) => {
      clearTimeout(timer);
      resolve({ status: 127, output: error.message });
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ status: timedOut ? 124 : (code ?? (signal ? 128 : 1)), output });
    });
  });
}

/** As run, but a status other than 0 is an error that carries what the command printed. */
export async function must(command, args, options) {
  const { status, output } = await run(command, args, options);
  if (status !== 0) {
    throw new Error(
      `${command} ${args.join(" ")} ended with status ${status}${output ? `:\n${output.trim()}` : ""}`,
    );
  }
  return output;
}

/**
 * The start time of a process in clock ticks since boot, or undefined when it is gone. A pid alone says nothing
 * after its owner ended: the kernel hands the number out again.
 */
export function startTime(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : fields[19];
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ESRCH") return undefined;
    throw error;
  }
}

/** Resolves to the first value of `probe` that is not undefined; fails with `what` when `timeoutMs` ran out. */
export async function until(probe, { timeoutMs, what, everyMs = 50 }) {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined) return value;
    if (performance.now() > end) throw new Error(`${what} within ${timeoutMs / 1000} s`);
    await sleep(everyMs);
  }
}

/** Ends a child: `signal` first, SIGKILL after `graceMs`. Resolves when it is gone; returns its exit code. */
export async function stop(child, { signal = "SIGTERM", graceMs = 10_000 } = {}) {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill(signal);
  const timer = setTimeout(() => child.kill("SIGKILL"), graceMs);
  await gone;
  clearTimeout(timer);
  return child.exitCode;
}

/**
 * Runs the main function of a tool, and ends with the status it returns (0 for none): an Advice is one line and status
 * 1, anything else is a stack and status 1. What still waits then, such as a client's deadline, is not waited for.
 */
export async function main(body) {
  try {
    process.exit((await body()) ?? 0);
  } catch (error) {
    console.error(error instanceof Advice ? error.message : error);
    process.exit(1);
  }
}
