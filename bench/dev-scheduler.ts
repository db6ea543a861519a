// A scheduler for the daemon to report to, so that its report is part of what is measured.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { launcher } from "../tools/lib/node.mjs";

const readyTimeoutMs = 10_000;

export interface DevScheduler {
  readonly url: string;
  close(): Promise<void>;
}

/** Starts the program's own scheduler and waits until it listens. */
export async function startDevScheduler(): Promise<DevScheduler> {
  const port = await freePort();
  const address = `127.0.0.1:${port}`;
  const child = spawn(launcher, ["dev-scheduler", "--listen", address], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const ended = once(child, "exit");
  const close = async (): Promise<void> => {
    child.kill("SIGKILL");
    await ended;
  };
  const deadline = performance.now() + readyTimeoutMs;
  while (!(await listens(port))) {
    if (child.exitCode !== null) throw new Error(`the scheduler ended with status ${child.exitCode}`);
    if (performance.now() > deadline) {
      await close();
      throw new Error(`the scheduler did not listen within ${readyTimeoutMs} ms`);
    }
    await sleep(50);
  }
  return { url: `http://${address}`, close };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") throw new Error("a TCP server without a port");
  return address.port;
}

async function listens(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
