import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect, type Socket } from "node:net";
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import dnsPacket from "dns-packet";
import { afterEach, describe, expect, test } from "vitest";
import { openListener } from "../../../../src/network/resolver/listener.ts";
import { createResolver } from "../../../../src/network/resolver/resolver.ts";
import {
  a,
  freePort,
  gateway,
  type Inside,
  type InsideOptions,
  listed,
  log,
  type Outside,
  open,
  send,
  startInside,
  startOutside,
} from "./fixture.ts";

const opened: { close(): Promise<void> }[] = [];
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const one of opened.splice(0).toReversed()) await one.close();
});

async function outsideThat(...[say]: Parameters<typeof startOutside>): Promise<Outside> {
  const outside = await startOutside(say);
  opened.push(outside);
  return outside;
}

async function insideWith(options: InsideOptions): Promise<Inside> {
  const inside = await startInside(options);
  opened.push(inside);
  return inside;
}

const sandboxes = {
  "127.0.0.2": { sandboxId: "any", egress: open },
  "127.0.0.3": { sandboxId: "some", egress: listed("example.com") },
};
const query = (name: string, type: dnsPacket.RecordType = "A") =>
  dnsPacket.encode({
    type: "query",
    id: 1,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ name, type, class: "IN" }],
  });
const answersAll = async () =>
  await outsideThat(({ name, type }) => ({ answers: type === "A" ? [a(name, "8.8.8.8")] : [] }));
/** As a tunnel does: what is carried out stands in the name. */
const tunnelled = () => `${randomBytes(30).toString("hex")}.tunnel.net`;
const answered = (asking: Promise<unknown>) =>
  asking.then(
    () => 1,
    () => 0,
  );

async function sum(counts: readonly Promise<number>[]): Promise<number> {
  return (await Promise.all(counts)).reduce((total, one) => total + one, 0);
}

describe("a tunnel of 1,000 names", () => {
  const names = Array.from({ length: 1_000 }, tunnelled);

  test("does not leave where names are listed: each is denied, within the rate, and none is asked", async () => {
    const outside = await answersAll();
    const clock = { nowMs: 0 };
    const { ask, denied, resolver } = await insideWith({ sandboxes, outside: [outside], clock });
    for (const [index, name] of names.entries()) {
      clock.nowMs += 20;
      const type = index % 2 === 0 ? "TXT" : "A";
      expect((await ask({ name, type, from: "127.0.0.3" })).code).toBe(3);
    }
    expect(denied).toHaveLength(1_000);
    expect(resolver.counts().get("some")).toEqual({ queries: 0, refused: 1_000 });
    expect(outside.asked).toEqual([]);
    clock.nowMs += 20;
    await ask({ name: "example.com", from: "127.0.0.3" });
    expect(outside.asked).toHaveLength(1);
  });

  test("has where all names are answered no more than the rate, and nobody beside it feels it", async () => {
    const outside = await answersAll();
    const clock = { nowMs: 0 };
    const { ask, port, resolver } = await insideWith({
      sandboxes: { ...sandboxes, "127.0.0.5": { sandboxId: "calm", egress: open } },
      outside: [outside],
      clock,
      patienceMs: 5_000,
    });
    const socket = createSocket("udp4");
    await new Promise<void>((resolve) => socket.bind({ address: "127.0.0.2" }, resolve));
    const counted = () => {
      const { queries = 0, refused = 0 } = resolver.counts().get("any") ?? {};
      return queries + refused;
    };
    const flood = async (part: readonly string[]) => {
      const all = counted() + part.length;
      for (const name of part) {
        await new Promise((resolve) => socket.send(query(name), port, gateway, resolve));
        await setImmediate();
      }
      await expect.poll(counted, { interval: 5 }).toBe(all);
    };
    await flood(names.slice(0, 500));
    expect(resolver.counts().get("any")?.queries).toBeLessThanOrEqual(100);
    expect(await ask({ name: "example.com", from: "127.0.0.5" })).toMatchObject({ code: 0 });
    clock.nowMs += 1_000;
    await flood(names.slice(500));
    socket.close();
    const { queries = 0 } = resolver.counts().get("any") ?? {};
    // but for those of a moment in which too many were waited for
    expect(queries).toBeGreaterThan(100);
    expect(queries).toBeLessThanOrEqual(150);
    expect(outside.asked).toHaveLength(queries + 1);
    expect(resolver.counts().get("calm")).toEqual({ queries: 1, refused: 0 });
  });
});

