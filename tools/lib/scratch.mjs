// A scratch place for one run of a tool: a folder, a private engine when asked for, and the promise that both are gone
// when the run ends, whether it ends well, fails or is interrupted.
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { installEngine, startPrivateEngine } from "./engine.mjs";
import { ensureBaseImage } from "./image.mjs";
import { claim, engineMark, removeAbandoned, removeEngine, temporaryDirectory } from "./leftovers.mjs";
import { installPackages } from "./packages.mjs";
import { Advice, root } from "./process.mjs";

/** Status of a run that a signal ended, as shells have it for SIGINT. */
const interruptedStatus = 130;

/**
 * Gives the run an engine, or says why it has none. Where a run must be complete (CI), and for what makes no sense
 * without, that is a failure.
 */
async function prepareEngine({ directory, name, packages, isOptional, log }) {
  try {
    await installEngine({ log });
    await installPackages(packages, { log, why: "the tests" });
  } catch (error) {
    if (!(error instanceof Advice) || process.env.CI || !isOptional) throw error;
    log(`goes on without an engine: ${error.message}`);
    return undefined;
  }
  const engine = await startPrivateEngine({ directory, name, log });
  try {
    await ensureBaseImage(engine.socket, { log, registry: false });
  } catch (error) {
    await engine.stop();
    throw error;
  }
  return engine;
}

/**
 * Calls `body({ directory, hasEngine, runChild })` and returns its status, or 130 after SIGINT or SIGTERM.
 *
 * - `kind`: `test` or `bench`; part of the name.
 * - `engine`: `none`, `optional` or `required`.
 * - `packages`: Debian packages that go with the engine.
 *
 * `runChild(command, args, environment)` resolves to the exit status. The child's TMPDIR is in the folder, and
 * SANDBOXD_TEST_ENGINE names the engine's socket.
 */
export async function withScratch({ kind, engine: wish, packages = [], log }, body) {
  for (const name of await removeAbandoned()) log(`removed ${name}, left by a run that was killed`);
  const name = `sandboxd-${kind}-${process.pid}`;
  const directory = path.join(temporaryDirectory, name);
  claim(directory, { name, directory });
  const temporary = path.join(directory, "tmp");
  mkdirSync(temporary);

  let child;
  let interrupted = false;
  const interrupt = (signal) => {
    interrupted = true;
    if (child?.exitCode === null) process.kill(-child.pid, signal);
  };
  const onInterrupt = () => interrupt("SIGINT");
  const onTerminate = () => interrupt("SIGTERM");
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onTerminate);

  let engine;
  const runChild = (command, args, environment = {}) =>
    new Promise((resolve, reject) => {
      child = spawn(command, args, {
        cwd: root,
        stdio: ["ignore", "inherit", "inherit"],
        // Its own process group: a Ctrl-C reaches it once, from here.
        detached: true,
        env: {
          ...process.env,
          TMPDIR: temporary,
          [engineMark]: name,
          ...(engine ? { SANDBOXD_TEST_ENGINE: engine.socket } : {}),
          ...environment,
        },
      });
      child.on("error", reject);
      child.on("close", (code) => resolve(code ?? 1));
    });

  try {
    if (wish !== "none") {
      const isOptional = wish === "optional";
      engine = await prepareEngine({
        directory: path.join(directory, "engine"),
        name,
        packages,
        isOptional,
        log,
      });
    }
    const status = interrupted
      ? interruptedStatus
      : await body({ directory, hasEngine: engine !== undefined, runChild });
    return interrupted ? interruptedStatus : status;
  } finally {
    // Also what tests have started and not ended, and the engines that they started for themselves.
    await removeEngine(name, directory);
    await removeAbandoned();
    process.off("SIGINT", onInterrupt);
    process.off("SIGTERM", onTerminate);
  }
}
