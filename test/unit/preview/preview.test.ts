// Requests through the preview to programs on real ports: what passes, and how it ends.

import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { serve } from "../ports/fixture.ts";
import { becomes } from "../toolbox/keeper-fixture.ts";
import { cookieOf, openPreview, type Previewed, runningOf } from "./fixture.ts";

const mebibyte = 1024 * 1024;
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

interface Site {
  readonly port: number;
  readonly requests: IncomingMessage[];
  /** Connections that it had. */
  connections(): number;
}

async function openSite(
  answer: (request: IncomingMessage, response: ServerResponse) => void = (_, response) =>
    response.end("hello"),
): Promise<Site> {
  const requests: IncomingMessage[] = [];
  let connections = 0;
  const server = createServer((asked, response) => {
    requests.push(asked);
    answer(asked, response);
  });
  server.on("connection", () => (connections += 1));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return { port: (server.address() as AddressInfo).port, requests, connections: () => connections };
}

/** A preview, a site, and a session of a browser with it. */
async function openSession(answer?: Parameters<typeof openSite>[0]) {
  const site = await openSite(answer);
  const previewed = await openPreview();
  const { host, token } = previewed.grant(site.port);
  const ask = (asked: Partial<Parameters<Previewed["ask"]>[0]> = {}) =>
    previewed.ask({ host, ...asked, headers: { ...cookieOf(token), ...asked.headers } });
  return { site, previewed, host, token, ask };
}

describe("a browser", () => {
  test("comes in with the token in the address, which then is in a cookie and in the address no longer", async () => {
    const site = await openSite();
    const { grant, ask } = await openPreview();
    const { host, token } = grant(site.port);
    const first = await ask({ host, path: `/a/b?x=1&sandboxd_token=${token}&y=%20z` });
    expect(first.status).toBe(302);
    expect(first.headers.location).toBe(`http://${host}/a/b?x=1&y=%20z`);
    const [cookie = ""] = first.headers["set-cookie"] ?? [];
    expect(cookie).toMatch(
      /^sandboxd_preview=sbxp1\.[^;]+; Path=\/; Max-Age=(5\d|60); HttpOnly; SameSite=Lax$/,
    );
    expect(first.headers["cache-control"]).toBe("no-store");
    expect(first.headers["referrer-policy"]).toBe("no-referrer");
    expect(site.requests).toHaveLength(0);
    const second = await ask({ host, path: "/a/b?x=1&y=%20z", headers: { cookie: cookie.split(";")[0] } });
    expect([second.status, second.text]).toEqual([200, "hello"]);
    expect(site.requests[0]?.url).toBe("/a/b?x=1&y=%20z");
  });

  test("is refused without a token, before anything is asked inside", async () => {
    const site = await openSite();
    const { grant, ask } = await openPreview();
    const { host } = grant(site.port);
    const refused = await ask({ host });
    expect(refused.status).toBe(401);
    expect(refused.headers["content-security-policy"]).toContain("default-src 'none'");
    expect(site.connections()).toBe(0);
  });

  test("is told where nobody listens, and where what listens speaks no HTTP", async () => {
    const { grant, ask } = await openPreview();
    const { port, server } = await serve((socket) => socket.end("220 mail\r\n"));
    const { host, token } = grant(port);
    const noHttp = await ask({ host, headers: cookieOf(token) });
    expect([noHttp.status, noHttp.text]).toEqual([502, expect.stringContaining("does not speak HTTP")]);
    server.close();
    await becomes("nobody listens", () => !server.listening);
    const nobody = await ask({ host, headers: cookieOf(token) });
    expect([nobody.status, nobody.text]).toEqual([502, expect.stringContaining("nobody listens")]);
  });

  test("uses the sandbox while its request runs, and then no longer", async () => {
    let finish = () => {};
    const { ask, previewed, site } = await openSession((_, response) => {
      finish = () => response.end("done");
    });
    const answer = ask();
    await becomes("it is asked", () => site.requests.length === 1);
    expect(previewed.attached.get("one")).toBe(1);
    finish();
    await answer;
    await becomes("it is no longer", () => previewed.attached.get("one") === 0);
  });
});

