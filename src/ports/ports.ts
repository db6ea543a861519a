// TCP ports of sandboxes, for callers of the daemon: whether one may be reached, how many connections there are, and the way there.

import type { Waiting } from "../engine/runtime.ts";
import { SandboxdError } from "../errors.ts";
import type { PortRange } from "../network/policy.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import type { Forwarders, PortConnection } from "./forwarder.ts";
import { notRunning, type Port, portNotAllowed, sandboxNotFound, tooManyConnections } from "./refusals.ts";

export interface PortsOptions {
  readonly forwarders: Forwarders;
  readonly repository: Pick<Repository, "get">;
  /** Of a tenant, as it is now. */
  readonly allowedPorts: (tenant: string) => readonly PortRange[];
  /** Told of bytes that went through. */
  readonly onTransfer?: (bytes: number) => void;
  readonly limits?: Partial<PortLimits>;
}

export interface PortLimits {
  readonly ofSandbox: number;
  readonly ofHost: number;
}

export interface Ports {
  /**
   * The sandbox, if this port of it may be reached now.
   *
   * @throws SandboxdError SANDBOX_NOT_FOUND, PORT_NOT_ALLOWED, INVALID_STATE.
   */
  check(port: Port): SandboxRecord;
  /**
   * A connection, which the caller closes; it breaks off when the signal aborts.
   *
   * @throws SandboxdError as check, and PORT_UNREACHABLE, TOO_MANY_STREAMS, TOOLBOX_UNAVAILABLE.
   */
  connect(port: Port, options?: Waiting): Promise<PortConnection>;
  /** Breaks off those that may not be reached any more, with what `check` says of them: after policies have changed. */
  review(): void;
  /** How many are open, or being opened. */
  count(): number;
  /** Breaks off all. */
  close(): void;
}

const defaultLimits: PortLimits = { ofSandbox: 256, ofHost: 2_048 };

export function createPorts(options: PortsOptions): Ports {
  const { forwarders, repository, allowedPorts, onTransfer = () => {} } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const counts = new Map<string, number>();
  const open = new Map<PortConnection, Port>();
  let count = 0;

  /** Takes a place; what is returned gives it back. */
  function enter(sandboxId: string): () => void {
    const own = counts.get(sandboxId) ?? 0;
    if (own >= limits.ofSandbox) throw tooManyConnections(limits.ofSandbox, sandboxId);
    if (count >= limits.ofHost) throw tooManyConnections(limits.ofHost);
    counts.set(sandboxId, own + 1);
    count += 1;
    return () => {
      const left = (counts.get(sandboxId) ?? 1) - 1;
      if (left > 0) counts.set(sandboxId, left);
      else counts.delete(sandboxId);
      count -= 1;
    };
  }

  function check({ sandboxId, port }: Port): SandboxRecord {
    const record = repository.get(sandboxId);
    if (record === undefined) throw sandboxNotFound(sandboxId);
    const allowed = allowedPorts(record.tenant).filter(({ protocol }) => protocol === "TCP");
    if (!allowed.some((range) => isIn(port, range)))
      throw portNotAllowed({ sandboxId, port }, record.tenant, allowed);
    if (record.state !== "RUNNING") throw notRunning(record);
    return record;
  }

  return {
    check,
    async connect(port, { signal } = {}) {
      signal?.throwIfAborted();
      check(port);
      const leave = enter(port.sandboxId);
      let connection: PortConnection;
      try {
        connection = await forwarders.connect(port, signal === undefined ? {} : { signal });
      } catch (error) {
        leave();
        throw error;
      }
      let isOpen = true;
      const counted: PortConnection = {
        ...connection,
        send(bytes) {
          onTransfer(bytes.length);
          return connection.send(bytes);
        },
        async receive() {
          const bytes = await connection.receive();
          if (bytes !== undefined) onTransfer(bytes.length);
          return bytes;
        },
        close(why) {
          connection.close(why);
          if (!isOpen) return;
          isOpen = false;
          signal?.removeEventListener("abort", onAbort);
          open.delete(counted);
          leave();
        },
      };
      const onAbort = () => counted.close();
      open.set(counted, port);
      signal?.addEventListener("abort", onAbort, { once: true });
      if (signal?.aborted) counted.close();
      return counted;
    },
    review() {
      for (const [connection, port] of [...open]) {
        try {
          check(port);
        } catch (error) {
          // one that does not run breaks off by itself
          if (error instanceof SandboxdError && error.reason === "PORT_NOT_ALLOWED") connection.close(error);
        }
      }
    },
    count: () => count,
    close() {
      for (const connection of [...open.keys()]) connection.close();
    },
  };
}

const isIn = (port: number, { first, last }: PortRange): boolean => port >= first && port <= last;
