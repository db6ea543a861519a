// What the contract promises of every call, seen by a caller: errors with details, bounds, deadlines, terms, audit.
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, createClient } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import * as grpc from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  LocalizedMessageSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "../../gen/google/rpc/error_details_pb.ts";
import { CreateSandboxRequestSchema, SandboxService } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import type { Listener } from "../../src/api/listeners.ts";
import { SandboxdError } from "../../src/errors.ts";
import type { ApiFixture } from "../unit/api/fixture.ts";
import { errorOf, grpcClient, startApi, until } from "../unit/api/fixture.ts";

let api: ApiFixture;
let listener: Listener;
/** UpdateSandbox calls whose handler has begun. */
let updating: number;
beforeEach(async () => {
  updating = 0;
  api = await startApi(
    {},
    {
      startSandbox() {
        throw new SandboxdError("HOST_CAPACITY_EXCEEDED", "The host has 100 bytes of memory left", {
          hint: "Stop a sandbox.",
          retryDelayMs: 1500,
          quotas: [
            { level: "HOST", resource: "memory_bytes", limit: 1000, promised: 900, asked: 200, free: 100 },
          ],
          cause: new Error("secret path /var/lib"),
        });
      },
      stopSandbox() {
        throw new TypeError("secret: cannot read property of undefined");
      },
      deleteSandbox: () => new Promise(() => {}),
      updateSandbox: (_request, { signal }) =>
        new Promise((_resolve, reject) => {
          updating += 1;
          signal.addEventListener("abort", () => reject(signal.reason));
        }),
      // biome-ignore lint/correctness/useYield: it fails before it can tell anything.
      async *streamLogs() {
        throw new SandboxdError("ENGINE_UNAVAILABLE", "The engine is away.");
      },
    },
  );
  listener = await api.listen();
});
afterEach(() => api.close());

const ways = {
  gRPC: (baseUrl: string) => createGrpcTransport({ baseUrl }),
  "gRPC-Web": (baseUrl: string) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  "Connect with JSON": (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "Connect with protobuf": (baseUrl: string) =>
    createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true }),
} as const;