describe("a request", () => {
  test("comes inside with its headers, less what is the preview's or the connection's", async () => {
    const { site, ask, token, host } = await openSession();
    await ask({
      path: "/p?q",
      headers: {
        cookie: `a=1; sandboxd_preview=${token}; __Host-sandboxd_preview=x; b="2"`,
        connection: "x-hop, keep-alive",
        "x-hop": "1",
        "proxy-authorization": "Basic c2VjcmV0",
        te: "trailers",
        "x-forwarded-for": "6.6.6.6",
        "x-forwarded-proto": "https",
        forwarded: "for=6.6.6.6",
        "x-real-ip": "6.6.6.6",
        "x-kept": "yes",
        authorization: "Basic YXBw",
        "accept-language": "de",
      },
    });
    expect(site.requests[0]?.headers).toEqual({
      host,
      cookie: 'a=1; b="2"',
      connection: "keep-alive",
      "x-kept": "yes",
      authorization: "Basic YXBw",
      "accept-language": "de",
      "x-forwarded-for": "127.0.0.1",
      "x-forwarded-host": host,
      "x-forwarded-proto": "http",
    });
  });

  test("comes without the token that it was let in by", async () => {
    const { site, previewed, host, token } = await openSession();
    const asked = await previewed.ask({ host, headers: { authorization: `Bearer ${token}` } });
    expect(asked.status).toBe(200);
    const posted = await previewed.ask({
      host,
      method: "POST",
      path: `/x?sandboxd_token=${token}`,
      body: Buffer.from("abc"),
    });
    expect(posted.status).toBe(200);
    expect(site.requests.map(({ url }) => url)).toEqual(["/", "/x"]);
    for (const { rawHeaders } of site.requests) expect(rawHeaders.join()).not.toContain(token);
  });

  test("may have a body of any length, and so may its answer", async () => {
    const sent = randomBytes(5 * mebibyte + 3);
    const { ask } = await openSession((asked, response) => {
      response.setHeader(
        "x-length",
        asked.headers["content-length"] ?? asked.headers["transfer-encoding"] ?? "",
      );
      asked.pipe(response);
    });
    const measured = await ask({ method: "POST", body: sent, headers: { "content-length": sent.length } });
    expect(sha256(measured.body)).toBe(sha256(sent));
    expect(measured.headers["x-length"]).toBe(`${sent.length}`);
    const chunked = await ask({ method: "PUT", body: sent, headers: { "transfer-encoding": "chunked" } });
    expect(sha256(chunked.body)).toBe(sha256(sent));
    expect(chunked.headers["x-length"]).toBe("chunked");
  });

  test("is answered with much, byte for byte, and the next one on another connection", async () => {
    const content = randomBytes(6 * mebibyte + 11);
    const { ask, site } = await openSession((_, response) => {
      response.writeHead(200, { "content-length": content.length });
      // the headers alone, with some of it, and in pieces of any size
      response.flushHeaders();
      const sizes = [1, 70_000, 300_000, 2 * mebibyte];
      for (let at = 0, turn = 0; at < content.length; turn += 1) {
        const size = sizes[turn % sizes.length] ?? 1;
        response.write(content.subarray(at, at + size));
        at += size;
      }
      response.end();
    });
    for (let count = 1; count <= 3; count += 1) {
      const answer = await ask();
      expect(answer.headers["content-length"]).toBe(`${content.length}`);
      expect(sha256(answer.body)).toBe(sha256(content));
      expect(site.connections()).toBe(count);
    }
    expect((await ask({ method: "HEAD" })).body).toHaveLength(0);
  });

  test("is answered with as much as was told, whatever else the program says", async () => {
    const content = randomBytes(2 * mebibyte);
    const { port } = await serve((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${content.length}\r\n\r\n`);
      socket.write(content);
      socket.end("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmore");
    });
    const previewed = await openPreview();
    const { host, token } = previewed.grant(port);
    for (let count = 0; count < 2; count += 1) {
      const { body } = await previewed.ask({ host, headers: cookieOf(token) });
      expect(sha256(body)).toBe(sha256(content));
    }
    await becomes("nothing is left", () => previewed.ports.count() === 0);
  });

  test("is answered with what the program says, header by header", async () => {
    const { ask } = await openSession((_, response) => {
      response.writeHead(203, [
        ...["Set-Cookie", "a=1; Domain=preview.test; Path=/", "Set-Cookie", "b=2; domain = .test ;Secure"],
        ...["Set-Cookie", "sandboxd_preview=evil", "Alt-Svc", 'h3=":443"', "Clear-Site-Data", '"cookies"'],
        ...[
          "X-One",
          "1",
          "X-One",
          "2",
          "Connection",
          "x-inner, keep-alive",
          "X-Inner",
          "1",
          "Via",
          "1.1 app",
        ],
      ]);
      response.end("ok");
    });
    const { status, rawHeaders, headers } = await ask();
    expect(status).toBe(203);
    expect(headers["set-cookie"]).toEqual(["a=1; Path=/", "b=2;Secure"]);
    expect(headers["x-one"]).toBe("1, 2");
    expect(headers["via"]).toBe("1.1 app");
    for (const name of ["alt-svc", "clear-site-data", "x-inner"]) expect(headers[name]).toBeUndefined();
    expect(rawHeaders.join()).not.toContain("evil");
  });

  test("of a method without a body is asked on a connection that is kept, and asked again where that was closed", async () => {
    const { ask, site } = await openSession((_, response) => response.end("ok"));
    for (let count = 0; count < 5; count += 1) expect((await ask()).status).toBe(200);
    expect(site.connections()).toBe(1);
    expect((await ask({ method: "HEAD" })).status).toBe(200);
    const closing = await openSession((asked, response) => {
      response.end("ok");
      // says that the connection is kept, and closes it
      setTimeout(() => asked.socket.destroy(), 5);
    });
    for (let count = 0; count < 20; count += 1) {
      expect((await closing.ask()).status).toBe(200);
      await sleep(count % 8);
    }
    expect(closing.site.requests.length).toBeGreaterThanOrEqual(20);
  });

  test("that breaks off inside does not look whole", async () => {
    const lengths = new Map([
      ["/counted", 1_000],
      ["/large", 4 * mebibyte],
      ["/larger", 40 * mebibyte],
    ]);
    const { ask, site, previewed } = await openSession((asked, response) => {
      const length = lengths.get(asked.url ?? "");
      response.writeHead(200, length === undefined ? {} : { "content-length": length });
      const part = asked.url === "/larger" ? Buffer.alloc(3 * mebibyte) : "a part";
      response.write(part, () => setTimeout(() => asked.socket.resetAndDestroy(), 20));
    });
    for (const path of ["/chunked", ...lengths.keys()]) await expect(ask({ path })).rejects.toThrow();
    expect(site.requests).toHaveLength(4);
    await becomes("nothing is left", () => previewed.ports.count() === 0);
  });

  test("that the browser gives up is given up inside", async () => {
    let hasClosed = false;
    const { previewed, host, token } = await openSession((asked, response) => {
      asked.socket.on("close", () => (hasClosed = true));
      response.write("begin");
    });
    const sent = request({ host: "127.0.0.1", port: previewed.port, headers: { host, ...cookieOf(token) } });
    sent.end();
    sent.on("error", () => undefined);
    await once(sent, "response");
    sent.destroy();
    await becomes("the program is told", () => hasClosed);
    await becomes(
      "nothing is left",
      () => previewed.ports.count() === 0 && previewed.attached.get("one") === 0,
    );
  });

  test.each([
    ["of no told length", {}],
    ["of a large length", { "content-length": 10_000 * mebibyte }],
  ])("whose answer, %s, is not read holds the program back", async (_, headers) => {
    let written = 0;
    const { previewed, host, token } = await openSession((_, response) => {
      response.writeHead(200, headers);
      const block = Buffer.alloc(65_536);
      const go = () => {
        do written += block.length;
        while (response.write(block));
      };
      response.on("drain", go);
      go();
    });
    const sent = request({ host: "127.0.0.1", port: previewed.port, headers: { host, ...cookieOf(token) } });
    sent.end();
    sent.on("error", () => undefined);
    const [response] = await once(sent, "response");
    response.pause();
    await becomes("it is held back", async () => {
      const before = written;
      await sleep(200);
      return written === before;
    });
    expect(written).toBeLessThan(40 * mebibyte);
    sent.destroy();
    await becomes(
      "nothing is left",
      () => previewed.ports.count() === 0 && previewed.attached.get("one") === 0,
    );
  });
});

describe("who may", () => {
  test("not come in: an expired, an altered, an earlier run's or another port's or sandbox's token", async () => {
    const site = await openSite();
    const other = await openSite();
    const { grant, ask, records, tokens } = await openPreview();
    const { host, token } = grant(site.port);
    const statusWith = async (given: string, at = host) => {
      const ways = [
        ask({ host: at, headers: cookieOf(given) }),
        ask({ host: at, headers: { authorization: `Bearer ${given}` } }),
        ask({ host: at, path: `/?sandboxd_token=${given}`, method: "POST" }),
      ];
      const statuses = new Set((await Promise.all(ways)).map(({ status }) => status));
      return statuses.size === 1 ? [...statuses][0] : [...statuses];
    };
    expect(await statusWith(token)).toBe(200);
    const record = runningOf("one");
    expect(await statusWith(tokens.issue(record, site.port, Date.now() - 1_000))).toBe(401);
    expect(await statusWith(`${token.slice(0, -2)}${token.endsWith("AA") ? "BB" : "AA"}`)).toBe(401);
    expect(await statusWith(token.replace(`.${site.port}.`, `.${other.port}.`))).toBe(401);
    expect(await statusWith("sbxp1.x")).toBe(401);
    expect(await statusWith(grant(other.port).token)).toBe(403);
    expect(await statusWith(grant(site.port, "two").token)).toBe(403);
    expect(await statusWith(token, grant(other.port).host)).toBe(403);
    for (const change of [{ startedAtMs: 2_000 }, { containerId: "other" }, { instance: "other" }]) {
      records.set("one", runningOf("one", change));
      expect(await statusWith(token)).toBe(401);
    }
    records.delete("one");
    expect(await statusWith(token)).toBe(401);
    records.set("one", record);
    expect(await statusWith(token)).toBe(200);
  });

  test("no longer come in: where the tenant's ports were narrowed, or the sandbox does not run", async () => {
    const { previewed, ask, site } = await openSession();
    expect((await ask()).status).toBe(200);
    previewed.allowed = [{ protocol: "TCP", first: 1, last: 1 }];
    const refused = await ask();
    expect([refused.status, refused.text]).toEqual([403, expect.stringContaining("forward_ports")]);
    previewed.allowed = [{ protocol: "TCP", first: site.port, last: site.port }];
    expect((await ask()).status).toBe(200);
    previewed.records.set("one", runningOf("one", { state: "PAUSED" }));
    expect((await ask()).status).toBe(503);
  });

  test("come in by the path: programs with a bearer token, and no browser with its cookie", async () => {
    const { previewed, token, site } = await openSession();
    const host = `127.0.0.1:${previewed.port}`;
    const bearer = { authorization: `Bearer ${token}` };
    const path = `/one/${site.port}/deep/er?q=1`;
    expect((await previewed.ask({ host, path, headers: bearer })).status).toBe(200);
    expect(site.requests[0]?.url).toBe("/deep/er?q=1");
    expect((await previewed.ask({ host, path: `/one/${site.port}`, headers: bearer })).status).toBe(200);
    expect(site.requests[1]?.url).toBe("/");
    expect((await previewed.ask({ host, path, headers: cookieOf(token) })).status).toBe(401);
    expect((await previewed.ask({ host, path: `${path}&sandboxd_token=${token}` })).status).toBe(401);
    expect((await previewed.ask({ host, path: `/two/${site.port}/`, headers: bearer })).status).toBe(403);
    expect((await previewed.ask({ host, path: "/one/81/", headers: bearer })).status).toBe(403);
    expect((await previewed.ask({ host, path: "/favicon.ico" })).status).toBe(404);
    expect(site.requests).toHaveLength(2);
  });

  test("not use a browser's cookie: another sandbox's page", async () => {
    const { ask, host, site } = await openSession();
    const statusOf = async (headers: Record<string, string>, method = "GET") =>
      (await ask({ headers, method })).status;
    const opened = { "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" };
    // its own page, an address that was typed, and a link that was followed
    expect(await statusOf({ "sec-fetch-site": "same-origin", origin: `http://${host}` }, "POST")).toBe(200);
    expect(await statusOf({ "sec-fetch-site": "same-origin", origin: "null" }, "POST")).toBe(200);
    expect(await statusOf({ "sec-fetch-site": "none", ...opened })).toBe(200);
    expect(await statusOf({ "sec-fetch-site": "same-site", ...opened })).toBe(200);
    expect(await statusOf({ origin: `http://${host}` }, "POST")).toBe(200);
    const before = site.requests.length;
    // another's script, frame, form, and an older browser's
    expect(await statusOf({ "sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors" })).toBe(403);
    expect(await statusOf({ "sec-fetch-site": "same-site", ...opened, "sec-fetch-dest": "iframe" })).toBe(
      403,
    );
    expect(await statusOf({ "sec-fetch-site": "same-site", ...opened }, "POST")).toBe(403);
    expect(await statusOf({ "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors" })).toBe(403);
    expect(await statusOf({ origin: "http://8080-evil-0123456789ab.preview.test" }, "POST")).toBe(403);
    expect(await statusOf({ origin: "null" }, "POST")).toBe(403);
    expect(site.requests).toHaveLength(before);
  });
});

describe("a WebSocket", () => {
  /** Raw, since all that counts is what passes. */
  const upgrade = (previewed: Previewed, host: string, headers: Readonly<Record<string, string>>) => {
    const socket = connect({ host: "127.0.0.1", port: previewed.port, allowHalfOpen: true });
    const lines = Object.entries({
      host,
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
      ...headers,
    }).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.write(`GET /chat HTTP/1.1\r\n${lines.join("")}\r\n`);
    let received = "";
    socket.on("error", () => undefined);
    socket.on("data", (bytes: Buffer) => (received += bytes.toString("latin1")));
    return { socket, received: () => received };
  };
  const openChat = async () => {
    const seen: IncomingMessage[] = [];
    const server = createServer((_, response) => response.writeHead(426).end("upgrade"));
    server.on("upgrade", (asked, socket, head) => {
      seen.push(asked);
      socket.on("error", () => undefined);
      socket.write(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Chat: yes\r\n\r\nhello ",
      );
      socket.write(head);
      socket.pipe(socket);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    onTestFinished(() => {
      server.close();
      server.closeAllConnections();
    });
    return { port: (server.address() as AddressInfo).port, seen };
  };

  test("passes both ways, and ends with either side", async () => {
    const { port, seen } = await openChat();
    const previewed = await openPreview();
    const { host, token } = previewed.grant(port);
    const { socket, received } = upgrade(previewed, host, {
      ...cookieOf(token),
      origin: `http://${host}`,
      "sec-websocket-protocol": "chat",
    });
    socket.write("one ");
    await becomes("it is echoed", () => received().endsWith("hello one "));
    expect(received()).toMatch(/^HTTP\/1\.1 101 Switching Protocols\r\n/);
    expect(received().toLowerCase()).toContain("x-chat: yes\r\n");
    const big = randomBytes(3 * mebibyte).toString("base64");
    socket.write(big);
    await becomes("all of it is", () => received().endsWith(`hello one ${big}`));
    expect(seen[0]?.headers["sec-websocket-protocol"]).toBe("chat");
    expect(seen[0]?.headers.cookie).toBeUndefined();
    expect(previewed.attached.get("one")).toBe(1);
    socket.destroy();
    await becomes("the program is told", () => seen[0]?.socket.destroyed === true);
    await becomes(
      "nothing is left",
      () => previewed.ports.count() === 0 && previewed.attached.get("one") === 0,
    );
    const next = upgrade(previewed, host, cookieOf(token));
    await becomes("it is there", () => next.received().endsWith("hello "));
    const closed = once(next.socket, "end");
    seen[1]?.socket.destroy();
    await closed;
  });

  test("is refused to another site's page, without a token, and where the program takes none", async () => {
    const { port } = await openChat();
    const site = await openSite((_, response) => response.writeHead(418, { "x-site": "1" }).end("none"));
    const previewed = await openPreview();
    const { host, token } = previewed.grant(port);
    const statusOf = async (at: string, headers: Readonly<Record<string, string>>) => {
      const { socket, received } = upgrade(previewed, at, headers);
      await once(socket, "end");
      socket.destroy();
      return received().split(" ")[1];
    };
    expect(await statusOf(host, {})).toBe("401");
    expect(await statusOf(host, { ...cookieOf(token), origin: "http://evil.test" })).toBe("403");
    const plain = previewed.grant(site.port);
    expect(await statusOf(plain.host, cookieOf(plain.token))).toBe("418");
    await becomes("nothing is left", () => previewed.ports.count() === 0);
  });
});

describe("bounds", () => {
  test("of a sandbox hold, and what was taken comes back", async () => {
    const site = await openSite(() => undefined);
    const previewed = await openPreview({ limits: { ofSandbox: 3 } });
    const { host, token } = previewed.grant(site.port);
    const headers = cookieOf(token);
    const held = Array.from({ length: 3 }, () => {
      const sent = request({ host: "127.0.0.1", port: previewed.port, headers: { host, ...headers } });
      sent.on("error", () => undefined);
      sent.end();
      return sent;
    });
    await becomes("three are held", () => site.requests.length === 3);
    expect((await previewed.ask({ host, headers })).status).toBe(503);
    for (const sent of held) sent.destroy();
    await becomes("they are free", () => previewed.ports.count() === 0);
  });

  test("of headers and of the time for them hold", async () => {
    const { previewed, ask, host } = await openSession();
    expect(
      (await ask({ headers: { "x-big": "x".repeat(40_000) } }).catch(() => ({ status: 431 }))).status,
    ).toBe(431);
    expect((await ask({ headers: { "x-big": "x".repeat(12_000) } })).status).toBe(200);
    const slow = connect({ host: "127.0.0.1", port: previewed.port });
    slow.on("error", () => undefined);
    slow.write(`GET / HTTP/1.1\r\nhost: ${host}\r\n`);
    const began = performance.now();
    slow.resume();
    await once(slow, "close");
    expect(performance.now() - began).toBeLessThan(5_000);
  });
});
