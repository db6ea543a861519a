// The standard services as the tools of others use them: health, and reflection in both versions.
import { execFile } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "../../gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import type { Listener } from "../../src/api/listeners.ts";
import type { ApiFixture } from "../unit/api/fixture.ts";
import { errorOf, startApi } from "../unit/api/fixture.ts";

const { PATH: searchPath } = process.env;
const run = promisify(execFile);
let api: ApiFixture;
let listener: Listener;
beforeEach(async () => {
  api = await startApi();
  listener = await api.listen();
});
afterEach(() => api.close());

/** The program's path, if it is on PATH or where `go install` puts it. */
function found(program: string): string | undefined {
  const directories = [...(searchPath ?? "").split(delimiter), join(homedir(), "go", "bin")];
  return directories
    .map((directory) => join(directory, program))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

const grpcurl = found("grpcurl");
describe.skipIf(grpcurl === undefined)("grpcurl (skipped where it is not installed)", () => {
  const call = async (...args: string[]): Promise<string> =>
    (await run(grpcurl ?? "", ["-plaintext", ...args])).stdout;

  test("lists the services", async () => {
    expect((await call(listener.address, "list")).trim().split("\n")).toEqual([
      "grpc.health.v1.Health",
      "grpc.reflection.v1.ServerReflection",
      "grpc.reflection.v1alpha.ServerReflection",
      "sandboxd.v1.SandboxService",
    ]);
  });

  test.each(["sandboxd.v1.SandboxService", "sandboxd.v1.Sandbox", "sandboxd.v1.SandboxService.GetSandbox"])(
    "describes %s",
    async (symbol) => {
      expect(await call(listener.address, "describe", symbol)).toContain(`${symbol} is a`);
    },
  );

  test("calls a method without a proto file, and shows an error's details", async () => {
    const method = "sandboxd.v1.SandboxService/GetSandbox";
    const answer = await call("-d", '{"sandbox_id":"known"}', listener.address, method);
    expect(JSON.parse(answer)).toEqual({ sandbox: { sandboxId: "known" } });
    const failed = await call("-d", '{"sandbox_id":"other"}', listener.address, method).catch(
      (error: { stderr: string }) => error.stderr,
    );
    expect(failed).toMatch(/Code: NotFound[\s\S]*There is no sandbox[\s\S]*"reason":\s*"SANDBOX_NOT_FOUND"/);
  });

  test("is served on the unix socket", async () => {
    const path = join(api.directory, "api.sock");
    await api.listen({ kind: "unix", path });
    expect(await call(`unix://${path}`, "list")).toContain("sandboxd.v1.SandboxService");
  });
});

describe("buf curl", () => {
  const buf = join("node_modules", ".bin", "buf");

  test.each(["grpc-v1", "grpc-v1alpha"])("lists methods and calls one by reflection %s", async (protocol) => {
    const common = ["curl", "--http2-prior-knowledge", "--reflect-protocol", protocol];
    const { stdout } = await run(buf, [...common, "--list-methods", `http://${listener.address}`]);
    expect(stdout).toContain("sandboxd.v1.SandboxService/GetSandbox");
    const url = `http://${listener.address}/sandboxd.v1.SandboxService/GetSandbox`;
    const called = await run(buf, [...common, "--protocol", "grpc", "-d", '{"sandboxId":"known"}', url]);
    expect(JSON.parse(called.stdout)).toEqual({ sandbox: { sandboxId: "known" } });
  });
});

describe.each([
  ["v1", ServerReflection],
  ["v1alpha", ServerReflectionAlpha],
] as const)("reflection %s", (_version, service) => {
  type Question =
    NonNullable<
      Parameters<ReturnType<typeof createClient<typeof ServerReflection>>["serverReflectionInfo"]>[0]
    > extends AsyncIterable<infer Request>
      ? Request
      : never;

  async function ask(messageRequest: Question["messageRequest"]) {
    const transport = createGrpcTransport({ baseUrl: `http://${listener.address}` });
    const client = createClient(service as typeof ServerReflection, transport);
    const questions = (async function* (): AsyncGenerator<Question> {
      yield { host: "h", messageRequest };
    })();
    for await (const answer of client.serverReflectionInfo(questions)) {
      return answer;
    }
    throw new Error("no answer");
  }

  test.each([
    { case: "fileByFilename", value: "no/such.proto" },
    { case: "fileContainingSymbol", value: "sandboxd.v1.Nothing" },
    { case: "fileContainingSymbol", value: "" },
    {
      case: "fileContainingExtension",
      value: { containingType: "google.protobuf.FieldOptions", extensionNumber: 1 },
    },
    { case: "allExtensionNumbersOfType", value: "no.Such" },
  ] as const)("says NOT_FOUND to $case $value, and repeats the question", async (question) => {
    const answer = await ask(question as Question["messageRequest"]);
    expect(answer).toMatchObject({ validHost: "h", originalRequest: { messageRequest: question } });
    expect(answer.messageResponse).toMatchObject({ case: "errorResponse", value: { errorCode: 5 } });
  });

  test("says INVALID_ARGUMENT to a question that asks nothing", async () => {
    expect((await ask({ case: undefined })).messageResponse).toMatchObject({ value: { errorCode: 3 } });
  });

  test.each([
    [
      "a file, with all that it needs",
      { case: "fileByFilename", value: "sandboxd/v1/sandbox_service.proto" },
    ],
    ["a message", { case: "fileContainingSymbol", value: "sandboxd.v1.Sandbox" }],
    ["a field", { case: "fileContainingSymbol", value: "sandboxd.v1.Sandbox.sandbox_id" }],
    ["an enum value", { case: "fileContainingSymbol", value: "sandboxd.v1.LOG_STREAM_STDOUT" }],
    ["an extension by name", { case: "fileContainingSymbol", value: "buf.validate.field" }],
    [
      "an extension by number",
      {
        case: "fileContainingExtension",
        value: { containingType: "google.protobuf.FieldOptions", extensionNumber: 1159 },
      },
    ],
  ] as const)("finds %s", async (_name, question) => {
    const { messageResponse } = await ask(question as Question["messageRequest"]);
    expect(messageResponse).toMatchObject({ case: "fileDescriptorResponse" });
  });

  test("knows the extensions of a message", async () => {
    const { messageResponse } = await ask({
      case: "allExtensionNumbersOfType",
      value: "google.protobuf.FieldOptions",
    });
    expect(messageResponse).toMatchObject({
      case: "allExtensionNumbersResponse",
      value: {
        baseTypeName: "google.protobuf.FieldOptions",
        extensionNumber: expect.arrayContaining([1159]),
      },
    });
  });
});

describe("health", () => {
  const client = () =>
    createClient(Health, createConnectTransport({ baseUrl: `http://${listener.address}`, httpVersion: "2" }));

  test("is told once, or NOT_FOUND, or for all", async () => {
    api.health.set("", "SERVING");
    api.health.set("sandboxd.v1.SandboxService", "NOT_SERVING");
    expect((await client().check({})).status).toBe(Serving.SERVING);
    expect((await client().check({ service: "sandboxd.v1.SandboxService" })).status).toBe(
      Serving.NOT_SERVING,
    );
    expect((await errorOf(client().check({ service: "x" }))).message).toBe('[not_found] no service "x"');
    expect(Object.keys((await client().list({})).statuses)).toEqual(["", "sandboxd.v1.SandboxService"]);
  });

  test("is watched: an unknown service first, then each change, NOT_SERVING before the end", async () => {
    const watch = client().watch({ service: "s" })[Symbol.asyncIterator]();
    const next = async () => (await watch.next()).value?.status;
    expect(await next()).toBe(Serving.SERVICE_UNKNOWN);
    api.health.set("s", "SERVING");
    expect(await next()).toBe(Serving.SERVING);
    const closed = api.server.close({ graceMs: 1000 });
    expect(await next()).toBe(Serving.NOT_SERVING);
    await errorOf(watch.next());
    await closed;
  });
});
