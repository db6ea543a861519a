// The whole daemon over TLS: callers by their certificates' roles, and its own stream to a scheduler that asks for one.

import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { SandboxService } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import { refusalOf, sleeping, specOf, startHost, type TestHost, tenant } from "../harness/sandboxes.ts";
import { type Authority, createAuthority, type KeyPair, loaded } from "../unit/api/certificates.ts";

const onLoopback = { names: "IP:127.0.0.1,DNS:localhost", usage: "serverAuth" } as const;

describe.skipIf(engineObstacle !== undefined)(`a daemon with TLS (${engineObstacle ?? "engine"})`, () => {
  let directory: string;
  let callers: Authority;
  let hosts: Authority;
  let witness: EventWitness;
  let host: TestHost;
  let address: string;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "tls-"));
    callers = await createAuthority(directory, "callers");
    hosts = await createAuthority(directory, "hosts");
    const own = await hosts.issue("host", { subject: "/CN=host", ...onLoopback });
    const asClient = await hosts.issue("host-client", { subject: "/CN=host" });
    const scheduler = await callers.issue("scheduler-server", { subject: "/CN=scheduler", ...onLoopback });
    const { cert: certificate, key } = await loaded(scheduler);
    witness = await witnessEvents({ tls: { certificate, key, ca: readFileSync(hosts.certFile) } });
    address = `127.0.0.1:${await freePort()}`;
    const listen = { address, certificate: own.certFile, key: own.keyFile, client_ca: callers.certFile };
    const dial = { ca: callers.certFile, certificate: asClient.certFile, key: asClient.keyFile };
    host = await startHost({
      config: { listen: { tls: listen }, scheduler: { ...witness.config.scheduler, tls: dial } },
    });
  });
  afterAll(async () => {
    await host?.daemon.cleanup();
    await witness?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  async function clientOf(pair: KeyPair | undefined) {
    const ca = readFileSync(hosts.certFile);
    const nodeOptions = { ca, ...(pair === undefined ? {} : await loaded(pair)) };
    return createClient(SandboxService, createGrpcTransport({ baseUrl: `https://${address}`, nodeOptions }));
  }
  const callerOf = (role: string) =>
    callers.issue(role, { subject: `/CN=${role}`, names: `URI:sandboxd://role/${role}` }).then(clientOf);

  test.each(["scheduler", "operator"])(
    "one with the role %s creates, sees, stops and deletes sandboxes",
    async (role) => {
      const client = await callerOf(role);
      const sandboxId = `by-${role}`;
      const { sandbox } = await client.createSandbox({ sandboxId, tenant, spec: specOf(sleeping) });
      expect(sandbox?.status?.state).toBe(SandboxState.RUNNING);
      expect((await client.getSandbox({ sandboxId })).sandbox).toEqual(sandbox);
      const { sandbox: stopped } = await client.stopSandbox({ sandboxId });
      expect(stopped?.status?.transition?.actor?.identity, "who asked is told").toBe(role);
      await client.deleteSandbox({ sandboxId });
      expect(await host.containers()).toEqual([]);
    },
  );

  test("a viewer sees sandboxes and changes none", async () => {
    const sandbox = await host.run("seen", sleeping);
    const client = await callerOf("viewer");
    expect((await client.getSandbox({ sandboxId: "seen" })).sandbox).toEqual(sandbox);
    const calls = {
      create: () => client.createSandbox({ sandboxId: "unseen", tenant, spec: specOf(sleeping) }),
      stop: () => client.stopSandbox({ sandboxId: "seen" }),
      delete: () => client.deleteSandbox({ sandboxId: "seen" }),
    };
    for (const [verb, call] of Object.entries(calls)) {
      const refused = await refusalOf(call());
      expect(refused, verb).toMatchObject({ code: "PermissionDenied", reason: "ROLE_NOT_ALLOWED" });
    }
    expect(await host.get("seen")).toEqual(sandbox);
    expect(await host.containers()).toHaveLength(1);
    await host.sandboxes.deleteSandbox({ sandboxId: "seen" });
  });

  test("a caller without a certificate, or with one of another authority, is not let in", async () => {
    const foreign = await hosts.issue("foreign", { subject: "/CN=ann/OU=operator" });
    for (const pair of [undefined, foreign]) {
      const client = await clientOf(pair);
      await expect(client.getSandbox({ sandboxId: "any" })).rejects.toThrow();
    }
    // the same call by a caller that is let in finds nothing, which is an answer
    const insider = await callerOf("operator");
    expect((await refusalOf(insider.getSandbox({ sandboxId: "any" }))).reason).toBe("SANDBOX_NOT_FOUND");
  });

  test("the scheduler hears every event over TLS, in order", async () => {
    await host.run("told", sleeping);
    await host.sandboxes.deleteSandbox({ sandboxId: "told" });
    const events = await witness.check(host);
    expect(events.length).toBeGreaterThan(4);
    expect(witness.scheduler.url).toMatch(/^https:/);
    expect(witness.scheduler.host(host.daemon.hostId)?.sessions).toBe(1);
  });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
