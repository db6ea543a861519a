// Which HTTP a plain connection speaks, told by its first bytes: HTTP/2 always begins with the same 24 (RFC 9113, 3.4).
import type { Socket } from "node:net";

const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

/**
 * Calls `decided` with the protocol once, with all bytes back in the socket, which is paused. Destroys the socket and
 * calls `refused` when the first bytes do not come in time. Reads no more than it takes to tell.
 */
export function sniffProtocol(
  socket: Socket,
  timeoutMs: number,
  decided: (protocol: "h1" | "h2") => void,
  refused: () => void,
): void {
  let seen: Buffer = Buffer.alloc(0);
  const timer = setTimeout(() => {
    stop();
    refused();
    socket.destroy();
  }, timeoutMs);
  function onData(chunk: Buffer): void {
    seen = seen.byteLength === 0 ? chunk : Buffer.concat([seen, chunk]);
    const compared = Math.min(seen.byteLength, preface.byteLength);
    const same = seen.subarray(0, compared).equals(preface.subarray(0, compared));
    if (same && compared < preface.byteLength) {
      return;
    }
    stop();
    socket.pause();
    socket.unshift(seen);
    decided(same ? "h2" : "h1");
  }
  function stop(): void {
    clearTimeout(timer);
    socket.off("data", onData);
    socket.off("close", stop);
  }
  socket.on("data", onData);
  socket.on("close", stop);
}