describe.each(Object.entries(ways))("%s", (_name, transport) => {
  const client = () => createClient(SandboxService, transport(`http://${listener.address}`));

  test("details decode to exactly what was thrown, and the cause stays behind", async () => {
    const error = await errorOf(client().startSandbox({ sandboxId: "a" }));
    expect(error.code).toBe(Code.ResourceExhausted);
    expect(error.rawMessage).toBe("The host has 100 bytes of memory left.\nHint: Stop a sandbox.");
    expect(error.findDetails(ErrorInfoSchema)).toMatchObject([
      { reason: "HOST_CAPACITY_EXCEEDED", domain: "sandboxd", metadata: {} },
    ]);
    expect(error.findDetails(QuotaFailureSchema)[0]?.violations).toMatchObject([
      {
        subject: "host/memory_bytes",
        description: "memory_bytes: limit 1000, promised 900, asked 200, free 100",
        quotaMetric: "memory_bytes",
        quotaValue: 1000n,
        quotaDimensions: { promised: "900", asked: "200", free: "100" },
      },
    ]);
    expect(error.findDetails(RetryInfoSchema)[0]?.retryDelay).toMatchObject({
      seconds: 1n,
      nanos: 500_000_000,
    });
    expect(error.findDetails(LocalizedMessageSchema)).toMatchObject([
      { locale: "en", message: "Stop a sandbox." },
    ]);
    expect(error.details).toHaveLength(4);
  });

  test("a defect is INTERNAL under a correlation id that the log knows, and leaks nothing", async () => {
    const error = await errorOf(client().stopSandbox({ sandboxId: "a" }));
    const [info] = error.findDetails(ErrorInfoSchema);
    expect([error.code, info?.reason]).toEqual([Code.Internal, "INTERNAL"]);
    expect(error.message).not.toContain("secret");
    const { correlation_id = "" } = info?.metadata ?? {};
    expect(correlation_id).toMatch(/^[0-9a-f-]{36}$/);
    expect(api.logged).toContainEqual(
      expect.objectContaining({
        correlation_id,
        err: expect.objectContaining({ stack: expect.stringContaining("secret") }),
      }),
    );
  });

  test("every broken rule is told at once, and nothing reaches the handler", async () => {
    const error = await errorOf(
      client().createSandbox({
        sandboxId: "A",
        tenant: "",
        spec: { env: { "1": "x" }, resources: { pids: 1n } },
      }),
    );
    expect([error.code, error.findDetails(ErrorInfoSchema)[0]?.reason]).toEqual([
      Code.InvalidArgument,
      "INVALID_FIELD",
    ]);
    const violations = error.findDetails(BadRequestSchema)[0]?.fieldViolations ?? [];
    expect(violations.map(({ field }) => field)).toEqual([
      "sandbox_id",
      "tenant",
      'spec.env["1"]',
      "spec.resources.pids",
    ]);
    expect(violations[3]?.description).toMatch(/^1 must be .* 4 .* 4194304/);
    expect(api.created).toEqual([]);
  });

  test("a deadline ends the call in time, even if the handler does not listen", async () => {
    const begun = performance.now();
    const error = await errorOf(client().deleteSandbox({ sandboxId: "a" }, { timeoutMs: 1_000 }));
    expect(error.code).toBe(Code.DeadlineExceeded);
    expect(performance.now() - begun).toBeLessThan(4_000);
    // Whichever clock is faster: the daemon's, or the caller's, which then hangs up.
    await until("the call is over", () => api.ended.length > 0);
    expect(["deadline_exceeded", "canceled"]).toContain(api.ended[0]?.code);
  });

  test("a caller that goes away is told to the handler", async () => {
    const stop = new AbortController();
    const call = errorOf(client().updateSandbox({ sandboxId: "a" }, { signal: stop.signal }));
    await until("the handler has begun", () => updating > 0);
    stop.abort();
    expect((await call).code).toBe(Code.Canceled);
    await until("the call is over", () => api.ended.some(({ code }) => code === "canceled"));
  });

  test("a stream's error carries its reason", async () => {
    const error = await errorOf(client().streamLogs({ sandboxId: "a" })[Symbol.asyncIterator]().next());
    expect(error.findDetails(ErrorInfoSchema)[0]?.reason).toBe("ENGINE_UNAVAILABLE");
  });

  test("an older term is fenced on mutating calls alone; a newer one fences from then on", async () => {
    const term = (value: string) => ({ headers: { "sandboxd-term": value } });
    await client().createSandbox({ tenant: "t" }, term("5"));
    const stale = await errorOf(client().createSandbox({ tenant: "t" }, term("4")));
    expect(stale.findDetails(ErrorInfoSchema)[0]).toMatchObject({
      reason: "STALE_TERM",
      metadata: { term: "4", newest_term: "5" },
    });
    await client().getSandbox({ sandboxId: "known" }, term("4"));
    await client().createSandbox({ tenant: "t" }, term("6"));
    expect((await errorOf(client().createSandbox({ tenant: "t" }, term("5")))).code).toBe(
      Code.FailedPrecondition,
    );
    expect((await errorOf(client().createSandbox({ tenant: "t" }, term("six")))).code).toBe(
      Code.InvalidArgument,
    );
  });
});

