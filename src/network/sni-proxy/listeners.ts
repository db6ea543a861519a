// Where the proxy takes connections: on the gateways of the tenants that need it. What cannot be had is tried again.

import { createServer, type Server, type Socket } from "node:net";
import { messageOf, SandboxdError } from "../../errors.ts";
import type { Log } from "../../observe/log.ts";

/** Whoever is gone without a word is found out within a minute or two. */
export const keepAliveMs = 60_000;

export interface ListenersOptions {
  readonly port: number;
  readonly onConnection: (gateway: string, socket: Socket) => void;
  readonly log: Log;
  /** Until what could not be had is tried again. Default: 15 s. */
  readonly retryMs?: number;
}

export interface Listeners {
  /** Already so is success. Rejects with NETWORK_UNAVAILABLE, and goes on trying. */
  listen(gateway: string): Promise<void>;
  /** Not so is success. */
  unlisten(gateway: string): Promise<void>;
  /** Why one that is wanted is not there; undefined if all are. */
  problem(): string | undefined;
  close(): Promise<void>;
}

export function createListeners({ port, onConnection, log, retryMs = 15_000 }: ListenersOptions): Listeners {
  const servers = new Map<string, Promise<Server>>();
  /** By gateway: why it is not there, and when it is tried again. */
  const missing = new Map<string, { readonly why: string; readonly retry: NodeJS.Timeout }>();

  async function open(gateway: string): Promise<Server> {
    // each direction ends by itself, and nothing is read before somebody wants it
    const server = createServer({
      allowHalfOpen: true,
      pauseOnConnect: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: keepAliveMs,
    });
    server.on("connection", (socket) => onConnection(gateway, socket));
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error) => reject(unavailable(gateway, port, error)));
      server.listen({ host: gateway, port, exclusive: true }, resolve);
    });
    server.on("error", (error) =>
      log.warn({ address: gateway, err: messageOf(error) }, "a connection could not be taken"),
    );
    return server;
  }

  async function listen(gateway: string): Promise<void> {
    const opening = servers.get(gateway) ?? open(gateway);
    servers.set(gateway, opening);
    try {
      await opening;
      found(gateway);
    } catch (error) {
      if (servers.get(gateway) === opening) {
        servers.delete(gateway);
        found(gateway);
        const retry = setTimeout(() => void listen(gateway).catch(() => undefined), retryMs).unref();
        missing.set(gateway, { why: messageOf(error), retry });
      }
      throw error;
    }
  }

  function found(gateway: string): void {
    clearTimeout(missing.get(gateway)?.retry);
    missing.delete(gateway);
  }

  async function unlisten(gateway: string): Promise<void> {
    found(gateway);
    const opening = servers.get(gateway);
    servers.delete(gateway);
    const server = await opening?.catch(() => undefined);
    // what goes through it ends with the sandboxes
    server?.close();
  }

  return {
    listen,
    unlisten,
    problem: () => missing.values().next().value?.why,
    async close() {
      await Promise.all([...servers.keys(), ...missing.keys()].map(unlisten));
    },
  };
}

function unavailable(gateway: string, port: number, error: Error): SandboxdError {
  const isTaken = "code" in error && error.code === "EADDRINUSE";
  return new SandboxdError(
    "NETWORK_UNAVAILABLE",
    `server names cannot be checked: port ${port} of ${gateway} cannot be listened on: ${messageOf(error)}`,
    {
      cause: error,
      ...(isTaken
        ? { hint: "another program has that port of every address: set [network] sni_port to a free one" }
        : {}),
    },
  );
}
