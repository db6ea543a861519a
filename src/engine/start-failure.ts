// What a failed start means. The engine has one code for all of it, so the runtime's own words tell.

import { SandboxdError } from "../errors.ts";
import { engineError, statusOf } from "./calls.ts";

const unmounted = /error while mounting volume|failed to mount local volume|error mounting "/;
/** How the engine says that it cannot connect a container: its network is gone, or is another of the same name; its address. */
const unconnected = /network \S+ not found|Address already in use|does not belong to any of this network/;
const unusable =
  /executable file not found|no such file or directory|permission denied|exec format error|is a directory|not a directory/i;

export function startFailure(error: unknown): SandboxdError {
  const failure = engineError("start", error);
  // the end of it reads like that of a command that cannot run
  if (unmounted.test(failure.message)) {
    return new SandboxdError("ENGINE_FAILED", failure.message, {
      hint: "of a volume: see [volumes.NAME] of the host's configuration, its server, and whether the kernel has its file system",
      cause: error,
    });
  }
  if (unconnected.test(failure.message)) {
    return new SandboxdError("NETWORK_UNAVAILABLE", failure.message, {
      hint: "of the sandbox's network: `docker network inspect` tells what is on it; where it was removed by hand, delete the sandbox and create it anew",
      cause: error,
    });
  }
  if (unusable.test(failure.message) && statusOf(error) !== 404) {
    return new SandboxdError("COMMAND_UNUSABLE", failure.message, {
      hint: "check command, args and working_dir against the image",
      cause: error,
    });
  }
  return failure;
}

/** Of a container whose root layer was to be bounded: a storage driver that cannot says so. */
export function rootFailure(error: unknown, rootBytes: number): unknown {
  if (!(error instanceof SandboxdError) || !/storage-opt|storage driver|pquota/i.test(error.message))
    return error;
  const { message } = error;
  return new SandboxdError(
    "LIMIT_UNENFORCEABLE",
    `spec.root_bytes ${rootBytes} cannot be held here: ${message}`,
    {
      hint: "ask without root_bytes, or keep the engine's data on XFS that is mounted with pquota",
      fields: [{ field: "spec.root_bytes", description: "the engine's storage driver cannot bound it" }],
      cause: error,
    },
  );
}
