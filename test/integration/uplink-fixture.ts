// A scheduler and a host over loopback, closed after each test, and a connection between them that can fall silent.

import { once } from "node:events";
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { vi } from "vitest";
import {
  createDevScheduler,
  type DevScheduler,
  type DevSchedulerOptions,
} from "../../src/dev-scheduler/server.ts";
import {
  createUplink,
  type Uplink,
  type UplinkLimits,
  type UplinkOptions,
} from "../../src/scheduler/uplink.ts";
import { silentLog } from "../unit/scheduler/fixture.ts";

export const hostId = "host-1";
const quick: Partial<UplinkLimits> = { backoffBaseMs: 20, backoffCapMs: 50, leaveTimeoutMs: 500 };
const cleanups: (() => Promise<void> | void)[] = [];

/** Closes what the last test opened, the newest first; for `afterEach`. */
export async function closeAll(): Promise<void> {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}

/** Closes something with the rest. */
export function closeLater(close: () => Promise<void> | void): void {
  cleanups.push(close);
}

/** What is on the heap after everything that can be collected was. Unit: MiB. */
export function heapMib(): number {
  setFlagsFromString("--expose-gc");
  runInNewContext("gc")();
  return process.memoryUsage().heapUsed / 2 ** 20;
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export async function schedulerOf(options: Partial<DevSchedulerOptions> = {}): Promise<DevScheduler> {
  const scheduler = await createDevScheduler({
    listen: { host: "127.0.0.1", port: 0 },
    log: silentLog,
    ...options,
  });
  let closed: Promise<void> | undefined;
  const close = () => (closed ??= scheduler.close());
  cleanups.push(close);
  return { ...scheduler, close };
}

export function uplinkOf(
  options: Partial<UplinkOptions> & Pick<UplinkOptions, "source" | "endpoints">,
): Uplink {
  const uplink = createUplink({ log: silentLog, ...options, limits: { ...quick, ...options.limits } });
  cleanups.push(() => uplink.close());
  uplink.start();
  return uplink;
}

export function until(check: () => void, timeoutMs = 10_000): Promise<void> {
  return vi.waitFor(check, { timeout: timeoutMs, interval: 10 });
}

export const portOf = (url: string): number => Number(new URL(url).port);

/** Forwards to a port until told to swallow everything in silence. */
export async function proxyTo(port: number) {
  const sockets = new Set<Socket>();
  let silent = false;
  const server = createServer((near) => {
    const far = connectTcp(port, "127.0.0.1");
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on("data", (bytes) => {
        if (!silent) to.write(bytes);
      });
      from.on("error", () => to.destroy());
      from.on("close", () => to.destroy());
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    connections: () => sockets.size / 2,
    silence: () => {
      silent = true;
    },
    speak: () => {
      silent = false;
    },
  };
}
