// A scratch place for one run of a tool: a folder, a private engine when asked for, and the promise that both are gone
// when the run ends, whether it ends well, fails or is interrupted.
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { installEngine, startPrivateEngine } from "./engine.mjs";
import { ensureGuestImage, Unobtainable } from "./guest-image.mjs";
import { ensureBaseImage } from "./image.mjs";
import { claim, engineMark, removeAbandoned, removeEngine, temporaryDirectory } from "./leftovers.mjs";
import { shareMounts } from "./mounts.mjs";
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

const guestEnvironment = (image, directory) => ({
  SANDBOXD_TEST_GUEST_IMAGE: image,
  SANDBOXD_TEST_GUEST: path.join(directory, "guest"),
});

/**
 * Finds the disks of a whole host, or says in `obstacle` why there are none. Where a run must be complete (CI), only what the
 * mirror lacks excuses that.
 */
async function findGuest({ packages, environment, signal, log }) {
  try {
    await installPackages(packages, { log, why: "the tests" });
    return { image: await ensureGuestImage({ log, environment, signal }) };
  } catch (error) {
    if (!(error instanceof Advice) || (process.env.CI && !(error instanceof Unobtainable))) throw error;
    log(`goes on without a whole host: ${error.message}`);
    return { obstacle: error.message };
  }
}

/**
 * Calls `body({ directory, hasEngine, runChild, prepareGuest })` and returns its status, or 130 after SIGINT or SIGTERM.
 *
 * - `kind`: `test` or `bench`; part of the name.
 * - `engine`: `none`, `optional` or `required`.
 * - `packages`: Debian packages that go with the engine and the guest.
 *
 * `runChild(command, args, environment)` resolves to the exit status. The child's TMPDIR is in the folder, and
 * SANDBOXD_TEST_ENGINE names the engine's socket, SANDBOXD_TEST_ENGINE_PID a process in its namespaces.
 *
 * `prepareGuest()` finds the disks of a whole host, and resolves to why there are none, if so. For children that are run
 * after it, SANDBOXD_TEST_GUEST_IMAGE names the disks, and SANDBOXD_TEST_GUEST the folder in which the guest is to run;
 * its processes end with the run.
 */
export async function withScratch({ kind, engine: wish, packages = [], log }, body) {
  for (const name of await removeAbandoned()) log(`removed ${name}, left by a run that was killed`);
  const name = `sandboxd-${kind}-${process.pid}`;
  const directory = path.join(temporaryDirectory, name);
  claim(directory, { name, directory });
  const temporary = path.join(directory, "tmp");
  mkdirSync(temporary);
  if (wish !== "none" && process.getuid() === 0) shareMounts(temporary);

  let child;
  let interrupted = false;
  const preparing = new AbortController();
  const interrupt = (signal) => {
    interrupted = true;
    preparing.abort();
    if (child?.exitCode === null) process.kill(-child.pid, signal);
  };
  const onInterrupt = () => interrupt("SIGINT");
  const onTerminate = () => interrupt("SIGTERM");
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onTerminate);

  const marked = { TMPDIR: temporary, [engineMark]: name };
  let engine;
  let guest;
  const runChild = (command, args, environment = {}) =>
    new Promise((resolve, reject) => {
      if (interrupted) return resolve(interruptedStatus);
      child = spawn(command, args, {
        cwd: root,
        stdio: ["ignore", "inherit", "inherit"],
        // Its own process group: a Ctrl-C reaches it once, from here.
        detached: true,
        env: {
          ...process.env,
          ...marked,
          ...(engine
            ? { SANDBOXD_TEST_ENGINE: engine.socket, SANDBOXD_TEST_ENGINE_PID: `${engine.namespacePid}` }
            : {}),
          ...(guest?.image ? guestEnvironment(guest.image, directory) : {}),
          ...environment,
        },
      });
      child.on("error", reject);
      child.on("close", (code) => resolve(code ?? 1));
    });

  const prepareGuest = async () => {
    if (interrupted) return "interrupted";
    guest = await findGuest({ packages, environment: marked, signal: preparing.signal, log });
    return guest.obstacle;
  };

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
      : await body({ directory, hasEngine: engine !== undefined, runChild, prepareGuest });
    return interrupted ? interruptedStatus : status;
  } finally {
    // Also what tests have started and not ended, and the engines that they started for themselves.
    await removeEngine(name, directory);
    await removeAbandoned();
    process.off("SIGINT", onInterrupt);
    process.off("SIGTERM", onTerminate);
  }
}
