// Takes the TLS connections of sandboxes whose policy has their server names checked: reads the name from the first message, dials that
// name itself, and hands on what both sides send. So an address that an allowed name shares with others leads to the allowed one alone.

import { createServer, connect as dial, isIP, type Server, type Socket } from "node:net";
import { messageOf, SandboxdError } from "../../errors.ts";
import type { Log } from "../../observe/log.ts";
import { matchesDomain } from "../domains.ts";
import type { EffectiveEgress } from "../effective.ts";
import { type ClientHello, maxHelloBytes, readClientHello } from "./client-hello.ts";

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
  /** The addresses of a name that the policy lets its sandbox reach; `gateway` says whose answers are used again. */
  readonly addressesOf: (
    gateway: string,
    name: string,
    egress: EffectiveEgress,
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
  /** Takes connections on that gateway; already so is success. Rejects with NETWORK_UNAVAILABLE. */
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
  const servers = new Map<string, Promise<Server>>();
  const passages = new Set<Passage>();
  /** By sandbox. */
  const refused = new Map<string, number>();

  /** The policy of whoever has the address now, if it has names checked. */
  function policyAt(
    address: string,
  ): { readonly sandboxId: string; readonly egress: EffectiveEgress } | undefined {
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
    const addresses = await addressesOf(gateway, name, asked.egress);
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

  async function open(gateway: string): Promise<Server> {
    // each direction ends by itself, and nothing is read before somebody wants it
    const server = createServer({
      allowHalfOpen: true,
      pauseOnConnect: true,
      noDelay: true,
      keepAlive: true,
    });
    server.on("connection", (socket) => take(gateway, socket));
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error) => reject(unavailable(gateway, port, error)));
      server.listen({ host: gateway, port, exclusive: true }, resolve);
    });
    server.on("error", (error) =>
      log.warn({ address: gateway, err: messageOf(error) }, "a connection could not be taken"),
    );
    return server;
  }

  function drop(sandboxId: string): void {
    for (const passage of passages) if (passage.sandboxId === sandboxId) passage.end();
  }

  async function unlisten(gateway: string): Promise<void> {
    const opening = servers.get(gateway);
    servers.delete(gateway);
    const server = await opening?.catch(() => undefined);
    // what goes through it ends with the sandboxes
    server?.close();
  }

  return {
    async listen(gateway) {
      const opening = servers.get(gateway) ?? open(gateway);
      servers.set(gateway, opening);
      try {
        await opening;
      } catch (error) {
        if (servers.get(gateway) === opening) servers.delete(gateway);
        throw error;
      }
    },
    unlisten,
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
    async close() {
      await Promise.all([...servers.keys()].map(unlisten));
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

/** Resolves to what the client sent, once it can be told what that is. Rejects if it ends or takes too long. */
function firstMessage(
  socket: Socket,
  patienceMs: number,
): Promise<{ readonly hello: ClientHello; readonly sent: Buffer }> {
  return new Promise((resolve, reject) => {
    let sent = Buffer.alloc(0);
    const timer = setTimeout(() => over(() => reject(new Error("it said nothing in time"))), patienceMs);
    const onEnd = () => over(() => reject(new Error("it ended before its first message did")));
    const onData = (chunk: Buffer) => {
      sent = Buffer.concat([sent, chunk]);
      const hello = readClientHello(sent.subarray(0, maxHelloBytes));
      if (hello.kind !== "incomplete") over(() => resolve({ hello, sent }));
    };
    const over = (then: () => void) => {
      clearTimeout(timer);
      socket.pause().off("data", onData).off("end", onEnd).off("close", onEnd);
      then();
    };
    socket.on("data", onData).once("end", onEnd).once("close", onEnd).resume();
  });
}

function connected(address: string, port: number, patienceMs: number, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = dial({ host: address, port, allowHalfOpen: true, noDelay: true, keepAlive: true });
    const timer = setTimeout(() => fail(new Error(`${address} did not answer in time`)), patienceMs);
    const fail = (error: unknown) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      reject(error);
    };
    const onAbort = () => fail(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("error", fail);
    socket.once("connect", () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      socket.off("error", fail);
      resolve(socket);
    });
  });
}

/** Hands on what both send, at the pace of the slower one. */
function join(one: Socket, other: Socket, begun: Buffer): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on("error", () => undefined);
    from.once("close", () => {
      // an end that was handed on is no reason to break off what is still to be written
      if (from.readableEnded) to.destroySoon();
      else to.resetAndDestroy();
    });
  }
  other.write(begun);
  one.pipe(other);
  other.pipe(one);
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
