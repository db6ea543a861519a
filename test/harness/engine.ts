// Engines for tests: the one that the runner started for all of them, and one of its own for a test that breaks it.

import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type PrivateEngine, startPrivateEngine } from "../../tools/lib/engine.mjs";
import { ensureBaseImage } from "../../tools/lib/image.mjs";

/** The image that every test engine has. */
export const baseImage = "sandboxd-base:latest";

const { SANDBOXD_TEST_ENGINE: socketOfAll, SANDBOXD_TEST_ENGINE_PID: namespaceOfAll } = process.env;

/** Why no test with an engine can run here; undefined when one can. For `test.skipIf`. */
export const engineObstacle =
  socketOfAll === undefined ? "no engine: run by `npm test`, as root on Debian" : undefined;

/** The socket of the engine that all tests share. Fails where there is none. */
export function sharedEngine(): string {
  if (socketOfAll === undefined) throw new Error(engineObstacle);
  return socketOfAll;
}

/** A process in the namespaces of the engine that all tests share. */
export function engineNamespace(): number {
  if (namespaceOfAll === undefined) throw new Error(engineObstacle);
  return Number(namespaceOfAll);
}

/** What starts a program in the network of an engine, by a process there. Default: the engine that all tests share. */
export function inNetworkOf(pid = engineNamespace()): readonly string[] {
  return ["nsenter", `--net=/proc/${pid}/ns/net`];
}

let started = 0;

/**
 * Starts an engine for this test alone, with the base image, in about a second. The test must `stop` it; what it leaves
 * is removed at the end of the run.
 */
export async function ownEngine({
  directory = mkdtempSync(join(tmpdir(), "engine-")),
  ...options
}: {
  readonly liveRestore?: boolean;
  /** Where it keeps its data. Default: among the run's own files. */
  readonly directory?: string;
} = {}): Promise<PrivateEngine> {
  started += 1;
  const engine = await startPrivateEngine({
    directory,
    name: `sandboxd-fault-${process.pid}n${started}`,
    log: () => {},
    ...options,
  });
  try {
    await ensureBaseImage(engine.socket, { log: () => {}, registry: false });
  } catch (error) {
    await engine.stop();
    throw error;
  }
  return engine;
}
