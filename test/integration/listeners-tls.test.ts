// Who may come in over TCP: certificates of the configured authority, their roles, and both taken anew on reload.
import { copyFile } from "node:fs/promises";
import { connect as connectHttp2 } from "node:http2";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import * as grpc from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { Health } from "../../gen/grpc/health/v1/health_pb.ts";
import { SandboxService } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import type { Listener } from "../../src/api/listeners.ts";
import type { Authority, KeyPair } from "../unit/api/certificates.ts";
import { createAuthority, loaded } from "../unit/api/certificates.ts";
import type { ApiFixture } from "../unit/api/fixture.ts";
import { errorOf, startApi, until } from "../unit/api/fixture.ts";

let api: ApiFixture;
let callers: Authority;
let server: Authority;
let listener: Listener;
let port: number;
let ca: Buffer;
let clientCa: string;

beforeEach(async () => {
  api = await startApi();
  callers = await createAuthority(api.directory, "callers");
  server = await createAuthority(api.directory, "server-ca");
  const own = await server.issue("server", {
    subject: "/CN=host",
    names: "IP:127.0.0.1,DNS:localhost",
    usage: "serverAuth",
  });
  clientCa = join(api.directory, "trusted.pem");
  await copyFile(callers.certFile, clientCa);
  listener = await api.listen({
    kind: "tls",
    host: "127.0.0.1",
    port: 0,
    tls: { certificate: own.certFile, key: own.keyFile, clientCa },
  });
  port = Number(listener.address.split(":")[1]);
  ca = (await loaded(server)).cert;
});
afterEach(() => api.close());

async function clientsFor(pair: KeyPair | undefined) {
  const nodeOptions = { ca, ...(pair === undefined ? {} : await loaded(pair)) };
  const transport = createGrpcTransport({ baseUrl: `https://${listener.address}`, nodeOptions });
  return { sandboxes: createClient(SandboxService, transport), health: createClient(Health, transport) };
}

/** The outcome of a call by this certificate: a reason of the catalogue, a code, or "ok". */
async function outcomes(pair: KeyPair): Promise<readonly string[]> {
  const { sandboxes, health } = await clientsFor(pair);
  api.health.set("", "SERVING");
  const calls = [
    sandboxes.getSandbox({ sandboxId: "known" }),
    sandboxes.createSandbox({ tenant: "t" }),
    health.check({}),
  ];
  return Promise.all(
    calls.map((call: Promise<unknown>) =>
      call.then(
        () => "ok",
        (error: unknown) => reasonOrMessage(error),
      ),
    ),
  );
}

function reasonOrMessage(error: unknown): string {
  const found = error as Awaited<ReturnType<typeof errorOf>>;
  return found.findDetails(ErrorInfoSchema)[0]?.reason ?? found.message;
}

describe("a certificate's role decides", () => {
  test.each([
    ["scheduler by URI", "/CN=main", "URI:sandboxd://role/scheduler", ["ok", "ok", "ok"]],
    ["operator by OU", "/CN=ann/OU=operator", undefined, ["ok", "ok", "ok"]],
    ["viewer by URI", "/CN=eve", "URI:sandboxd://role/viewer", ["ok", "ROLE_NOT_ALLOWED", "ok"]],
    [
      "a URI wins over the OU",
      "/CN=eve/OU=operator",
      "URI:sandboxd://role/viewer",
      ["ok", "ROLE_NOT_ALLOWED", "ok"],
    ],
    [
      "an unknown role",
      "/CN=eve/OU=root",
      undefined,
      ["ROLE_NOT_ALLOWED", "ROLE_NOT_ALLOWED", "ROLE_NOT_ALLOWED"],
    ],
    [
      "two roles",
      "/CN=eve",
      "URI:sandboxd://role/viewer,URI:sandboxd://role/operator",
      ["ROLE_NOT_ALLOWED", "ROLE_NOT_ALLOWED", "ROLE_NOT_ALLOWED"],
    ],
    [
      "nobody",
      "/O=somewhere/OU=operator",
      undefined,
      ["UNAUTHENTICATED", "UNAUTHENTICATED", "UNAUTHENTICATED"],
    ],
  ])("%s", async (_name, subject, names, expected) => {
    const pair = await callers.issue("client", { subject, ...(names === undefined ? {} : { names }) });
    expect(await outcomes(pair)).toEqual(expected);
    expect(api.created).toHaveLength(expected[1] === "ok" ? 1 : 0);
  });
});

