// The dev scheduler as a command: `sandboxd dev-scheduler`.

import { readFileSync } from "node:fs";
import type { Logger } from "pino";
import type { Change } from "./change.ts";
import { jsonOf, lineOf, tableOf } from "./report.ts";
import { createDevScheduler, type DevScheduler } from "./server.ts";
import { openFileStore } from "./store.ts";

export interface DevSchedulerCommand {
  /** "127.0.0.1:7071" or "[::1]:7071". */
  readonly listen: string;
  /** One JSON object a line in place of a table. */
  readonly json: boolean;
  /** A file that acknowledgements outlive the process in. */
  readonly store?: string;
  /** PEM files; with them hosts need certificates. */
  readonly tls?: { readonly certificate: string; readonly key: string; readonly ca: string };
  readonly stdout: NodeJS.WriteStream;
  readonly log: Logger;
  /** Ends the command. Default: SIGINT and SIGTERM do. */
  readonly signal?: AbortSignal;
}

const redrawMs = 500;

/**
 * Runs until told to end. Resolves to the exit code: 0, or 1 when a host broke the contract. Rejects when it cannot
 * listen or read its files.
 */
export async function runDevScheduler(command: DevSchedulerCommand): Promise<number> {
  const { stdout, tls } = command;
  const drawn = stdout.isTTY && !command.json;
  const scheduler = await createDevScheduler({
    listen: parseListen(command.listen),
    log: command.log,
    ...(command.store === undefined ? {} : { store: openFileStore(command.store) }),
    ...(tls === undefined ? {} : { tls: readTls(tls) }),
    ...(drawn ? {} : { onChange: (change) => print(change, command) }),
  });
  const timer = drawn ? setInterval(() => draw(scheduler, stdout), redrawMs) : undefined;
  if (drawn) draw(scheduler, stdout);
  await told(command);
  clearInterval(timer);
  await scheduler.close();
  return scheduler.checker.violations().length === 0 ? 0 : 1;
}

function print(change: Change, { json, stdout }: DevSchedulerCommand): void {
  const line = json ? jsonOf(change) : lineOf(change);
  if (line !== undefined) stdout.write(`${line}\n`);
}

function draw(scheduler: DevScheduler, stdout: NodeJS.WriteStream): void {
  const lines = tableOf({
    url: scheduler.url,
    hosts: scheduler.hosts(),
    violations: scheduler.checker.violations(),
    nowMs: performance.now(),
    rows: stdout.rows,
    columns: stdout.columns,
  });
  // home, each line cleared to its end, the rest of the screen cleared: no flicker
  stdout.write(`\x1b[H${lines.map((line) => `${line}\x1b[K`).join("\n")}\x1b[J`);
}

/** Resolves at the first signal, or when nobody reads any more. A second signal ends the process as if this had not listened. */
async function told({ signal, stdout }: DevSchedulerCommand): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const end = (): void => resolve();
  const sources = ["SIGINT", "SIGTERM"] as const;
  if (signal?.aborted === true) return;
  // stays, for what is still to be written meets the same closed pipe
  stdout.on("error", end);
  if (signal !== undefined) signal.addEventListener("abort", end, { once: true });
  else for (const name of sources) process.once(name, end);
  await promise;
  for (const name of sources) process.removeListener(name, end);
}

function parseListen(text: string): { readonly host: string; readonly port: number } {
  const [, six, name, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = six ?? name;
  const port = Number(digits);
  if (host === undefined || port > 65_535) {
    throw new Error(
      `${JSON.stringify(text)} is not an address and a port.\nHint: for example 127.0.0.1:7071.`,
    );
  }
  return { host, port };
}

function readTls(files: { readonly certificate: string; readonly key: string; readonly ca: string }) {
  const { certificate, key, ca } = files;
  return { certificate: readFileSync(certificate), key: readFileSync(key), ca: readFileSync(ca) };
}
