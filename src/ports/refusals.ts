// How connections to ports are refused or broken: the words of each error.

import { SandboxdError } from "../errors.ts";
import type { PortRange } from "../network/policy.ts";
import type { SandboxRecord } from "../sandbox/record.ts";

/** What is asked for, as a caller names it. */
export interface Port {
  readonly sandboxId: string;
  readonly port: number;
}

const factsOf = ({ sandboxId, port }: Port) => ({ sandbox_id: sandboxId, port: String(port) });

export function sandboxNotFound(id: string): SandboxdError {
  return new SandboxdError("SANDBOX_NOT_FOUND", `there is no sandbox "${id}"`, {
    metadata: { sandbox_id: id },
  });
}

export function notRunning({ id, state }: SandboxRecord): SandboxdError {
  return new SandboxdError("INVALID_STATE", `sandbox "${id}" is ${state}; its ports cannot be reached`, {
    hint: state === "PAUSED" ? "resume it first" : "start it first",
    metadata: { sandbox_id: id, state },
  });
}

export function portNotAllowed(port: Port, tenant: string, allowed: readonly PortRange[]): SandboxdError {
  const ranges = allowed.map(({ first, last }) => (first === last ? `${first}` : `${first}-${last}`));
  const which = ranges.length === 0 ? "none" : ranges.slice(0, 16).join(", ");
  return new SandboxdError(
    "PORT_NOT_ALLOWED",
    `port: ${port.port} of sandbox "${port.sandboxId}" may not be reached; allowed are ${which}`,
    {
      hint: `add it to network.forward_ports of tenant "${tenant}" by PutTenant`,
      fields: [{ field: "port", description: `is not among ${which}` }],
      metadata: factsOf(port),
    },
  );
}

export function nobodyListens(port: Port): SandboxdError {
  return new SandboxdError(
    "PORT_UNREACHABLE",
    `nobody listens on port ${port.port} of sandbox "${port.sandboxId}"`,
    {
      hint: "the program inside must listen on 127.0.0.1, ::1, or on all addresses; it may be starting",
      retryDelayMs: 500,
      metadata: { ...factsOf(port), errno: "ECONNREFUSED" },
    },
  );
}

export function portUnreachable(port: Port, errno: string): SandboxdError {
  return new SandboxdError(
    "PORT_UNREACHABLE",
    `port ${port.port} of sandbox "${port.sandboxId}" cannot be reached: ${errno}`,
    { hint: "the program that listens there may be stuck", metadata: { ...factsOf(port), errno } },
  );
}

export function brokenOff(port: Port, errno?: string): SandboxdError {
  const why = errno === undefined ? "the sandbox or its forwarder has ended" : errno;
  return new SandboxdError(
    "PORT_UNREACHABLE",
    `the connection to port ${port.port} of sandbox "${port.sandboxId}" broke off: ${why}`,
    { metadata: { ...factsOf(port), ...(errno === undefined ? {} : { errno }) } },
  );
}

export function tooManyConnections(limit: number, sandboxId?: string): SandboxdError {
  const whose = sandboxId === undefined ? "sandboxes of this host" : `sandbox "${sandboxId}"`;
  return new SandboxdError(
    "TOO_MANY_STREAMS",
    `${limit} connections to ports of ${whose} are open, the most there may be`,
    { hint: "close some of them", metadata: { limit: String(limit) } },
  );
}

/** Why no forwarder could be started. */
export function withoutForwarder(sandboxId: string, errno: string): SandboxdError {
  const metadata = { sandbox_id: sandboxId, errno };
  if (errno === "EAGAIN" || errno === "ENOMEM") {
    return new SandboxdError(
      "PROCESS_LIMIT_REACHED",
      `sandbox "${sandboxId}" has no process or memory left for the forwarder of its ports (${errno})`,
      { hint: "end some of its processes, or raise its limits by UpdateSandbox", metadata },
    );
  }
  if (errno === "EPROTO") {
    return new SandboxdError(
      "TOOLBOX_UNAVAILABLE",
      `the toolbox of sandbox "${sandboxId}" cannot forward ports`,
      { hint: "it is of an earlier release: delete the sandbox and create it again", metadata },
    );
  }
  return new SandboxdError(
    "TOOLBOX_UNAVAILABLE",
    `the forwarder of the ports of sandbox "${sandboxId}" cannot be had: ${errno}`,
    { hint: "a program in the sandbox ends it or took its place; restart the sandbox", metadata },
  );
}