describe("refused in the handshake, and logged, is", () => {
  async function expectRefused(pair: KeyPair | undefined): Promise<void> {
    const { sandboxes } = await clientsFor(pair);
    await errorOf(sandboxes.getSandbox({ sandboxId: "known" }));
    await until("it is counted", () => api.refused.includes("handshake"));
    expect(api.logged).toContainEqual(expect.objectContaining({ audit: true, msg: "TLS handshake refused" }));
    expect(api.ended).toEqual([]);
  }

  test("a caller without a certificate", () => expectRefused(undefined));

  test("an expired certificate", async () => {
    await expectRefused(await callers.issue("old", { subject: "/CN=ann/OU=operator", days: -1 }));
  });

  test("a certificate of another authority", async () => {
    const others = await createAuthority(api.directory, "others");
    await expectRefused(await others.issue("other", { subject: "/CN=ann/OU=operator" }));
  });

  test("a server's certificate", async () => {
    await expectRefused(await callers.issue("srv", { subject: "/CN=ann/OU=operator", usage: "serverAuth" }));
  });

  test("TLS 1.1", async () => {
    const pair = await loaded(await callers.issue("ann", { subject: "/CN=ann/OU=operator" }));
    const failed = await new Promise<Error>((resolve) => {
      connectTls({
        port,
        host: "127.0.0.1",
        ca,
        ...pair,
        maxVersion: "TLSv1.1",
        minVersion: "TLSv1",
        ciphers: "ALL@SECLEVEL=0",
      }).once("error", resolve);
    });
    expect(failed.message).toMatch(/protocol version|no protocols/i);
  });

  test("plain text", async () => {
    await new Promise((resolve) => {
      connectHttp2(`http://${listener.address}`).on("error", resolve).once("close", resolve);
    });
    await until("it is counted", () => api.refused.includes("handshake"));
  });
});

test("TLS 1.3 is used, and both h2 and http/1.1 are offered", async () => {
  const pair = await loaded(await callers.issue("ann", { subject: "/CN=ann/OU=operator" }));
  for (const ALPNProtocols of [["h2"], ["http/1.1"]]) {
    const socket = connectTls({ port, host: "127.0.0.1", ca, ...pair, ALPNProtocols });
    await new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
    expect([socket.getProtocol(), socket.alpnProtocol]).toEqual(["TLSv1.3", ALPNProtocols[0]]);
    socket.destroy();
  }
  const transport = createConnectTransport({
    baseUrl: `https://${listener.address}`,
    httpVersion: "1.1",
    nodeOptions: { ca, ...pair },
  });
  await createClient(SandboxService, transport).getSandbox({ sandboxId: "known" });
});

test("a grpc-js client with a certificate is served and named in the audit line", async () => {
  const { cert, key } = await loaded(
    await callers.issue("main", { subject: "/CN=main scheduler", names: "URI:sandboxd://role/scheduler" }),
  );
  const client = new grpc.Client(listener.address, grpc.credentials.createSsl(ca, key, cert), {
    // Node takes no address as a TLS server name.
    "grpc.ssl_target_name_override": "localhost",
  });
  const metadata = new grpc.Metadata();
  metadata.set("sandboxd-term", "4");
  const error = await new Promise<grpc.ServiceError | null>((resolve) => {
    const request = Buffer.from([0x0a, 1, 97, 0x12, 1, 116]);
    client.makeUnaryRequest(
      "/sandboxd.v1.SandboxService/CreateSandbox",
      Buffer.from,
      Buffer.from,
      request,
      metadata,
      (failed) => resolve(failed),
    );
  });
  client.close();
  expect(error?.code).toBe(grpc.status.FAILED_PRECONDITION);
  expect(api.logged).toContainEqual(
    expect.objectContaining({
      audit: true,
      msg: "call",
      method: "sandboxd.v1.SandboxService/CreateSandbox",
      caller: "main scheduler",
      role: "scheduler",
      code: "failed_precondition",
      reason: "STALE_TERM",
      sandbox_id: "a",
    }),
  );
});

test("reload takes a new authority, asks old sessions to end, and keeps the old files if the new are unusable", async () => {
  const ann = await callers.issue("ann", { subject: "/CN=ann/OU=operator" });
  const session = connectHttp2(`https://${listener.address}`, { ca, ...(await loaded(ann)) });
  await new Promise((resolve) => session.once("connect", resolve));
  await copyFile(join(api.directory, "ann.key"), clientCa);
  await expect(listener.reload()).rejects.toThrow("trusted.pem");
  expect(await outcomes(ann)).toEqual(["ok", "ok", "ok"]);

  const others = await createAuthority(api.directory, "others");
  await copyFile(others.certFile, clientCa);
  const goodbye = new Promise((resolve) => session.once("goaway", resolve));
  await listener.reload();
  await goodbye;
  expect((await outcomes(ann))[0]).not.toBe("ok");
  expect(await outcomes(await others.issue("bob", { subject: "/CN=bob/OU=operator" }))).toEqual([
    "ok",
    "ok",
    "ok",
  ]);
});

test("a key that is not the certificate's is refused with the files' names", async () => {
  const pair = await server.issue("two", { subject: "/CN=two", usage: "serverAuth" });
  const tls = { certificate: pair.certFile, key: callers.keyFile, clientCa };
  await expect(api.listen({ kind: "tls", host: "127.0.0.1", port: 0, tls })).rejects.toThrow(
    /two\.pem.*callers\.key.*\nHint:/s,
  );
});