describe("questions at once", () => {
  test("of one sandbox are bounded, whatever a nameserver does; others are answered meanwhile", async () => {
    const { promise: mayAnswer, resolve: release } = Promise.withResolvers<void>();
    const outside = await outsideThat(async ({ name }) => {
      if (name.endsWith("slow.net")) await mayAnswer;
      return { answers: [a(name, "8.8.8.8")] };
    });
    const { ask, port, resolver } = await insideWith({ sandboxes, outside: [outside], patienceMs: 20_000 });
    const slow = sum(
      Array.from({ length: 60 }, (_, index) =>
        answered(send(port, "127.0.0.2", query(`${index}.slow.net`), 4_000)),
      ),
    );
    await expect.poll(() => resolver.counts().get("any")?.refused).toBe(28);
    await expect.poll(() => outside.asked.length).toBe(32);
    expect((await ask({ name: "example.com", from: "127.0.0.3" })).code).toBe(0);
    release();
    expect(await slow).toBe(32);
    expect(resolver.counts().get("any")).toEqual({ queries: 32, refused: 28 });
    expect((await ask({ name: "example.com" })).code).toBe(0);
  });
});

describe("connections", () => {
  async function connected(port: number, from = "127.0.0.2"): Promise<Socket> {
    const socket = connect({ port, host: gateway, localAddress: from });
    sockets.push(socket);
    socket.on("error", () => undefined);
    await new Promise((resolve) => socket.on("connect", resolve));
    return socket;
  }
  const isOver = (socket: Socket) =>
    Promise.race([new Promise((resolve) => socket.on("close", () => resolve(true))), sleep(100)]);
  const framed = (message: Buffer) => Buffer.concat([Buffer.from([0, message.length]), message]);

  test("of one sandbox are bounded, and those of others are not", async () => {
    const { ask, port } = await insideWith({ sandboxes, outside: [await answersAll()] });
    const held: Socket[] = [];
    for (let index = 0; index < 8; index += 1) held.push(await connected(port));
    const isNinthOver = isOver(await connected(port));
    expect(await isNinthOver).toBe(true);
    expect((await ask({ name: "example.com", from: "127.0.0.3", transport: "tcp" })).code).toBe(0);
    held[0]?.destroy();
    await sleep(50);
    expect((await ask({ name: "example.com", transport: "tcp" })).code).toBe(0);
  });

  test("end when a message is announced that is longer than any question", async () => {
    const { port } = await insideWith({ sandboxes, outside: [await answersAll()] });
    const [long, right] = [await connected(port), await connected(port)];
    const [isLongOver, isRightOver] = [isOver(long), isOver(right)];
    long.write(Buffer.from([2, 1]));
    right.write(Buffer.from([2, 0]));
    expect(await isLongOver).toBe(true);
    expect(await isRightOver).toBeUndefined();
  });

  test("carry several questions, in pieces or together", async () => {
    const { port } = await insideWith({ sandboxes, outside: [await answersAll()] });
    const socket = await connected(port);
    const told: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => told.push(chunk));
    const first = framed(query("example.com"));
    socket.write(first.subarray(0, 1));
    await sleep(10);
    socket.write(first.subarray(1, 9));
    await sleep(10);
    socket.write(Buffer.concat([first.subarray(9), framed(query("example.org"))]));
    await expect
      .poll(
        () =>
          Buffer.concat(told)
            .toString("latin1")
            .match(/example/g)?.length,
      )
      .toBe(4);
  });

  test("on which nothing moves end", async () => {
    const port = await freePort();
    const respond = async (message: Buffer) => message;
    opened.push(await openListener({ address: gateway, port, respond, log, idleMs: 150 }));
    const [idle, busy] = [await connected(port), await connected(port)];
    const began = performance.now();
    const asking = setInterval(() => busy.write(framed(query("example.com"))), 30);
    await new Promise((resolve) => idle.on("close", resolve));
    expect(performance.now() - began).toBeGreaterThan(100);
    expect(busy.destroyed).toBe(false);
    clearInterval(asking);
  });

  test("of a client that does not read end", async () => {
    const answers = Array.from({ length: 20 }, () => ({
      ...({ type: "TXT", name: "big.net", ttl: 60 } as const),
      data: "x".repeat(250),
    }));
    const outside = await outsideThat(() => ({ truncated: true, answers }));
    const clock = { nowMs: 0 };
    const { port } = await insideWith({ sandboxes, outside: [outside], clock });
    const socket = await connected(port);
    socket.pause();
    const over = new Promise((resolve) => socket.on("close", resolve));
    const question = framed(query("big.net", "TXT"));
    // beyond what the kernel holds for both sides
    const asking = setInterval(() => {
      clock.nowMs += 1_000;
      if (socket.writable) for (let index = 0; index < 25; index += 1) socket.write(question);
    }, 2);
    await over;
    clearInterval(asking);
  });
});

