// Takes the TLS connections of sandboxes whose policy has their server names checked: reads the name from the first message, dials that
// name itself, and hands on what both sides send. So an address that an allowed name shares with others leads to the allowed one alone.

import { isIP, type Socket } from "node:net";
import { messageOf } from "../../errors.ts";
import type { Log } from "../../observe/log.ts";
import { matchesDomain } from "../domains.ts";
import type { EffectiveEgress } from "../effective.ts";
import type { ClientHello } from "./client-hello.ts";
import { createListeners } from "./listeners.ts";
import { connected, firstMessage, join } from "./passage.ts";

/** Who connects. `egress` is absent for one that reaches nothing outside. */
export interface SniClient {
  readonly sandboxId: string;
  readonly egress?: EffectiveEgress;
}

export interface SniProxyOptions {
  /** Of every gateway, where the rules lead connections to TCP 443. */
  readonly port: number;
  /** Whose address that is; read for each connection, and again for all of them at a review. */
  readonly client: (address: string) => SniClient | undefined;
  /** The addresses of a name that a policy lets its sandbox reach; `gateway` says whose answers are used again. */
  readonly addressesOf: (
    client: Required<SniClient>,
    gateway: string,
    name: string,
  ) => Promise<readonly string[]>;
  readonly onDenied: (sandboxId: string, destination: string) => void;
  readonly log: Log;
  /** Of servers. Default: 443. */
  readonly serverPort?: number;
  /** Until the first message is there, and until a server has taken the connection. Default: 10 s. */
  readonly patienceMs?: number;
  /** Connections of one sandbox. Default: 512. */
  readonly mostOfOne?: number;
}

export interface SniProxy {
  /** Takes connections on that gateway; already so is success. Rejects with NETWORK_UNAVAILABLE, and goes on trying. */
  listen(gateway: string): Promise<void>;
  /** Not so is success. */
  unlisten(gateway: string): Promise<void>;
  /** Policies changed: connections that are no longer allowed break off. `sandboxId`: only those of one. */
  review(sandboxId?: string): void;
  /** A sandbox has ended: so do its connections, whose other end nobody would tell. */
  drop(sandboxId: string): void;
  /** How much was refused, by sandbox, over the life of this object. */
  denials(): ReadonlyMap<string, number>;
  /** Drops what is kept of a sandbox, and its connections. */
  forget(sandboxId: string): void;
  /** Connections that there are. */
  count(): number;
  /** Why connections that should be taken are not, in words; undefined if they are. */
  problem(): string | undefined;
  close(): Promise<void>;
}

interface Passage {
  readonly address: string;
  readonly sandboxId: string;
  /** Once it is known. */
  name?: string;
  end(): void;
}

/** Of all sandboxes: two descriptors each. */
const most = 4_096;
/** Addresses of a name that are tried. */
const mostTries = 3;
/** A fatal alert that says "unrecognized_name" (RFC 6066, 3): programs tell it, where a connection that breaks off may be anything. */
const unrecognizedName = Buffer.from([21, 3, 3, 0, 2, 2, 112]);

export function createSniProxy(options: SniProxyOptions): SniProxy {
  const { port, client, addressesOf, onDenied, log } = options;
  const { serverPort = 443, patienceMs = 10_000, mostOfOne = 512 } = options;
  const listeners = createListeners({ port, onConnection: take, log });
  const passages = new Set<Passage>();
  /** By sandbox. */
  const refused = new Map<string, number>();

  /** The policy of whoever has the address now, if it has names checked. */
  function policyAt(address: string): Required<SniClient> | undefined {
    const { sandboxId, egress } = client(address) ?? {};
    return sandboxId === undefined || egress?.checkSni !== true ? undefined : { sandboxId, egress };
  }

  function take(gateway: string, socket: Socket): void {
    const address = socket.remoteAddress ?? "";
    const others = [...passages].filter((one) => one.address === address).length;
    const sandboxId = policyAt(address)?.sandboxId;
    if (sandboxId === undefined || passages.size >= most || others >= mostOfOne) {
      socket.resetAndDestroy();
      return;
    }
    const ending = new AbortController();
    const passage: Passage = {
      address,
      sandboxId,
      end() {
        ending.abort();
        socket.resetAndDestroy();
      },
    };
    passages.add(passage);
    socket.once("close", () => {
      ending.abort();
      passages.delete(passage);
    });
    socket.on("error", () => undefined);
    pass(gateway, socket, passage, ending.signal).catch((error: unknown) => {
      log.debug({ address, err: messageOf(error) }, "a connection came to nothing");
      passage.end();
    });
  }

  async function pass(gateway: string, socket: Socket, passage: Passage, signal: AbortSignal): Promise<void> {
    const { hello, sent } = await firstMessage(socket, patienceMs);
    const asked = policyAt(passage.address);
    if (asked === undefined) throw new Error("its policy has changed");
    if (
      hello.kind !== "hello" ||
      hello.serverName === undefined ||
      !isAllowed(asked.egress, hello.serverName)
    ) {
      refused.set(asked.sandboxId, (refused.get(asked.sandboxId) ?? 0) + 1);
      onDenied(asked.sandboxId, deniedDestination(hello));
      socket.end(unrecognizedName, () => socket.destroySoon());
      return;
    }
    const name = hello.serverName;
    passage.name = name;
    const addresses = await addressesOf(asked, gateway, name);
    if (addresses.length === 0) throw new Error("the name has no address that may be reached");
    const server = await firstOf(addresses, signal);
    if (signal.aborted) {
      server.destroy();
      return;
    }
    join(socket, server, sent);
  }

  async function firstOf(addresses: readonly string[], signal: AbortSignal): Promise<Socket> {
    let failure: unknown;
    for (const address of addresses.slice(0, mostTries)) {
      try {
        return await connected(address, serverPort, patienceMs, signal);
      } catch (error) {
        signal.throwIfAborted();
        failure = error;
      }
    }
    throw failure;
  }

  function drop(sandboxId: string): void {
    for (const passage of passages) if (passage.sandboxId === sandboxId) passage.end();
  }

  return {
    listen: listeners.listen,
    unlisten: listeners.unlisten,
    review(sandboxId) {
      for (const passage of passages) {
        if (sandboxId !== undefined && sandboxId !== passage.sandboxId) continue;
        const now = policyAt(passage.address);
        const isTheirs = now?.sandboxId === passage.sandboxId;
        if (!isTheirs || (passage.name !== undefined && !isAllowed(now.egress, passage.name))) passage.end();
      }
    },
    drop,
    denials: () => refused,
    forget(sandboxId) {
      drop(sandboxId);
      refused.delete(sandboxId);
    },
    count: () => passages.size,
    problem: listeners.problem,
    async close() {
      await listeners.close();
      for (const passage of passages) passage.end();
    },
  };
}

function isAllowed({ allowDomains }: EffectiveEgress, name: string): boolean {
  return isIP(name) === 0 && allowDomains.some((pattern) => matchesDomain(pattern, name));
}

/** What an operator reads of it in an event. */
function deniedDestination(hello: ClientHello): string {
  if (hello.kind === "hello") return hello.serverName ?? "TLS without a server name";
  return hello.kind === "unreadable" ? `TLS whose first message ${hello.why}` : "no TLS";
}
