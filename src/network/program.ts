// Runs the host's own programs for interfaces: for a bounded time, in one language, with a list of what they are to do as input.

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";

/**
 * Runs a program, and writes `input` to it. Resolves to its standard output if it exits with 0. Rejects with an Error that has what
 * it said otherwise.
 */
export type Run = (program: string, args: readonly string[], input?: string) => Promise<string>;

const directories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/** The least there can be: what they print is read. */
const env = { PATH: directories.join(":"), LC_ALL: "C" };

/** They take milliseconds; then one is killed. */
const timeout = 10_000;
/** A bridge with a thousand ports is described in 1 MiB. */
const maxBuffer = 16 * 1_024 * 1_024;
const mostSaid = 500;

/** The one that runs programs for real. */
export const run: Run = (program, args, input = "") =>
  new Promise((resolve, reject) => {
    const options = { env, timeout, maxBuffer, killSignal: "SIGKILL" } as const;
    const child = execFile(program, args, options, (error, output, said) => {
      if (error === null) return resolve(output);
      const why =
        error.code === "ENOENT" ? "is not on this host" : said.trim() || output.trim() || error.message;
      reject(new Error(`${program}: ${why.replaceAll(/\s+/g, " ").slice(0, mostSaid)}`, { cause: error }));
    });
    // one that is not there, or ended before it had read all, says so by its end
    child.stdin?.on("error", () => {});
    child.stdin?.end(input);
  });

/** Those of the programs that this host does not have. */
export function missingOf(programs: readonly string[]): readonly string[] {
  return programs.filter((name) => !directories.some((directory) => existsSync(join(directory, name))));
}
