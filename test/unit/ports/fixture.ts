// Ports on a real toolbox of this machine, whose loopback interface is the sandbox's.

import { once } from "node:events";
import { existsSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { createForwarders, type Forwarders, type PortConnection } from "../../../src/ports/forwarder.ts";
import { type Connection, connectionOver, type PortLink } from "../../../src/toolbox/connection.ts";
import { startToolbox, type TestToolbox } from "../toolbox/keeper-fixture.ts";

export const sandboxId = "one";

export interface Bench {
  readonly toolbox: TestToolbox;
  readonly link: PortLink;
  readonly forwarders: Forwarders;
  /** Processes of the forwarder. */
  forwarderPids(): readonly number[];
  /** Whether its socket is there. */
  isThere(): boolean;
  /** How often one was asked for. */
  starts(): number;
  connect(port: number): Promise<PortConnection>;
}

export async function openBench({ idleMs = 60_000, limits = [] as readonly string[] } = {}): Promise<Bench> {
  const toolbox = await startToolbox({ limits });
  onTestFinished(() => toolbox.close());
  const path = join(toolbox.directory, "forward.sock");
  let starts = 0;
  const link: PortLink = {
    async open() {
      starts += 1;
      return toolbox.open();
    },
    openProcess: () => Promise.resolve(undefined),
    openForwarder: () => connected(path),
  };
  const forwarders = createForwarders({ link, idleMs });
  return {
    toolbox,
    link,
    forwarders,
    forwarderPids: () => toolbox.processes().filter((pid) => pid !== toolbox.server.pid),
    isThere: () => existsSync(path),
    starts: () => starts,
    connect: (port) => forwarders.connect({ sandboxId, port }),
  };
}

export async function connected(path: string): Promise<Connection | undefined> {
  const socket = connect(path);
  try {
    await once(socket, "connect");
  } catch {
    return undefined;
  }
  return connectionOver(socket);
}

/** A server on this machine's loopback interface, for as long as the test runs. Both halves of its connections end by themselves. */
export async function serve(
  handle: (socket: Socket) => void,
  host = "127.0.0.1",
): Promise<{ readonly port: number; readonly server: Server; readonly sockets: ReadonlySet<Socket> }> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", () => undefined);
    handle(socket);
  });
  server.listen(0, host);
  await once(server, "listening");
  onTestFinished(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return { port: (server.address() as AddressInfo).port, server, sockets };
}

/** All that comes, to the end. */
export async function readAll(connection: PortConnection): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (;;) {
    const bytes = await connection.receive();
    if (bytes === undefined) return Buffer.concat(parts);
    parts.push(bytes);
  }
}
