// Logs: JSON lines, fields before words, secrets cut out. The only importer of pino.

import { pino } from "pino";
import type { LogFields } from "./fields.ts";

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "fatal";

type Write = (fields: LogFields, message: string) => void;

/** A log of one component. */
export interface Log extends Readonly<Record<LogLevel, Write>> {
  /** A log whose lines name this component, and have these fields too. */
  child(component: string, fields?: LogFields): Log;
  /** The library's own, for rooms that hand it on to libraries. */
  readonly pino: pino.Logger;
}

export interface LogOptions {
  /** The least severe level that is written. */
  readonly level: LogLevel;
  /** Where lines go, one a call. Default: standard output, written before the call returns. */
  readonly destination?: { write(line: string): void };
}

/**
 * Makes a log. Lines have `time` (ISO 8601, UTC), `level` (a word), `component`, the fields and `msg`. Where the
 * reader of standard output stalls, so does the daemon: lines are never dropped, so that the last one before a
 * crash is there.
 */
export function createLog({ level, destination }: LogOptions): Log {
  const options: pino.LoggerOptions = {
    level,
    // journald and container engines know process and host better
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: [...redactedPaths], censor: "[redacted]" },
  };
  return wrap(destination === undefined ? pino(options) : pino(options, destination));
}

/** Names whose values are secret wherever they stand: environments hold keys, and the rest are credentials. */
const secretNames = [
  "env",
  "Env",
  "token",
  "secret",
  "password",
  "passphrase",
  "authorization",
  "cookie",
] as const;

/** pino looks only where it is told to: this many objects deep. */
const redactedDepth = 5;

const redactedPaths: readonly string[] = secretNames.flatMap((name) =>
  Array.from({ length: redactedDepth }, (_, depth) => `${"*.".repeat(depth)}${name}`),
);

function wrap(logger: pino.Logger): Log {
  const at =
    (level: LogLevel): Write =>
    (fields, message) =>
      logger[level](fields, message);
  return {
    trace: at("trace"),
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    fatal: at("fatal"),
    pino: logger,
    child: (component, fields = {}) => wrap(logger.child({ ...fields, component })),
  };
}
