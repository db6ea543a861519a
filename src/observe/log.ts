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
    formatters: {
      level: (label) => ({ level: label }),
      log: (fields) => redacted(fields) as Record<string, unknown>,
    },
    // what was thrown has its form by then
    serializers: { err: (shown: unknown) => shown },
  };
  return wrap(destination === undefined ? pino(options) : pino(options, destination));
}

/** Names whose values are secret wherever they stand: environments hold keys, and the rest are credentials. */
const secretNames: ReadonlySet<string> = new Set([
  "env",
  "Env",
  "token",
  "secret",
  "password",
  "passphrase",
  "authorization",
  "cookie",
]);

const censor = "[redacted]";

/** More than pino shows of a value; what lies deeper is left out. */
const mostDepth = 8;

/**
 * The value without its secrets; itself where it has none. A walk over what there is, since pino's own redaction looks up every path
 * that there might be, which was most of what a line cost.
 */
function redacted(value: unknown, depth = 0, known = new Map<object, unknown>()): unknown {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return value;
  if (depth > mostDepth) return "[Object]";
  if (known.has(value)) return known.get(value);
  known.set(value, "[Circular]");
  const told: object = value instanceof Error ? { ...pino.stdSerializers.err(value) } : value;
  let shown: Record<string, unknown> | undefined;
  for (const [name, inner] of Object.entries(told)) {
    const innerShown = secretNames.has(name) ? censor : redacted(inner, depth + 1, known);
    if (innerShown === inner) continue;
    shown ??= (Array.isArray(told) ? [...told] : { ...told }) as Record<string, unknown>;
    shown[name] = innerShown;
  }
  const result = shown ?? told;
  known.set(value, result);
  return result;
}

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
    child: (component, fields = {}) => wrap(logger.child({ ...(redacted(fields) as LogFields), component })),
  };
}
