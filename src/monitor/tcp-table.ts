// Which TCP ports something listens on, from the kernel's table of a network namespace. Nothing is connected to.

import { read } from "node:fs";
import { promisify } from "node:util";

/** TCP_LISTEN (include/net/tcp_states.h). */
const listenState = "0A";

/** The listening sockets come first; a table with more of them, some thousands, is not read further. */
const mostBytes = 1_024 * 1_024;
const chunkBytes = 64 * 1_024;

const readInto = promisify(read);

/**
 * The port of a line of /proc/net/tcp or tcp6 (proc(5)) whose socket listens; `other` for a socket in another state;
 * undefined for what is no socket's line.
 *
 *     sl  local_address rem_address   st …
 *      0: 0100007F:1F90 00000000:0000 0A …
 */
export function listeningPort(line: string): number | "other" | undefined {
  const [, port, state] =
    /^ *\d+: (?:[0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) /.exec(line) ??
    [];
  if (port === undefined) return undefined;
  return state === listenState ? Number.parseInt(port, 16) : "other";
}

/** Whether a socket listens on the port, on whatever address, by an open /proc/PID/net/tcp or tcp6. */
export async function listensOn(descriptor: number, port: number): Promise<boolean> {
  for await (const line of linesOf(descriptor)) {
    const found = listeningPort(line);
    if (found === port) return true;
    if (found === "other") return false;
  }
  return false;
}

async function* linesOf(descriptor: number): AsyncIterable<string> {
  const buffer = Buffer.alloc(chunkBytes);
  let rest = "";
  let total = 0;
  while (total < mostBytes) {
    const { bytesRead } = await readInto(descriptor, buffer, 0, chunkBytes, null);
    if (bytesRead === 0) return;
    total += bytesRead;
    const lines = `${rest}${buffer.toString("latin1", 0, bytesRead)}`.split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}
