// Runs the daemon as a process: its configuration, its signals, its service manager, its exit codes.

import type { ConfigArgs } from "./cli/args.ts";
import { formatConfigError } from "./config/error.ts";
import { findConfigFile } from "./config/file.ts";
import { type Loaded, loadConfig, type Setting } from "./config/load.ts";
import { changesBetween } from "./config/reload.ts";
import { type Daemon, startDaemon } from "./daemon.ts";
import { messageOf } from "./errors.ts";
import { createLog, type Log } from "./observe/log.ts";
import { createNotifier, type Notifier } from "./observe/notifier.ts";

/**
 * Serves until SIGTERM or SIGINT, then exits 0; reads the configuration again at SIGHUP. Exits 1 when it cannot start, and
 * on any exception that nobody expected: a supervisor starts it again, and the state survives.
 */
export async function serve(args: ConfigArgs): Promise<void> {
  const load = () =>
    loadConfig({ file: findConfigFile(args.configFile), env: process.env, flags: args.set, dev: args.dev });
  const loaded = load();
  if ("errors" in loaded) {
    for (const error of loaded.errors) process.stderr.write(`${formatConfigError(error)}\n`);
    process.exitCode = 1;
    return;
  }
  const { config } = loaded;
  const log = createLog({ level: config.log.level }).child("daemon");
  for (const event of ["uncaughtException", "unhandledRejection"] as const) {
    process.on(event, (error: unknown) => {
      log.fatal({ err: error }, "unexpected exception; exiting");
      process.exit(1);
    });
  }
  const notifier = createNotifier({
    env: process.env,
    onError: (error) => log.warn({ err: error }, "the service manager could not be told"),
  });
  // without a handler the signal ends the process, which may still be starting
  let reload = () => {};
  process.on("SIGHUP", () => reload());
  try {
    const daemon = await startDaemon({ config, dev: args.dev, log });
    reload = createReload({ daemon, load, settings: loaded.settings, notifier, log });
    const stopped = new Promise<string>((resolve) => {
      process.once("SIGTERM", resolve);
      process.once("SIGINT", resolve);
    });
    await notifier.ready("serving");
    notifier.watch(daemon.isProgressing);
    const signal = await stopped;
    log.info({ signal }, "stopping; sandboxes keep running");
    void notifier.stopping();
    await daemon.close();
    log.info({}, "stopped");
    process.exit(0);
  } catch (error) {
    log.fatal({ err: error }, `cannot go on: ${messageOf(error)}`);
    process.exit(1);
  }
}

interface ReloadOptions {
  readonly daemon: Daemon;
  readonly load: () => Loaded;
  /** Those in effect. */
  readonly settings: readonly Setting[];
  readonly notifier: Notifier;
  readonly log: Log;
}

/** What a SIGHUP does: one at a time, in their order. A configuration with errors changes nothing. */
function createReload({ daemon, load, settings, notifier, log }: ReloadOptions): () => void {
  let known = settings;
  let last = Promise.resolve();

  async function reload(): Promise<void> {
    await notifier.reloading();
    const loaded = load();
    if ("errors" in loaded) {
      for (const error of loaded.errors) log.error({ key: error.key }, formatConfigError(error));
      log.error({ count: loaded.errors.length }, "the configuration has errors; the old one stays");
      await notifier.ready("serving; the configuration on disk has errors, the old one is in effect");
      return;
    }
    for (const { needsRestart, ...change } of changesBetween(known, loaded.settings)) {
      if (needsRestart) log.warn(change, "configuration changed; takes effect when the daemon is restarted");
      else log.info(change, "configuration changed");
    }
    known = loaded.settings;
    try {
      await daemon.reload(loaded.config);
      log.info({}, "configuration reloaded");
      await notifier.ready("serving");
    } catch (error) {
      log.error({ err: error }, "certificates could not be read again; the old ones stay");
      await notifier.ready("serving; certificates on disk cannot be used, the old ones are in effect");
    }
  }

  return () => {
    last = last.then(reload);
  };
}
