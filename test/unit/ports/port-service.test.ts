// PortService over the forwarder of this machine: what callers are told, and what the daemon holds meanwhile.

import type { Socket } from "node:net";
import { type Client, createClient, createRouterTransport } from "@connectrpc/connect";
import { describe, expect, onTestFinished, test } from "vitest";
import { PortService } from "../../../gen/sandboxd/v1/port_service_pb.ts";
import { createErrorInterceptor } from "../../../src/api/interceptors/errors.ts";
import { createPortService } from "../../../src/api/port-service.ts";
import type { PortRange } from "../../../src/network/policy.ts";
import { createLog } from "../../../src/observe/log.ts";
import { createPorts, type Ports } from "../../../src/ports/ports.ts";
import type { SandboxRecord } from "../../../src/sandbox/record.ts";
import { recordOf } from "../sandbox/fixture.ts";
import { becomes } from "../toolbox/keeper-fixture.ts";
import { openBench, sandboxId, serve } from "./fixture.ts";

interface Served {
  readonly client: Client<typeof PortService>;
  readonly ports: Ports;
  sandbox: SandboxRecord | undefined;
  allowed: readonly PortRange[];
  /** How many use the sandbox now. */
  attached(): number;
}

const anyPort: readonly PortRange[] = [{ protocol: "TCP", first: 1, last: 65_535 }];

async function openService(limits: Parameters<typeof createPorts>[0]["limits"] = {}): Promise<Served> {
  const { forwarders } = await openBench();
  let attached = 0;
  const ports = createPorts({
    forwarders,
    repository: { get: (id) => (id === sandboxId ? self.sandbox : undefined) },
    allowedPorts: () => self.allowed,
    limits,
  });
  onTestFinished(() => ports.close());
  const service = createPortService({
    ports,
    grantPreview: ({ port, ttlMs }) => ({ url: `http://${port}/`, token: "t", expiresAtMs: ttlMs }),
    attach() {
      attached += 1;
      return () => {
        attached -= 1;
      };
    },
  });
  const interceptors = [createErrorInterceptor(createLog({ level: "fatal" }).pino)];
  const transport = createRouterTransport((router) => void router.service(PortService, service), {
    router: { interceptors },
  });
  const self: Served = {
    client: createClient(PortService, transport),
    ports,
    sandbox: recordOf({ state: "RUNNING" }),
    allowed: anyPort,
    attached: () => attached,
  };
  return self;
}

/** Requests that the test says one by one. */
function conversation() {
  const said: (object | undefined)[] = [];
  let wake = () => {};
  return {
    say(...requests: readonly (object | undefined)[]) {
      said.push(...requests);
      wake();
    },
    async *requests() {
      for (;;) {
        while (said.length === 0) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        const next = said.shift();
        if (next === undefined) return;
        yield next;
      }
    },
  };
}

const echo = (socket: Socket) => void socket.pipe(socket);

