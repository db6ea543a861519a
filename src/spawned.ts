// A program that was started, or why it was not.

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";

/**
 * Resolves to the program, at once if it was started; rejects with what Node would tell by an event, which ends the process where nobody
 * listens. Where no descriptor is left, a program has none of its pipes: they are there only behind this.
 */
export async function spawned<P extends ChildProcess>(program: P): Promise<P> {
  if (program.pid !== undefined) return program;
  const [error] = await once(program, "error");
  throw error;
}
