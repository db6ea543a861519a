// sandboxctl forward: listens here, and carries each connection to a port of a sandbox.

import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import type { Client } from "@connectrpc/connect";
import { PortService } from "../../../../gen/sandboxd/v1/port_service_pb.ts";
import { SandboxService } from "../../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { optionValue, UsageError } from "../arguments.ts";
import { type Command, CommandFailed } from "../context.ts";
import { failureLines } from "../failure.ts";
import { printable } from "../text.ts";

interface Forward {
  /** 0: any that is free. */
  readonly local: number;
  readonly port: number;
}

const defaultAddress = "127.0.0.1";

export const forward: Command = async (context, args) => {
  const [sandboxId = "", ...words] = args.words;
  const forwards = words.map(forwardOf);
  const address = optionValue(args, "address") ?? defaultAddress;
  // one that is not there is told at once, and not at the first connection
  await context.client(SandboxService).getSandbox({ sandboxId });
  const ports = context.client(PortService);
  const ended = untilInterrupted();
  for (const { local, port } of forwards) {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      carry(ports, { sandboxId, port }, socket).catch((error: unknown) => {
        for (const line of failureLines(error, context.host)) context.warn(line);
        socket.resetAndDestroy();
      });
    });
    const taken = await listening(server, address, local);
    context.print(`${printable(taken)} -> ${printable(sandboxId)}:${port}\n`);
  }
  await ended;
  return 0;
};

/** "8080", "9090:8080", ":8080" for any free one. @throws UsageError */
function forwardOf(word: string): Forward {
  const [, local, digits = ""] = /^(?:(\d{0,5}):)?(\d{1,5})$/.exec(word) ?? [];
  const port = Number(digits);
  const forwarded = { local: local === undefined ? port : Number(local), port };
  if (port < 1 || port > mostPort || forwarded.local > mostPort)
    throw new UsageError(`${JSON.stringify(word)}: expected [LOCAL:]PORT, as 8080 or 9090:8080`);
  return forwarded;
}

const mostPort = 65_535;

async function listening(server: Server, host: string, port: number): Promise<string> {
  server.listen({ host, port });
  try {
    await once(server, "listening");
  } catch (error) {
    throw new CommandFailed(error instanceof Error ? error.message : String(error), {
      hint: "name another port here: LOCAL:PORT",
    });
  }
  const address = server.address();
  const taken = address !== null && typeof address === "object" ? address.port : port;
  return `${host.includes(":") ? `[${host}]` : host}:${taken}`;
}

/** To the end of both directions. @throws how it broke. */
async function carry(
  ports: Client<typeof PortService>,
  place: { readonly sandboxId: string; readonly port: number },
  socket: Socket,
): Promise<void> {
  const abort = new AbortController();
  let isOver = false;
  socket.on("error", () => undefined);
  socket.once("close", () => abort.abort());

  async function* requests() {
    yield place;
    for await (const data of socket.iterator({ destroyOnReturn: false })) yield { data };
  }

  try {
    for await (const { data, end } of ports.forwardPort(requests(), { signal: abort.signal })) {
      if (data.length > 0 && !socket.write(data)) await drained(socket);
      if (end) socket.end();
    }
    isOver = true;
  } catch (error) {
    // who connected has gone, and knows
    if (!abort.signal.aborted) throw error;
  } finally {
    if (isOver) socket.destroySoon();
  }
}

function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off("drain", done);
      socket.off("close", done);
      resolve();
    };
    socket.on("drain", done);
    socket.on("close", done);
  });
}

function untilInterrupted(): Promise<void> {
  return new Promise((resolve) => {
    for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(name, () => resolve());
  });
}
