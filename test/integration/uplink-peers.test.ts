// The uplink among several schedulers: dead ones, followers, deposed leaders, strangers, and those that break the contract.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Authority, createAuthority, type KeyPair } from "../unit/api/certificates.ts";
import { createFakeSource } from "../unit/scheduler/fixture.ts";
import { closeAll, closeLater, hostId, schedulerOf, until, uplinkOf } from "./uplink-fixture.ts";

afterEach(closeAll);

describe("several schedulers", () => {
  test("are tried in turn when the first is dead", async () => {
    const scheduler = await schedulerOf();
    const uplink = uplinkOf({ source: createFakeSource(), endpoints: ["http://127.0.0.1:1", scheduler.url] });
    await until(() => expect(uplink.status()).toMatchObject({ state: "live", endpoint: scheduler.url }));
    expect(uplink.status().lastFailure).toContain("http://127.0.0.1:1: UNAVAILABLE");
  });

  test("send hosts to their leader, before Welcome and after", async () => {
    const leader = await schedulerOf();
    const next = await schedulerOf();
    const follower = await schedulerOf({
      greet: () => ({ kind: "redirect", endpoint: leader.url }),
    });
    const source = createFakeSource();
    const uplink = uplinkOf({ source, endpoints: [follower.url], limits: { backoffBaseMs: 60_000 } });
    await until(() => expect(uplink.status()).toMatchObject({ state: "live", endpoint: leader.url }));
    leader.redirect(hostId, next.url);
    await until(() => expect(uplink.status()).toMatchObject({ state: "live", endpoint: next.url }));
    expect(leader.host(hostId)?.connected).toBe(false);
  });

  test("that send hosts round in a circle do not make them spin", async () => {
    let hellos = 0;
    const circle = await schedulerOf({
      greet: () => {
        hellos += 1;
        return { kind: "redirect", endpoint: circle.url };
      },
    });
    const uplink = uplinkOf({
      source: createFakeSource(),
      endpoints: [circle.url],
      limits: { backoffBaseMs: 60_000, backoffCapMs: 60_000 },
      random: () => 0.999,
    });
    await until(() => expect(uplink.status().state).toBe("waiting"));
    // the first and at most three redirects in a row; a loaded machine may lose a redirect with its call
    expect(hellos).toBeGreaterThan(0);
    expect(hellos).toBeLessThanOrEqual(4);
  });

  test("with an older term are refused until the leader answers", async () => {
    const old = await schedulerOf();
    const leader = await schedulerOf();
    old.setTerm(3);
    leader.setTerm(4);
    const source = createFakeSource({ term: 4 });
    const uplink = uplinkOf({ source, endpoints: [old.url, leader.url] });
    await until(() =>
      expect(uplink.status()).toMatchObject({ state: "live", term: 4, endpoint: leader.url }),
    );
    expect(uplink.status().lastFailure).toContain("term 3 is older than 4");
    expect(old.host(hostId)).toMatchObject({ snapshots: 0 });
  });

  test("do not both keep a host: the second session of a host replaces the first", async () => {
    const scheduler = await schedulerOf();
    const first = uplinkOf({
      source: createFakeSource(),
      endpoints: [scheduler.url],
      limits: { backoffBaseMs: 60_000, backoffCapMs: 60_000 },
      random: () => 0.999,
    });
    await until(() => expect(first.status().state).toBe("live"));
    const second = uplinkOf({ source: createFakeSource(), endpoints: [scheduler.url] });
    await until(() => expect(first.status().state).toBe("waiting"));
    expect(first.status().lastFailure).toContain("replaced by a newer session");
    expect(second.status().state).toBe("live");
    expect(scheduler.host(hostId)?.connected).toBe(true);
  });
});

