import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { isOpen } from "../../../src/engine/knock.ts";

/** A socket at which each connection is met so. */
async function socketWith(meet: (socket: Socket) => void): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "knock-"));
  const path = join(directory, "docker.sock");
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    meet(socket);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    rmSync(directory, { recursive: true });
  });
  return path;
}

test.each<[string, boolean, (socket: Socket) => void]>([
  [
    "that answers is open",
    true,
    (socket) => socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\n\r\n")),
  ],
  ["that closes is not", false, (socket) => socket.end()],
  ["that a service manager holds while it is down is not", false, () => {}],
])("an engine %s", async (_name, open, meet) => {
  expect(await isOpen(await socketWith(meet), { patienceMs: 100 })).toBe(open);
});

test("an engine whose socket is gone is not open", async () => {
  expect(await isOpen(join(tmpdir(), "no-such-engine.sock"))).toBe(false);
});
