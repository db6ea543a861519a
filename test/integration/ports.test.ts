// Ports of sandboxes, end to end: a real web server in one, reached by ForwardPort, by the preview and by sandboxctl, and what comes of all
// that can end meanwhile.

import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ForwardPortRequest, PortService } from "../../gen/sandboxd/v1/port_service_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { ctl, startCtl } from "../harness/sandboxctl.ts";
import {
  eventually,
  type LocalHost,
  mebibyte,
  present,
  refusalOf,
  specOf,
  startHost,
  tenant,
} from "../harness/sandboxes.ts";

/** A web server on 8080; beside it one that echoes, one that never ends, and one that speaks to WebSockets. */
const serving = `
  mkdir -p /tmp/www/cgi-bin
  echo 'hello from inside' > /tmp/www/index.html
  printf '#!/bin/sh\\nprintf "Content-Type: text/plain\\\\r\\\\n\\\\r\\\\n"; sha256sum\\n' > /tmp/www/cgi-bin/hash
  printf '#!/bin/sh\\nwhile read -r line && [ "\${#line}" -gt 1 ]; do :; done
printf "HTTP/1.1 101 Switching Protocols\\\\r\\\\nConnection: Upgrade\\\\r\\\\nUpgrade: websocket\\\\r\\\\n\\\\r\\\\nready "; exec cat\\n' > /tmp/socket
  chmod +x /tmp/www/cgi-bin/hash /tmp/socket
  httpd -p 127.0.0.1:8080 -h /tmp/www
  nc -ll -p 9000 -e cat &
  nc -ll -p 9001 -e yes &
  nc -ll -p 9002 -e /tmp/socket &
  exec sleep 1000`;

const roomy = { cpuMillis: 2_000n, memoryBytes: BigInt(128 * mebibyte), pids: 64n };
const patience = { timeout: 10_000, interval: 50 };
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** A port as a caller has it. */
interface Forwarded {
  send(data: Uint8Array): void;
  end(): void;
  /** Resolves once the connection is there. */
  readonly open: Promise<void>;
  /** All that comes, until the end of that direction. */
  rest(): Promise<Buffer>;
  next(): Promise<Buffer>;
  /** Resolves at the end of the call. */
  readonly over: Promise<void>;
  cancel(): void;
}

function forward(ports: Client<typeof PortService>, sandboxId: string, port: number): Forwarded {
  const abort = new AbortController();
  const asked: (Partial<Pick<ForwardPortRequest, "sandboxId" | "port" | "data">> | undefined)[] = [
    { sandboxId, port },
  ];
  let wake = () => {};
  const say = (one: (typeof asked)[number]) => {
    asked.push(one);
    wake();
  };
  async function* requests() {
    for (;;) {
      while (asked.length === 0) await new Promise<void>((resolve) => (wake = resolve));
      const one = asked.shift();
      if (one === undefined) return;
      yield one;
    }
  }
  const answers = ports.forwardPort(requests(), { signal: abort.signal })[Symbol.asyncIterator]();
  const over = Promise.withResolvers<void>();
  over.promise.catch(() => undefined);
  let isAtEnd = false;
  const next = async () => {
    try {
      const { done, value } = await answers.next();
      if (done === true) throw new Error("the call has ended");
      if (value.end) {
        isAtEnd = true;
        answers.next().then(() => over.resolve(), over.reject);
      }
      return Buffer.from(value.data);
    } catch (error) {
      over.reject(error);
      throw error;
    }
  };
  const open = next().then(() => undefined);
  open.catch(() => undefined);
  return {
    send: (data) => say({ data }),
    end: () => say(undefined),
    open,
    next: () => open.then(next),
    async rest() {
      await open;
      const parts: Buffer[] = [];
      while (!isAtEnd) parts.push(await next());
      return Buffer.concat(parts);
    },
    over: over.promise,
    cancel: () => abort.abort(),
  };
}

interface Page {
  readonly status: number;
  readonly text: string;
  readonly location: string;
  readonly cookie: string;
}

/** As a browser, which would find the name at the listener. */
function get(url: string, headers: Readonly<Record<string, string>> = {}): Promise<Page> {
  const { host, port, pathname, search } = new URL(url);
  return new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port, path: pathname + search, headers: { ...headers, host } });
    sent.on("error", reject);
    sent.on("response", (response) => {
      let text = "";
      response.on("data", (bytes: Buffer) => (text += bytes.toString()));
      response.on("end", () => {
        const [cookie = ""] = response.headers["set-cookie"]?.[0]?.split(";") ?? [];
        resolve({
          status: response.statusCode ?? 0,
          text,
          location: response.headers.location ?? "",
          cookie,
        });
      });
    });
    sent.end();
  });
}