describe("a scheduler that breaks the contract", () => {
  test("with a Welcome that cannot be decoded is left and tried again after a back-off", async () => {
    let calls = 0;
    const server = new Server();
    server.register(
      "/sandboxd.v1.SchedulerService/Connect",
      (call: { write(bytes: Buffer): void; on(event: "data", listener: () => void): void }) => {
        calls += 1;
        call.on("data", () => undefined);
        call.write(Buffer.from([0x0a, 0xff]));
      },
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      "bidi",
    );
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    closeLater(() => server.forceShutdown());
    const uplink = uplinkOf({ source: createFakeSource(), endpoints: [`http://127.0.0.1:${port}`] });
    await until(() => expect(calls).toBeGreaterThan(2));
    expect(uplink.status().lastFailure).toContain("cannot be decoded");
  });

  test("or refuses the host is tried again with growing, jittered waits", async () => {
    const waits: number[] = [];
    const refusing = await schedulerOf({
      greet: () => ({ kind: "refuse", error: new ConnectError("not you", Code.PermissionDenied) }),
    });
    const clock = {
      monotonicMs: () => performance.now(),
      wallMs: () => Date.now(),
      after(delayMs: number, callback: () => void) {
        if (delayMs < 10_000) waits.push(delayMs);
        const timer = setTimeout(callback, delayMs < 10_000 ? 0 : delayMs);
        return () => clearTimeout(timer);
      },
    };
    const uplink = uplinkOf({
      source: createFakeSource(),
      endpoints: [refusing.url],
      clock,
      random: () => 0.25,
      limits: { backoffBaseMs: 500, backoffCapMs: 30_000 },
    });
    await until(() => expect(waits.length).toBeGreaterThan(7));
    expect(waits.slice(0, 8)).toEqual([125, 250, 500, 1_000, 2_000, 4_000, 7_500, 7_500]);
    expect(uplink.status().lastFailure).toContain("PERMISSION_DENIED: not you");
  });
});

describe("with TLS", () => {
  let directory = "";
  let ours: Authority;
  let server: KeyPair;
  let client: KeyPair;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "uplink-"));
    ours = await createAuthority(directory, "ours");
    server = await ours.issue("server", {
      subject: "/CN=scheduler",
      names: "IP:127.0.0.1",
      usage: "serverAuth",
    });
    client = await ours.issue("client", { subject: "/CN=host-1" });
  });

  afterAll(() => rm(directory, { recursive: true }));

  async function pem(pair: KeyPair, authority: KeyPair) {
    const [certificate, key, ca] = await Promise.all(
      [pair.certFile, pair.keyFile, authority.certFile].map((file) => readFile(file)),
    );
    if (certificate === undefined || key === undefined || ca === undefined) throw new Error("no files");
    return { certificate, key, ca };
  }

  test("host and scheduler know each other by certificates of their authority", async () => {
    const scheduler = await schedulerOf({ tls: await pem(server, ours) });
    const credentials = await pem(client, ours);
    const uplink = uplinkOf({
      source: createFakeSource(),
      endpoints: [scheduler.url],
      credentials: () => credentials,
    });
    await until(() => expect(uplink.status()).toMatchObject({ state: "live", endpoint: scheduler.url }));
    scheduler.redirect(hostId, "http://127.0.0.1:1");
    await until(() => expect(uplink.status().lastFailure).toContain("would give up TLS"));
  });

  test("neither talks to a stranger, and renewed files are taken up without a restart", async () => {
    const strangers = await createAuthority(directory, "strangers");
    const scheduler = await schedulerOf({ tls: await pem(server, ours) });
    const trusting = await pem(client, ours);
    const stranger = await pem(await strangers.issue("stranger", { subject: "/CN=host-1" }), ours);
    const distrusting = await pem(client, strangers);
    let now = stranger;
    const uplink = uplinkOf({
      source: createFakeSource(),
      endpoints: [scheduler.url],
      credentials: () => now,
    });
    await until(() => expect(uplink.status().lastFailure).toBeDefined());
    now = distrusting;
    await until(() => expect(uplink.status().lastFailure).toContain("certificate"));
    expect(scheduler.hosts()).toEqual([]);
    now = trusting;
    await until(() => expect(uplink.status().state).toBe("live"));
  });

  test("a certificate for another address than the endpoint's is refused", async () => {
    const elsewhere = await ours.issue("elsewhere", {
      subject: "/CN=127.0.0.1",
      names: "IP:127.0.0.2,DNS:scheduler",
      usage: "serverAuth",
    });
    const scheduler = await schedulerOf({ tls: await pem(elsewhere, ours) });
    const credentials = await pem(client, ours);
    const uplink = uplinkOf({
      source: createFakeSource(),
      endpoints: [scheduler.url],
      credentials: () => credentials,
    });
    await until(() =>
      expect(uplink.status().lastFailure).toContain("IP: 127.0.0.1 is not in the cert's list"),
    );
  });

  test("a host without credentials says what is missing", async () => {
    const uplink = uplinkOf({ source: createFakeSource(), endpoints: ["https://127.0.0.1:1"] });
    await until(() => expect(uplink.status().lastFailure).toContain("[scheduler.tls]"));
  });
});
