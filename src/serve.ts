// Runs the daemon as a process: its configuration, its signals, its exit codes.

import type { ConfigArgs } from "./cli/args.ts";
import { formatConfigError } from "./config/error.ts";
import { findConfigFile } from "./config/file.ts";
import { loadConfig } from "./config/load.ts";
import { startDaemon } from "./daemon.ts";
import { messageOf } from "./errors.ts";
import { createLog } from "./observe/log.ts";

/**
 * Serves until SIGTERM or SIGINT, then exits 0. Exits 1 when it cannot start, and on any exception that nobody expected: a
 * supervisor starts it again, and the state survives.
 */
export async function serve(args: ConfigArgs): Promise<void> {
  const loaded = loadConfig({
    file: findConfigFile(args.configFile),
    env: process.env,
    flags: args.set,
    dev: args.dev,
  });
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
  try {
    const daemon = await startDaemon({ config, dev: args.dev, log });
    const signal = await new Promise<string>((resolve) => {
      process.once("SIGTERM", resolve);
      process.once("SIGINT", resolve);
    });
    log.info({ signal }, "stopping; sandboxes keep running");
    await daemon.close();
    log.info({}, "stopped");
    process.exit(0);
  } catch (error) {
    log.fatal({ err: error }, `cannot go on: ${messageOf(error)}`);
    process.exit(1);
  }
}
