// What the tests of the whole program rely on: that a daemon of their own serves, dies, comes back and leaves nothing.

import { existsSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { HostService } from "../../gen/sandboxd/v1/host_service_pb.ts";
import { type Daemon, startDaemon } from "../harness/daemon.ts";
import { engineObstacle } from "../harness/engine.ts";

let daemon: Daemon | undefined;

afterEach(async () => {
  await daemon?.cleanup();
  daemon = undefined;
});

test.skipIf(engineObstacle)("a daemon serves again on its state after kill -9", async () => {
  daemon = await startDaemon();
  const host = daemon.client(HostService);
  expect((await host.getHost({})).host?.hostId).toBe(daemon.hostId);
  await daemon.kill("SIGKILL");
  expect(daemon.pid()).toBeUndefined();
  await daemon.start();
  expect((await host.getHost({})).host?.hostId).toBe(daemon.hostId);
});

test.skipIf(engineObstacle)("a daemon that is told to stop ends with status 0", async () => {
  daemon = await startDaemon();
  expect(await daemon.stop()).toBe(0);
});

test.skipIf(engineObstacle)(
  "a configuration that is refused is shown with what the daemon said",
  async () => {
    await expect(startDaemon({ config: { log: { level: "loud" } } })).rejects.toThrow(/log\.level/);
  },
);

test.skipIf(engineObstacle)("cleanup removes the state and the socket", async () => {
  daemon = await startDaemon();
  await daemon.cleanup();
  expect([existsSync(daemon.stateDirectory), existsSync(daemon.socketPath)]).toEqual([false, false]);
});