describe("listening", () => {
  const options = {
    upstreams: () => [],
    asker: () => undefined,
    learn: async () => undefined,
    onDenied: () => undefined,
    log,
  };

  test("again is success, also at once; and so is to cease twice", async () => {
    const port = await freePort();
    const resolver = createResolver({ ...options, port });
    await Promise.all([resolver.listen(gateway), resolver.listen(gateway)]);
    await resolver.listen(gateway);
    await send(port, "127.0.0.2", query("example.com"));
    await resolver.unlisten(gateway);
    await resolver.unlisten(gateway);
    await expect(send(port, "127.0.0.2", query("example.com"), 200)).rejects.toThrow();
    await resolver.listen(gateway);
    await send(port, "127.0.0.2", query("example.com"));
    await resolver.close();
    await expect(send(port, "127.0.0.2", query("example.com"), 200)).rejects.toThrow();
  });

  test("where another program does is refused with what to do, and works once it is gone", async () => {
    const other = await answersAll();
    const resolver = createResolver({ ...options, port: other.port });
    opened.push(resolver);
    await expect(resolver.listen(gateway)).rejects.toMatchObject({
      reason: "NETWORK_UNAVAILABLE",
      message: expect.stringContaining(`port ${other.port} of ${gateway}`),
      details: { hint: expect.stringContaining("another program") },
    });
    opened.splice(opened.indexOf(other), 1);
    await other.close();
    await resolver.listen(gateway);
  });

  test("on an address that is not here is refused with what to do", async () => {
    const resolver = createResolver({ ...options, port: await freePort() });
    opened.push(resolver);
    await expect(resolver.listen("198.51.100.1")).rejects.toMatchObject({
      reason: "NETWORK_UNAVAILABLE",
      details: { hint: expect.stringContaining("network namespace") },
    });
  });

  test("ends while a question is asked outside", async () => {
    const outside = await outsideThat(() => undefined);
    const { port, resolver } = await insideWith({ sandboxes, outside: [outside], patienceMs: 60_000 });
    const told = answered(send(port, "127.0.0.2", query("example.com"), 500));
    await expect.poll(() => outside.asked.length).toBe(1);
    await resolver.close();
    expect(await told).toBe(0);
  });
});

test("what one tenant asked is not known for another", async () => {
  const outside = await answersAll();
  const other = "127.0.0.101";
  const { ask, port, resolver } = await insideWith({ sandboxes, outside: [outside] });
  await resolver.listen(other);
  await ask({ name: "example.com" });
  await ask({ name: "example.com" });
  expect(outside.asked).toHaveLength(1);
  await send(port, "127.0.0.2", query("example.com"), 1_000, other);
  expect(outside.asked).toHaveLength(2);
});

test("what was counted of a sandbox is dropped with it", async () => {
  const { ask, resolver } = await insideWith({ sandboxes, outside: [await answersAll()] });
  await ask({ name: "example.com" });
  await ask({ name: "example.com", from: "127.0.0.3" });
  resolver.forget("any");
  expect([...resolver.counts().keys()]).toEqual(["some"]);
});

describe("addresses for the proxy that checks server names", () => {
  test("are those that the policy allows, from what is known where it is, and within the sandbox's rate", async () => {
    const outside = await outsideThat(({ name }) => ({
      answers: [a(name, "8.8.8.8"), a(name, "8.8.4.4"), a(name, "192.168.1.1"), a(name, "10.1.1.1")],
    }));
    const clock = { nowMs: 0 };
    const { resolver } = await insideWith({ sandboxes, outside: [outside], clock, queriesPerSecond: 2 });
    const egress = { ...listed("example.com"), denyCidrs: ["8.8.4.0/24"], allowCidrs: ["10.1.0.0/16"] };
    const asker = { sandboxId: "some", egress };
    const addresses = (name: string) => resolver.addressesOf(asker, gateway, name);
    for (let time = 0; time < 10; time += 1)
      expect(await addresses("example.com")).toEqual(["8.8.8.8", "10.1.1.1"]);
    expect(outside.asked).toHaveLength(1);
    for (const one of [1, 2, 3]) await addresses(`${one}.example.com`);
    await expect(addresses("4.example.com")).rejects.toThrow("more names than it may");
    expect(await addresses("1.example.com")).toEqual(["8.8.8.8", "10.1.1.1"]);
    expect(resolver.counts().get("some")).toEqual({ queries: 4, refused: 1 });
  });
});
