// Whether the engine can be used, and if not why, and what a person can do about it.

import { type EngineDescription, leastApi } from "../engine/runtime.ts";
import { isOutOfDescriptors, messageOf, SandboxdError } from "../errors.ts";

/** Why the engine cannot be used; mirrors `sandboxd.v1.HostConditionType`. */
export type EngineProblem =
  | "ENGINE_ABSENT"
  | "ENGINE_ACCESS_DENIED"
  | "ENGINE_TOO_OLD"
  | "ENGINE_UNRESPONSIVE"
  | "CGROUP_UNSUPPORTED";

/** What was found when the engine was last looked at, in words for whoever looks after the host. */
export interface EngineHealth {
  /** Undefined if it can be used. */
  readonly problem: EngineProblem | undefined;
  readonly message: string;
  readonly hint: string;
  /** As last described; kept while it cannot be reached. */
  readonly engine: EngineDescription | undefined;
}

/** Of an engine that answered: whether it is one that limits can be enforced with. */
export function assess(engine: EngineDescription): EngineHealth {
  const [major = 0, minor = 0] = engine.apiVersion.split(".").map(Number);
  const [leastMajor = 0, leastMinor = 0] = leastApi.split(".").map(Number);
  if (major < leastMajor || (major === leastMajor && minor < leastMinor)) {
    const message = `the engine speaks API ${engine.apiVersion}; ${leastApi} is the least that is needed`;
    return { problem: "ENGINE_TOO_OLD", message, hint: "install Docker Engine 20.10 or newer", engine };
  }
  if (engine.cgroupDriver !== "cgroupfs" && engine.cgroupDriver !== "systemd") {
    const message = `the engine's cgroup driver is "${engine.cgroupDriver}"; limits cannot be enforced under it`;
    return {
      problem: "CGROUP_UNSUPPORTED",
      message,
      hint: "set native.cgroupdriver to systemd or cgroupfs in daemon.json",
      engine,
    };
  }
  return { problem: undefined, message: "the engine answers", hint: "", engine };
}

/** Of an engine that could not be asked. `engine`: as last described. */
export function healthOfFailure(error: unknown, engine: EngineDescription | undefined): EngineHealth {
  const message = messageOf(error);
  const cause = error instanceof SandboxdError ? error.details.cause : error;
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  if (code === "EACCES" || code === "EPERM") {
    return {
      problem: "ENGINE_ACCESS_DENIED",
      message,
      hint: "let the daemon's user open the engine's socket",
      engine,
    };
  }
  // an engine that speaks nothing as new as the least answers so
  if (/client version .* is too new/i.test(message)) {
    return { problem: "ENGINE_TOO_OLD", message, hint: "install Docker Engine 20.10 or newer", engine };
  }
  if (error instanceof SandboxdError && error.reason === "ENGINE_TIMEOUT") {
    return {
      problem: "ENGINE_UNRESPONSIVE",
      message,
      hint: "see the engine's log (journalctl -u docker)",
      engine,
    };
  }
  const hint = isOutOfDescriptors(error)
    ? "the daemon has no file descriptor left to reach it: see who keeps connections open, or raise LimitNOFILE= of its unit"
    : "start the engine, or set [engine] socket";
  return { problem: "ENGINE_ABSENT", message, hint, engine };
}