describe("ForwardPort", () => {
  test("answers once it is connected, tells the end of the program's half, and ends when the client has ended too", async () => {
    const { client, ports, attached } = await openService();
    const heard: string[] = [];
    const { port } = await serve((socket) => {
      socket.on("data", (bytes: Buffer) => heard.push(bytes.toString()));
      socket.end("all I say");
    });
    const { say, requests } = conversation();
    say({ sandboxId, port });
    const answers = client.forwardPort(requests())[Symbol.asyncIterator]();
    expect((await answers.next()).value).toMatchObject({ data: new Uint8Array(), end: false });
    expect(attached()).toBe(1);
    expect(Buffer.from((await answers.next()).value.data).toString()).toBe("all I say");
    expect((await answers.next()).value).toMatchObject({ data: new Uint8Array(), end: true });
    say({ data: Buffer.from("still") });
    await becomes("it is heard", () => heard.join("") === "still");
    say(undefined);
    expect((await answers.next()).done).toBe(true);
    expect([ports.count(), attached()]).toEqual([0, 0]);
  });

  test("refuses a later request that names a port again, and lets go of the connection", async () => {
    const { client, ports } = await openService();
    const { port, sockets } = await serve(echo);
    const { say, requests } = conversation();
    say({ sandboxId, port });
    const answers = client.forwardPort(requests())[Symbol.asyncIterator]();
    await answers.next();
    say({ sandboxId: "two", data: Buffer.from("x") });
    await expect(answers.next()).rejects.toMatchObject({ message: expect.stringContaining("sandbox_id") });
    await becomes("nothing is left", () => ports.count() === 0 && sockets.size === 0);
  });

  test("ends with its caller, also while nothing moves", async () => {
    const { client, ports, attached } = await openService();
    const { port, sockets } = await serve(() => undefined);
    const { say, requests } = conversation();
    say({ sandboxId, port });
    const abort = new AbortController();
    const answers = client.forwardPort(requests(), { signal: abort.signal })[Symbol.asyncIterator]();
    await answers.next();
    await becomes("it is there", () => sockets.size === 1);
    const next = answers.next();
    abort.abort();
    await expect(next).rejects.toThrow();
    await becomes("nothing is left", () => ports.count() === 0 && sockets.size === 0 && attached() === 0);
  });

  test("is refused by policy, by state and by number, and then nobody is attached", async () => {
    const served = await openService({ ofSandbox: 2 });
    const { port } = await serve(echo);
    const first = async () => {
      const { say, requests } = conversation();
      say({ sandboxId, port });
      const answers = served.client.forwardPort(requests())[Symbol.asyncIterator]();
      await answers.next();
      return async () => {
        say(undefined);
        while (!(await answers.next()).done);
      };
    };
    const ends = [await first(), await first()];
    await expect(first()).rejects.toThrow("2 connections to ports");
    for (const end of ends) await end();
    expect(served.ports.count()).toBe(0);
    served.allowed = [
      { protocol: "UDP", first: port, last: port },
      { protocol: "TCP", first: port + 1, last: port + 9 },
    ];
    await expect(first()).rejects.toThrow(`allowed are ${port + 1}-${port + 9}`);
    served.allowed = [{ protocol: "TCP", first: port, last: port }];
    served.sandbox = recordOf({ state: "STOPPED" });
    await expect(first()).rejects.toThrow("is STOPPED");
    served.sandbox = undefined;
    await expect(first()).rejects.toThrow("there is no sandbox");
    expect([served.ports.count(), served.attached()]).toEqual([0, 0]);
  });

  test("breaks off where it is open once the policy allows its port no more, and goes on where it does", async () => {
    const served = await openService();
    const [one, other] = [await serve(echo), await serve(echo)];
    const open = async (port: number) => {
      const { say, requests } = conversation();
      say({ sandboxId, port });
      const answers = served.client.forwardPort(requests())[Symbol.asyncIterator]();
      await answers.next();
      return { say, answers };
    };
    const [narrowed, kept] = [await open(one.port), await open(other.port)];
    const told = narrowed.answers.next();
    served.allowed = [{ protocol: "TCP", first: other.port, last: other.port }];
    served.ports.review();
    await expect(told).rejects.toThrow(`allowed are ${other.port}`);
    await becomes("the end of its connection", () => one.sockets.size === 0);
    kept.say({ data: Buffer.from("still") });
    const { value } = await kept.answers.next();
    expect(Buffer.from(value?.data ?? "").toString()).toBe("still");
    kept.say(undefined);
    while (!(await kept.answers.next()).done);
    expect([served.ports.count(), served.attached()]).toEqual([0, 0]);
  });
});

describe("CreatePreview", () => {
  test("is for an hour unless it is asked otherwise", async () => {
    const { client } = await openService();
    const { expireTime } = await client.createPreview({ sandboxId, port: 8_080 });
    expect(Number(expireTime?.seconds)).toBe(3_600);
    const shorter = await client.createPreview({ sandboxId, port: 8_080, ttl: { seconds: 5n } });
    expect(shorter).toMatchObject({ url: "http://8080/", token: "t", expireTime: { seconds: 5n } });
  });
});