/** Opens a WebSocket, as far as the server inside knows of one, and reads what that says first. */
async function upgraded({ url, token }: { readonly url: string; readonly token: string }): Promise<Socket> {
  const { host, port } = new URL(url);
  const socket = connect({ host: "127.0.0.1", port: Number(port) });
  let received = "";
  const listen = (bytes: Buffer) => (received += bytes.toString());
  socket.on("data", listen);
  socket.write(
    `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer ${token}\r\n\r\n`,
  );
  await expect.poll(() => received, patience).toMatch(/^HTTP\/1\.1 101 .*\r\n\r\nready $/s);
  socket.off("data", listen);
  return socket;
}

describe.skipIf(engineObstacle !== undefined)(`ports of sandboxes (${engineObstacle ?? "engine"})`, () => {
  let host: LocalHost;
  let ports: Client<typeof PortService>;
  let containerId: string;
  beforeAll(async () => {
    host = await startHost({ config: { preview: { address: "127.0.0.1:0" } } });
    ports = host.daemon.client(PortService);
    containerId = present((await host.run("web", serving, roomy)).status).containerId;
    await untilServing("web");
  });
  afterAll(() => host?.daemon.cleanup());

  async function allow(first: number, last: number): Promise<void> {
    await host.tenants.putTenant({ tenant, network: { forwardPorts: [{ first, last }] } });
  }

  async function untilServing(id: string): Promise<void> {
    await eventually(
      "the web server",
      async () => {
        const call = forward(ports, id, 8080);
        await call.open;
        call.end();
        await call.rest();
        return true;
      },
      (isThere) => isThere,
    );
  }

  /** Processes of the sandbox with this command, as the host numbers them; asked of the engine, so also while there is no daemon. */
  async function processesOf(command: string): Promise<readonly number[]> {
    const { Processes: rows } = await host.docker.getContainer(containerId).top({ ps_args: "-eo pid,args" });
    return (rows as readonly (readonly string[])[])
      .filter((row) => row.slice(1).join(" ").startsWith(command))
      .map(([pid]) => Number(pid));
  }

  const residentBytes = () =>
    Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${host.daemon.pid()}/status`, "utf8"))?.[1]) * 1024;

  test("only those that the tenant's policy names may be reached: 8080, unless it says otherwise", async () => {
    const call = forward(ports, "web", 8080);
    call.send(Buffer.from("GET / HTTP/1.0\r\n\r\n"));
    call.end();
    const answer = (await call.rest()).toString();
    expect(answer).toMatch(/^HTTP\/1\.[01] 200 OK\r\n/);
    expect(answer).toContain("hello from inside");
    await call.over;
    const refused = await refusalOf(forward(ports, "web", 9000).open);
    expect(refused).toMatchObject({ code: "PermissionDenied", reason: "PORT_NOT_ALLOWED" });
    expect(refused.message).toContain(`network.forward_ports of tenant "${tenant}"`);
    await allow(8080, 9999);
    const allowed = forward(ports, "web", 9000);
    await allowed.open;
    allowed.cancel();
    // the sandbox has no network but its own loopback interface, and no port of it is published
    const { HostConfig, NetworkSettings } = await host.docker.getContainer(containerId).inspect();
    expect([HostConfig.NetworkMode, HostConfig.PortBindings ?? {}]).toEqual(["none", {}]);
    expect(Object.keys(NetworkSettings.Ports ?? {})).toEqual([]);
  });

  test("refusals say why", async () => {
    await allow(8080, 9999);
    const reason = async (call: Promise<unknown>) => (await refusalOf(call)).reason;
    expect(await reason(forward(ports, "web", 9998).open)).toBe("PORT_UNREACHABLE");
    expect(await reason(forward(ports, "nowhere", 8080).open)).toBe("SANDBOX_NOT_FOUND");
    expect(await reason(forward(ports, "", 8080).open)).toBe("INVALID_FIELD");
    expect(await reason(forward(ports, "web", 0).open)).toBe("INVALID_FIELD");
    expect(await reason(ports.createPreview({ sandboxId: "web", port: 80 }))).toBe("PORT_NOT_ALLOWED");
    const twice = forward(ports, "web", 9000);
    await twice.open;
    await host.sandboxes.pauseSandbox({ sandboxId: "web" });
    expect(await reason(forward(ports, "web", 8080).open)).toBe("INVALID_STATE");
    await host.sandboxes.resumeSandbox({ sandboxId: "web" });
    // what was open before goes on
    twice.send(Buffer.from("still"));
    expect((await twice.next()).toString()).toBe("still");
    twice.cancel();
  });

  test("much goes through in both directions at once, and is the same", async () => {
    await allow(8080, 9999);
    const sent = randomBytes(12 * mebibyte + 5);
    const call = forward(ports, "web", 9000);
    for (let from = 0; from < sent.length; from += mebibyte) call.send(sent.subarray(from, from + mebibyte));
    call.end();
    const received = await call.rest();
    expect(sha256(received)).toBe(sha256(sent));
    await call.over;
    await expect.poll(() => processesOf("cat"), patience).toHaveLength(0);
  });

  test("a caller that does not read holds the program back, and the daemon does not grow", async () => {
    await allow(8080, 9999);
    const call = forward(ports, "web", 9001);
    await call.next();
    await sleep(500);
    const before = residentBytes();
    await sleep(1_000);
    expect(residentBytes() - before).toBeLessThan(8 * mebibyte);
    call.cancel();
    await expect.poll(() => processesOf("yes"), patience).toHaveLength(0);
  });

  test("a forwarder that is ended from inside breaks what it carried, and is there for the next", async () => {
    await allow(8080, 9999);
    const call = forward(ports, "web", 9000);
    call.send(Buffer.from("one"));
    expect((await call.next()).toString()).toBe("one");
    for (const pid of await processesOf("/.sandboxd/toolbox serve")) process.kill(pid, "SIGKILL");
    expect((await refusalOf(call.rest())).reason).toBe("PORT_UNREACHABLE");
    const next = forward(ports, "web", 9000);
    next.send(Buffer.from("two"));
    expect((await next.next()).toString()).toBe("two");
    next.cancel();
  });

  test("a daemon that is killed leaves no connection inside, and the next one finds the ports", async () => {
    await allow(8080, 9999);
    const call = forward(ports, "web", 9000);
    call.send(Buffer.from("one"));
    await call.next();
    expect(await processesOf("cat")).toHaveLength(1);
    await host.daemon.kill("SIGKILL");
    await expect(call.rest()).rejects.toThrow();
    await expect.poll(() => processesOf("cat"), patience).toHaveLength(0);
    await host.daemon.start();
    await untilServing("web");
  });

  test("the preview serves a browser, and a WebSocket", async () => {
    await allow(8080, 9999);
    const { url, token, expireTime } = await ports.createPreview({ sandboxId: "web", port: 8080 });
    expect(new URL(url).hostname).toMatch(/^8080-web-[0-9a-f]{12}\.localhost$/);
    expect(Number(expireTime?.seconds) - Date.now() / 1_000).toBeGreaterThan(3_590);
    expect((await get(new URL("/", url).href)).status).toBe(401);
    const first = await get(url);
    expect([first.status, first.location]).toEqual([302, new URL("/", url).href]);
    const cookie = { cookie: first.cookie };
    const page = await get(first.location, cookie);
    expect([page.status, page.text]).toEqual([200, "hello from inside\n"]);
    expect((await get(new URL("/none", url).href, cookie)).status).toBe(404);
    const bearer = { authorization: `Bearer ${token}` };
    expect((await get(new URL("/", url).href, bearer)).status).toBe(200);
    // of another port
    const other = await ports.createPreview({ sandboxId: "web", port: 9998 });
    expect((await get(new URL("/", other.url).href, bearer)).status).toBe(403);
    expect((await get(new URL("/", other.url).href, { authorization: `Bearer ${other.token}` })).status).toBe(
      502,
    );

    const ttl = { seconds: 60n };
    const socket = await upgraded(await ports.createPreview({ sandboxId: "web", port: 9002, ttl }));
    socket.write("frames");
    const [echo] = await once(socket, "data");
    expect(String(echo)).toBe("frames");
    socket.destroy();
  });

  test("a body goes in through the preview, byte for byte", async () => {
    await allow(8080, 9999);
    const { url, token } = await ports.createPreview({ sandboxId: "web", port: 8080 });
    const body = randomBytes(3 * mebibyte + 11);
    const { port, host: name } = new URL(url);
    const sent = request({
      host: "127.0.0.1",
      port,
      method: "POST",
      path: "/cgi-bin/hash",
      headers: { host: name, authorization: `Bearer ${token}`, "content-length": body.length },
    });
    sent.end(body);
    const [response] = await once(sent, "response");
    let text = "";
    for await (const part of response) text += String(part);
    expect(text).toContain(sha256(body));
  });

  test("a policy that is narrowed breaks off what it allows no more, at once, and nothing else", async () => {
    await allow(8080, 9999);
    const [kept, narrowed] = [forward(ports, "web", 9000), forward(ports, "web", 9001)];
    await Promise.all([kept.open, narrowed.next()]);
    const socket = await upgraded(await ports.createPreview({ sandboxId: "web", port: 9002 }));
    const closed = once(socket.on("error", () => undefined).resume(), "close");
    await allow(9000, 9000);
    expect(await refusalOf(narrowed.rest())).toMatchObject({
      code: "PermissionDenied",
      reason: "PORT_NOT_ALLOWED",
    });
    await closed;
    kept.send(Buffer.from("still"));
    expect((await kept.next()).toString()).toBe("still");
    kept.cancel();
  });

  test("so does the default policy, when the configuration is read again", async () => {
    const configured = (port: string) => {
      const network = { forward_ports: [port] };
      host.daemon.configure({ preview: { address: "127.0.0.1:0" }, tenants: { default: { network } } });
      return host.daemon.kill("SIGHUP");
    };
    await configured("9000");
    const spec = specOf(serving, roomy);
    await host.sandboxes.createSandbox({ sandboxId: "of-no-policy", tenant: "never-put", spec });
    const call = await eventually(
      "the echo",
      async () => {
        const tried = forward(ports, "of-no-policy", 9000);
        return tried.open.then(
          () => tried,
          () => undefined,
        );
      },
      (open) => open !== undefined,
    );
    const over = refusalOf(present(call).rest());
    await configured("8080");
    expect((await over).reason).toBe("PORT_NOT_ALLOWED");
    await host.sandboxes.deleteSandbox({ sandboxId: "of-no-policy" });
  });

  test("sandboxctl forwards ports, and tells where a browser finds one", async () => {
    await allow(8080, 9999);
    const address = { SANDBOXCTL_HOST: `unix://${host.daemon.socketPath}` };
    const forwarding = startCtl(["forward", "web", ":8080", ":9000", ":9998"], address);
    await expect.poll(forwarding.stdout, patience).toMatch(/9998\n$/);
    const local = [...forwarding.stdout().matchAll(/^127\.0\.0\.1:(\d+) -> web:(\d+)$/gm)];
    const [web = "", echo = "", nobody = ""] = local.map(([, here]) => here);
    expect((await get(`http://127.0.0.1:${web}/`)).text).toBe("hello from inside\n");
    const body = randomBytes(2 * mebibyte);
    const socket = connect({ host: "127.0.0.1", port: Number(echo), allowHalfOpen: true });
    socket.end(body);
    const parts: Buffer[] = [];
    for await (const part of socket) parts.push(part as Buffer);
    expect(sha256(Buffer.concat(parts))).toBe(sha256(body));
    await expect(get(`http://127.0.0.1:${nobody}/`)).rejects.toThrow();
    await expect.poll(forwarding.stderr, patience).toContain("(PORT_UNREACHABLE)");
    forwarding.kill("SIGINT");
    expect((await forwarding.ended).code).toBe(0);

    const opened = await ctl(["open", "--ttl", "10m", "web", "8080"], { env: address });
    expect(opened).toMatchObject({ code: 0, stderr: "" });
    expect((await get(opened.stdout.trim())).status).toBe(302);
    const json = JSON.parse((await ctl(["open", "-o", "json", "web", "8080"], { env: address })).stdout);
    expect(json).toEqual({
      url: expect.any(String),
      token: expect.any(String),
      expireTime: expect.any(String),
    });
    expect((await ctl(["forward", "nowhere", "8080"], { env: address })).stderr).toContain(
      "SANDBOX_NOT_FOUND",
    );
    expect((await ctl(["open", "web", "http"], { env: address })).code).toBe(2);
  });

  test("what ends with the sandbox: connections, and tokens", async () => {
    await allow(8080, 9999);
    const { url } = await ports.createPreview({ sandboxId: "web", port: 8080 });
    const { cookie } = await get(url);
    const clean = new URL("/", url).href;
    expect((await get(clean, { cookie })).status).toBe(200);
    const call = forward(ports, "web", 9000);
    call.send(Buffer.from("one"));
    await call.next();
    const rest = refusalOf(call.rest());
    await host.sandboxes.stopSandbox({ sandboxId: "web" });
    expect((await rest).reason).toBe("PORT_UNREACHABLE");
    expect((await get(clean, { cookie })).status).toBe(503);
    await host.sandboxes.startSandbox({ sandboxId: "web" });
    await untilServing("web");
    expect((await get(clean, { cookie })).status).toBe(401);
    expect((await get(url)).status).toBe(401);
    const again = await ports.createPreview({ sandboxId: "web", port: 8080 });
    // a later run has the same name, and a token of its own
    expect(new URL(again.url).host).toBe(new URL(url).host);
    expect((await get(again.url)).status).toBe(302);
  });
});
