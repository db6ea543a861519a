import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { expect, test, vi } from "vitest";
import { createListeners } from "../../../../src/network/sni-proxy/listeners.ts";
import { createLog } from "../../../../src/observe/log.ts";

const log = createLog({ level: "fatal" });
const gateway = "127.0.0.1";

test("a port that another program has is tried again until it is free, or is not wanted any more", async () => {
  const other = createServer().listen(0, gateway);
  await once(other, "listening");
  const { port } = other.address() as AddressInfo;
  const listeners = createListeners({
    port,
    onConnection: (_, socket) => socket.destroy(),
    log,
    retryMs: 20,
  });
  await expect(listeners.listen(gateway)).rejects.toMatchObject({ reason: "NETWORK_UNAVAILABLE" });
  expect(listeners.problem()).toContain(`port ${port} of ${gateway}`);
  other.close();
  await vi.waitFor(() => expect(listeners.problem()).toBeUndefined(), { timeout: 5_000, interval: 10 });
  await listeners.listen(gateway);

  const second = createListeners({ port, onConnection: () => undefined, log, retryMs: 20 });
  await expect(second.listen(gateway)).rejects.toThrow();
  await second.unlisten(gateway);
  expect(second.problem()).toBeUndefined();
  await listeners.close();
  await new Promise((resolve) => setTimeout(resolve, 100));
  // nobody has taken it
  await listeners.listen(gateway);
  await Promise.all([listeners.close(), second.close()]);
});
