// From what a caller asks to what is started: defaults, and every rule that the contract's own bounds cannot say. All of it is
// decided before the sandbox is asked for anything.

import { createHash } from "node:crypto";
import { posix } from "node:path";
import * as rule from "../config/rule.ts";
import { type FieldViolation, throwIfAny } from "../errors.ts";
import type { TerminalSize } from "./record.ts";

/** As the contract has it; empty and absent mean the default. */
export interface StartRequest {
  readonly sandboxId: string;
  readonly processId: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir: string;
  readonly hasInput: boolean;
  readonly terminal?: TerminalSize;
  readonly timeoutMs?: number;
  readonly killGraceMs?: number;
  readonly killsOnDisconnect: boolean;
  readonly waits: boolean;
  readonly maxWaitMs?: number;
  readonly retainedBytes: number;
  readonly keepaliveMs?: number;
}

/** What is started, complete. */
export interface ProcessSpec {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir: string;
  readonly hasInput: boolean;
  readonly terminal?: TerminalSize;
  /** 0: none. */
  readonly timeoutMs: number;
  readonly killGraceMs: number;
  readonly killsOnDisconnect: boolean;
  readonly waits: boolean;
  readonly maxWaitMs: number;
  readonly retainedBytes: number;
}

export const defaultKeepaliveMs = 30_000;
const defaultKillGraceMs = 5_000;
const defaultMaxWaitMs = 30_000;
const defaultRetainedBytes = 1024 * 1024;
const leastRetainedBytes = 4_096;
const defaultSize: TerminalSize = { rows: 24, columns: 80 };
const defaultTerm = "xterm-256color";
/** As of a sandbox's own command, its arguments and its environment. */
const mostBytes = 128 * 1024;
const mostPathBytes = 4_096;

/** @throws SandboxdError INVALID_FIELD naming every field that breaks a rule. */
export function specOf(request: StartRequest, usualDir: string): ProcessSpec {
  throwIfAny(violations(request));
  const { terminal } = request;
  return {
    command: request.command,
    env: { ...(terminal === undefined ? {} : { TERM: defaultTerm }), ...request.env },
    workingDir: request.workingDir || usualDir,
    hasInput: request.hasInput || terminal !== undefined,
    ...(terminal === undefined ? {} : { terminal: sizeOf(terminal) }),
    timeoutMs: request.timeoutMs ?? 0,
    killGraceMs: request.killGraceMs ?? defaultKillGraceMs,
    killsOnDisconnect: request.killsOnDisconnect,
    waits: request.waits,
    maxWaitMs: request.maxWaitMs ?? defaultMaxWaitMs,
    retainedBytes: request.retainedBytes || defaultRetainedBytes,
  };
}

/** With the usual size where one says none. */
export function sizeOf({ rows, columns }: TerminalSize): TerminalSize {
  return { rows: rows || defaultSize.rows, columns: columns || defaultSize.columns };
}

/** Equal for requests that mean the same. */
export function hashOfRequest(request: StartRequest): string {
  const { env, ...rest } = request;
  const sorted = (fields: object) => Object.entries(fields).sort(([a], [b]) => (a < b ? -1 : 1));
  const canonical = JSON.stringify([sorted(rest), sorted(env)]);
  return createHash("sha256").update(canonical).digest("hex");
}

function violations(request: StartRequest): readonly FieldViolation[] {
  const { command, env, workingDir, retainedBytes } = request;
  const commandBytes = bytesOf(command);
  const allBytes = commandBytes + bytesOf(Object.entries(env).map(([name, value]) => `${name}=${value}`));
  const most = `at most ${mostBytes} are allowed`;
  return [
    ...violationIf(command[0] === undefined || command[0] === "", "command[0]", "the executable is required"),
    ...command.flatMap((word, index) =>
      violationIf(word.includes("\0"), `command[${index}]`, "contains NUL"),
    ),
    ...violationIf(commandBytes > mostBytes, "command", `has ${commandBytes} bytes; ${most}`),
    ...Object.entries(env).flatMap(([name, value]) => variableViolations(name, value)),
    ...violationIf(
      commandBytes <= mostBytes && allBytes > mostBytes,
      "env",
      `command and env together have ${allBytes} bytes; ${most}`,
    ),
    ...directoryViolations(workingDir),
    ...violationIf(
      retainedBytes !== 0 && retainedBytes < leastRetainedBytes,
      "retained_bytes",
      `${retainedBytes} is below ${leastRetainedBytes}; 0 is the default`,
    ),
  ];
}

/** Never says a value: it may be a secret. */
function variableViolations(name: string, value: string): readonly FieldViolation[] {
  const field = `env["${name.slice(0, 128)}"]`;
  if (/^(LD_|SANDBOXD_)/.test(name)) {
    return [{ field, description: "names beginning with LD_ or SANDBOXD_ are reserved" }];
  }
  return [
    ...violationIf("problem" in rule.envName.read(name), field, `the name is not ${rule.envName.name}`),
    ...violationIf("problem" in rule.envValue.read(value), field, `the value is not ${rule.envValue.name}`),
  ];
}

/** The kernel follows a working directory under these to other places (CVE-2024-21626). */
function directoryViolations(workingDir: string): readonly FieldViolation[] {
  if (workingDir === "") return [];
  const field = "working_dir";
  const isKernels = /^\/(proc|sys)(\/|$)/.test(posix.normalize(workingDir).replace(/^\/+/, "/"));
  return [
    ...violationIf(!workingDir.startsWith("/"), field, "must begin with /"),
    ...violationIf(workingDir.includes("\0"), field, "contains NUL"),
    ...violationIf(
      Buffer.byteLength(workingDir) > mostPathBytes,
      field,
      `is longer than ${mostPathBytes} bytes`,
    ),
    ...violationIf(isKernels, field, "must not lie under /proc or /sys"),
  ];
}

const bytesOf = (words: readonly string[]) =>
  words.reduce((sum, word) => sum + Buffer.byteLength(word) + 1, 0);

function violationIf(broken: boolean, field: string, description: string): readonly FieldViolation[] {
  return broken ? [{ field, description }] : [];
}