describe("what does not parse is MALFORMED_MESSAGE", () => {
  async function post(type: string, body: Uint8Array | string, method = "CreateSandbox") {
    const answer = await fetch(`http://${listener.address}/sandboxd.v1.SandboxService/${method}`, {
      method: "POST",
      headers: { "content-type": type },
      body,
    });
    return {
      status: answer.status,
      body: (await answer.json()) as { code: string; details: { debug: object }[] },
    };
  }
  const malformed = {
    status: 400,
    body: {
      code: "invalid_argument",
      details: expect.arrayContaining([
        expect.objectContaining({ debug: { reason: "MALFORMED_MESSAGE", domain: "sandboxd" } }),
      ]),
    },
  };
  const unknownField = Buffer.from([0xfa, 0x07, 1, 120]);

  test.each([
    ["JSON with an unknown field", "application/json", '{"tenant":"t","privileged":true}'],
    ["JSON with an unknown nested field", "application/json", '{"tenant":"t","spec":{"capAdd":["ALL"]}}'],
    ["no JSON", "application/json", "{"],
    ["a JSON number for a string", "application/json", '{"tenant":1}'],
    ["no protobuf", "application/proto", Buffer.from([0xff, 0xff, 0xff])],
  ])("%s", async (_name, type, body) => {
    expect(await post(type, body)).toMatchObject(malformed);
    expect(api.created).toEqual([]);
    expect(api.ended).toMatchObject([{ code: "invalid_argument" }]);
  });

  test("protobuf with an unknown field, also a nested one, on a mutating call", async () => {
    const known = toBinary(CreateSandboxRequestSchema, create(CreateSandboxRequestSchema, { tenant: "t" }));
    const outer = await post("application/proto", Buffer.concat([known, unknownField]));
    expect(outer).toMatchObject(malformed);
    const spec = Buffer.concat([Buffer.from([0x1a, unknownField.byteLength]), unknownField]);
    const nested = await post("application/proto", Buffer.concat([known, spec]));
    expect(nested.body.details[1]?.debug).toEqual({
      fieldViolations: [{ field: "spec.field 127", description: "is not in this daemon's contract" }],
    });
    expect(api.created).toEqual([]);
  });

  test("but protobuf with an unknown field on a reading call is answered, as protobuf has it", async () => {
    const known = Buffer.concat([Buffer.from([0x0a, 5]), Buffer.from("known"), unknownField]);
    const answer = await fetch(`http://${listener.address}/sandboxd.v1.SandboxService/GetSandbox`, {
      method: "POST",
      headers: { "content-type": "application/proto" },
      body: known,
    });
    expect(answer.status).toBe(200);
  });

  test("bytes that are no message, from a gRPC client", async () => {
    const client = new grpc.Client(listener.address, grpc.credentials.createInsecure());
    const error = await new Promise<grpc.ServiceError | null>((resolve) => {
      client.makeUnaryRequest(
        "/sandboxd.v1.SandboxService/CreateSandbox",
        Buffer.from,
        Buffer.from,
        Buffer.from([0xff]),
        resolve,
      );
    });
    client.close();
    expect(error?.code).toBe(grpc.status.INVALID_ARGUMENT);
    expect(error?.metadata.get("grpc-status-details-bin")[0]?.toString()).toContain("MALFORMED_MESSAGE");
  });
});

test("the audit line names the call and its sandbox, and nothing of its body is ever logged", async () => {
  const client = grpcClient(listener);
  await client.createSandbox({
    sandboxId: "a",
    tenant: "t",
    spec: { env: { TOKEN: "hunter2" }, args: ["hunter3"] },
  });
  await errorOf(client.createSandbox({ tenant: "t", spec: { env: { TOKEN: "hunter4\0" } } }));
  await client.createSandbox({ tenant: "t" });
  const audited = api.logged
    .filter(({ audit }) => audit === true)
    .map(({ sandbox_id, code }) => [sandbox_id, code]);
  expect(audited).toEqual([
    ["a", "ok"],
    [undefined, "invalid_argument"],
    ["made-up", "ok"],
  ]);
  expect(JSON.stringify(api.logged)).not.toMatch(/hunter/);
});

test("a handler that does not listen is given up at the deadline, by the daemon's own clock", async () => {
  const answer = await fetch(`http://${listener.address}/sandboxd.v1.SandboxService/DeleteSandbox`, {
    method: "POST",
    headers: { "content-type": "application/json", "connect-timeout-ms": "100" },
    body: '{"sandboxId":"a"}',
  });
  expect(await answer.json()).toMatchObject({ code: "deadline_exceeded" });
  expect(api.ended).toMatchObject([{ code: "deadline_exceeded" }]);
});

test("a deadline of years is no deadline", async () => {
  const answer = await fetch(`http://${listener.address}/sandboxd.v1.SandboxService/GetSandbox`, {
    method: "POST",
    headers: { "content-type": "application/json", "connect-timeout-ms": "9999999999" },
    body: '{"sandboxId":"known"}',
  });
  expect(answer.status).toBe(200);
});

test("a method that nobody implements is UNIMPLEMENTED, and a path that is no method 404", async () => {
  const client = grpcClient(listener);
  expect((await errorOf(client.listSandboxes({}))).code).toBe(Code.Unimplemented);
  expect((await fetch(`http://${listener.address}/nothing`)).status).toBe(404);
});
