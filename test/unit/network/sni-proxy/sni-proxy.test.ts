// The proxy that checks server names, between clients and servers of TLS on the loopback network, where an address stands for a sandbox.

import { once } from "node:events";
import { type AddressInfo, createServer, connect as dial, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { connect, createServer as createTlsServer, type TLSSocket } from "node:tls";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { EffectiveEgress } from "../../../../src/network/effective.ts";
import {
  createSniProxy,
  type SniProxy,
  type SniProxyOptions,
} from "../../../../src/network/sni-proxy/sni-proxy.ts";
import { createLog } from "../../../../src/observe/log.ts";
import { testCertificate, testKey } from "../../config/fixture.ts";
import { listed, open } from "../resolver/fixture.ts";

const gateway = "127.0.0.1";
const sandbox = "127.0.77.2";
const neighbour = "127.0.77.3";
const serverAt = "127.0.88.1";
const patience = { timeout: 5_000, interval: 10 };

const checked = (...names: readonly string[]): EffectiveEgress => ({ ...listed(...names), checkSni: true });

const closed = (socket: Socket) => new Promise((resolve) => void socket.once("close", resolve));

async function freePort(): Promise<number> {
  const server = createServer().listen(0, gateway);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

describe("server names that are checked", () => {
  const policies = new Map<string, EffectiveEgress>();
  const addresses = new Map<string, readonly string[]>();
  const denied = vi.fn();
  let server: ReturnType<typeof createTlsServer>;
  let served: string[];
  let proxy: SniProxy;
  let port: number;

  const start = (options: Partial<SniProxyOptions> = {}) =>
    createSniProxy({
      port,
      client(address) {
        const egress = policies.get(address);
        return { sandboxId: `at ${address}`, ...(egress === undefined ? {} : { egress }) };
      },
      addressesOf: async (_client, _gateway, name) => addresses.get(name) ?? [],
      onDenied: denied,
      log: createLog({ level: "fatal" }),
      serverPort: (server.address() as AddressInfo).port,
      patienceMs: 2_000,
      ...options,
    });

  beforeEach(async () => {
    served = [];
    server = createTlsServer({ cert: testCertificate, key: testKey, allowHalfOpen: true }, (socket) => {
      served.push(String(socket.servername));
      socket.on("error", () => undefined);
      socket.pipe(socket);
    });
    server.on("tlsClientError", () => undefined);
    server.listen(0, serverAt);
    await once(server, "listening");
    port = await freePort();
    proxy = start();
    await proxy.listen(gateway);
    policies.set(sandbox, checked("site.example", "*.cdn.example"));
    addresses.set("site.example", [serverAt]);
    addresses.set("a.cdn.example", [serverAt]);
    addresses.set("evil.example", [serverAt]);
  });
  afterEach(async () => {
    await proxy.close();
    server.close();
    policies.clear();
    addresses.clear();
    denied.mockClear();
  });

  function ask(servername: string, from = sandbox): TLSSocket {
    const socket = dial({ host: gateway, port, localAddress: from, allowHalfOpen: true });
    socket.on("error", () => undefined);
    const client = connect({ socket, servername, rejectUnauthorized: false });
    client.on("error", () => undefined);
    return client;
  }
  const opened = async (client: TLSSocket) => {
    await once(client, "secureConnect");
    return client;
  };
  const echoed = async (client: TLSSocket) => {
    client.write("through");
    return String((await once(client, "data"))[0]);
  };
  const failureOf = async (client: TLSSocket) => String((await once(client, "error"))[0]);
  const plain = (from = sandbox): Socket => {
    const socket = dial({ host: gateway, port, localAddress: from });
    socket.on("error", () => undefined).resume();
    return socket;
  };

  test("lead to the server of that name, and to no other", async () => {
    const client = await opened(ask("site.example"));
    expect(await echoed(client)).toBe("through");
    expect(await echoed(await opened(ask("A.CDN.example")))).toBe("through");
    expect(served).toEqual(["site.example", "A.CDN.example"]);
    expect(denied).not.toHaveBeenCalled();
  });

  test("that are not allowed are told so by TLS, although they are at the same address", async () => {
    expect(await failureOf(ask("evil.example"))).toMatch(/unrecognized name/i);
    expect(await failureOf(ask("cdn.example"))).toMatch(/unrecognized name/i);
    expect(served).toEqual([]);
    expect(denied.mock.calls).toEqual([
      [`at ${sandbox}`, "evil.example"],
      [`at ${sandbox}`, "cdn.example"],
    ]);
    expect(proxy.denials().get(`at ${sandbox}`)).toBe(2);
    await vi.waitFor(() => expect(proxy.count()).toBe(0), patience);
  });

  test("are not to be left out, hidden or replaced by something else", async () => {
    expect(await failureOf(ask(""))).toMatch(/unrecognized name/i);
    const http = plain();
    http.write("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n");
    await closed(http);
    expect(denied.mock.calls.map(([, what]) => what)).toEqual([
      "TLS without a server name",
      "TLS whose first message is not TLS",
    ]);
    expect(served).toEqual([]);
  });

  test("are nothing for a sandbox whose policy does not check them", async () => {
    policies.set(neighbour, listed("site.example"));
    await failureOf(ask("site.example", neighbour));
    policies.set(neighbour, open);
    await failureOf(ask("site.example", neighbour));
    policies.delete(neighbour);
    await failureOf(ask("site.example", neighbour));
    expect(served).toEqual([]);
  });

  test("each direction ends by itself", async () => {
    const client = await opened(ask("site.example"));
    client.end("last words");
    let echo = "";
    for await (const part of client) echo += String(part);
    expect(echo).toBe("last words");
    await vi.waitFor(() => expect(proxy.count()).toBe(0), patience);
  });

  test("much goes through, at the pace of who reads", async () => {
    const client = await opened(ask("site.example"));
    const sent = Buffer.alloc(8 * 1024 ** 2, "x");
    client.write(sent);
    await sleep(100);
    let received = 0;
    for await (const part of client) {
      received += (part as Buffer).length;
      if (received === sent.length) break;
    }
    expect(received).toBe(sent.length);
  });

  test("a policy that no longer allows a name breaks off what is open to it, and nothing else", async () => {
    const [gone, kept] = [await opened(ask("site.example")), await opened(ask("a.cdn.example"))];
    policies.set(sandbox, checked("*.cdn.example"));
    proxy.review("another");
    expect(proxy.count()).toBe(2);
    proxy.review();
    await closed(gone);
    expect(await echoed(kept)).toBe("through");
    policies.set(sandbox, listed("*.cdn.example"));
    proxy.review(`at ${sandbox}`);
    await closed(kept);
  });

  test("a sandbox that ends takes its connections with it", async () => {
    policies.set(neighbour, checked("site.example"));
    const [one, other] = [await opened(ask("site.example")), await opened(ask("site.example", neighbour))];
    proxy.drop(`at ${sandbox}`);
    await closed(one);
    expect(other.destroyed).toBe(false);
    expect(await failureOf(ask("evil.example", neighbour))).toMatch(/unrecognized/i);
    proxy.forget(`at ${neighbour}`);
    await closed(other);
    expect(proxy.denials().size).toBe(0);
  });

  test("a policy that changes while the name is looked up holds", async () => {
    await proxy.close();
    const found = Promise.withResolvers<readonly string[]>();
    const looked = vi.fn(() => found.promise);
    proxy = start({ addressesOf: looked });
    await proxy.listen(gateway);
    const failure = failureOf(ask("site.example"));
    await vi.waitFor(() => expect(looked).toHaveBeenCalled(), patience);
    policies.set(sandbox, checked("other.example"));
    proxy.review();
    found.resolve([serverAt]);
    await failure;
    expect(served).toEqual([]);
  });

  test("the next address is tried where one takes no connection, and none is a broken connection", async () => {
    addresses.set("site.example", ["127.0.88.2", serverAt]);
    (await opened(ask("site.example"))).destroy();
    for (const none of [["127.0.88.2"], []]) {
      addresses.set("site.example", none);
      await failureOf(ask("site.example"));
    }
    expect(denied).not.toHaveBeenCalled();
  });

  test("who says nothing, or only half of it, is not waited for", async () => {
    await proxy.close();
    proxy = start({ patienceMs: 100 });
    await proxy.listen(gateway);
    const [silent, half] = [plain(), plain()];
    half.write(Buffer.from([22, 3, 1]));
    await Promise.all([closed(silent), closed(half)]);
    const ended = plain();
    ended.end(Buffer.from([22, 3]));
    await closed(ended);
    await vi.waitFor(() => expect(proxy.count()).toBe(0), patience);
  });

  test("one sandbox cannot take all the connections that there are", async () => {
    await proxy.close();
    proxy = start({ mostOfOne: 2 });
    await proxy.listen(gateway);
    policies.set(neighbour, checked("site.example"));
    const held = [plain(), plain()];
    await vi.waitFor(() => expect(proxy.count()).toBe(2), patience);
    await closed(plain());
    (await opened(ask("site.example", neighbour))).destroy();
    for (const one of held) one.destroy();
  });

  test("a port that another program has is told with what to do", async () => {
    await proxy.listen(gateway);
    const second = start();
    await expect(second.listen(gateway)).rejects.toMatchObject({
      reason: "NETWORK_UNAVAILABLE",
      message: expect.stringContaining(`port ${port} of ${gateway}`),
      details: { hint: expect.stringContaining("sni_port") },
    });
    expect(second.problem()).toContain(`port ${port} of ${gateway}`);
    await proxy.unlisten(gateway);
    await second.listen(gateway);
    expect(second.problem()).toBeUndefined();
    await second.close();
  });
});
