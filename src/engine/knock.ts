// Whether the engine takes new connections. From the moment that it goes down it takes none, while it ends its containers and
// tells so on the connections that it has.

import { connect } from "node:net";

/** An engine that answers at all does so in milliseconds. A service manager may hold its socket open while it is down. */
const defaultPatienceMs = 2_000;

/** Resolves to whether a call on a new connection is answered. */
export function isOpen(
  socketPath: string,
  { patienceMs = defaultPatienceMs }: { readonly patienceMs?: number } = {},
): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    const end = (answered: boolean) => {
      socket.destroy();
      resolve(answered);
    };
    socket.setTimeout(patienceMs, () => end(false));
    socket.once("data", () => end(true));
    socket.once("error", () => end(false));
    socket.once("end", () => end(false));
    socket.write("GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n");
  });
}
