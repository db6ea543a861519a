// One port, every protocol: that each caller gets the same answer and the same error, whichever way it came.
import { execFile } from "node:child_process";
import { chmod, stat, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { fromBinary } from "@bufbuild/protobuf";
import { Code, createClient } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { SandboxService } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import type { ApiFixture } from "../unit/api/fixture.ts";
import { errorOf, grpcClient, startApi, until } from "../unit/api/fixture.ts";

const run = promisify(execFile);
let api: ApiFixture;
beforeEach(async () => {
  api = await startApi();
});
afterEach(() => api.close());

const ways = {
  "gRPC over HTTP/2": (baseUrl: string) => createGrpcTransport({ baseUrl }),
  "gRPC-Web over HTTP/1.1": (baseUrl: string) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  "gRPC-Web over HTTP/2": (baseUrl: string) => createGrpcWebTransport({ baseUrl, httpVersion: "2" }),
  "Connect over HTTP/1.1": (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "Connect over HTTP/2": (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "2" }),
  "Connect GET": (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "2", useHttpGet: true }),
} as const;

describe.each(Object.entries(ways))("%s", (_name, transport) => {
  test("a call is answered", async () => {
    const { address } = await api.listen();
    const client = createClient(SandboxService, transport(`http://${address}`));
    expect((await client.getSandbox({ sandboxId: "known" })).sandbox?.sandboxId).toBe("known");
  });

  test("an error carries its reason", async () => {
    const { address } = await api.listen();
    const client = createClient(SandboxService, transport(`http://${address}`));
    const error = await errorOf(client.getSandbox({ sandboxId: "other" }));
    expect(error.code).toBe(Code.NotFound);
    expect(error.findDetails(ErrorInfoSchema)).toMatchObject([
      { reason: "SANDBOX_NOT_FOUND", domain: "sandboxd" },
    ]);
  });

  test("a stream tells and ends when its reader goes", async () => {
    const { address } = await api.listen();
    const client = createClient(SandboxService, transport(`http://${address}`));
    const stop = new AbortController();
    const watch = client.watchSandboxes({}, { signal: stop.signal })[Symbol.asyncIterator]();
    expect((await watch.next()).value?.sequence).toBe(1n);
    expect(api.openStreams()).toBe(1);
    stop.abort();
    await errorOf(watch.next());
    await until("the handler has ended", () => api.openWatches() === 0 && api.openStreams() === 0);
  });
});

test("curl with JSON is answered over HTTP/1.1 and HTTP/2, also on the unix socket", async () => {
  const path = join(api.directory, "run", "api.sock");
  await api.listen({ kind: "unix", path });
  for (const version of ["--http1.1", "--http2-prior-knowledge"]) {
    const { stdout } = await run("curl", [
      "-sS",
      version,
      "--unix-socket",
      path,
      "-H",
      "content-type: application/json",
      "-d",
      '{"sandboxId":"known"}',
      "http://localhost/sandboxd.v1.SandboxService/GetSandbox",
    ]);
    expect(JSON.parse(stdout)).toEqual({ sandbox: { sandboxId: "known" } });
  }
});

test("an error's details are readable for a caller that only knows JSON", async () => {
  const { address } = await api.listen();
  const answer = await fetch(`http://${address}/sandboxd.v1.SandboxService/GetSandbox`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: '{"sandboxId":"other"}',
  });
  expect(answer.status).toBe(404);
  const { code, details } = (await answer.json()) as {
    code: string;
    details: { type: string; value: string }[];
  };
  expect(code).toBe("not_found");
  expect(details[0]?.type).toBe("google.rpc.ErrorInfo");
  expect(fromBinary(ErrorInfoSchema, Buffer.from(details[0]?.value ?? "", "base64")).reason).toBe(
    "SANDBOX_NOT_FOUND",
  );
});

describe("the unix socket", () => {
  test("has the mode and group asked for, and its directory is made", async () => {
    const path = join(api.directory, "a", "b", "api.sock");
    await api.listen({ kind: "unix", path, mode: 0o620, group: "daemon" });
    const { mode, gid } = await stat(path);
    expect([mode & 0o777, gid]).toEqual([0o620, 1]);
  });

  test("replaces a socket on which nobody answers", async () => {
    const path = join(api.directory, "api.sock");
    await run(process.execPath, [
      "-e",
      `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`,
    ]).catch(() => {});
    expect((await stat(path)).isSocket()).toBe(true);
    await api.listen({ kind: "unix", path });
    await new Promise((resolve, reject) => {
      connect({ path }).once("connect", resolve).once("error", reject);
    });
  });

  test("leaves a socket alone on which somebody answers", async () => {
    const path = join(api.directory, "api.sock");
    const other = createServer().listen(path);
    await expect(api.listen({ kind: "unix", path })).rejects.toThrow(/Another process listens on .*\nHint:/);
    expect((await stat(path)).isSocket()).toBe(true);
    other.close();
  });

  test("leaves a file alone that is no socket", async () => {
    const path = join(api.directory, "api.sock");
    await writeFile(path, "precious");
    await chmod(path, 0o600);
    await expect(api.listen({ kind: "unix", path })).rejects.toThrow("is not a socket");
    expect((await stat(path)).size).toBe(8);
  });

  test("refuses a group that the host does not have", async () => {
    const path = join(api.directory, "api.sock");
    await expect(api.listen({ kind: "unix", path, group: "no-such-group" })).rejects.toThrow("no-such-group");
  });
});

describe("plain TCP", () => {
  test.each([
    { host: "127.0.0.1", dev: false },
    { host: "0.0.0.0", dev: true },
    { host: "::", dev: true },
    { host: "192.0.2.1", dev: true },
  ])("is refused on $host with dev = $dev", async ({ host, dev }) => {
    await expect(api.listen({ kind: "plain", host, port: 0, dev })).rejects.toThrow(/is refused.*\nHint:/s);
  });

  test("refuses a web page that points its own name at it", async () => {
    const { address } = await api.listen();
    const { stdout } = await run("curl", [
      "-sS",
      "-o",
      "/dev/null",
      "-w",
      "%{http_code}",
      "-H",
      "host: evil.example",
      "-H",
      "content-type: application/json",
      "-d",
      '{"sandboxId":"known"}',
      `http://${address}/sandboxd.v1.SandboxService/GetSandbox`,
    ]);
    expect(stdout).toBe("400");
  });
});

describe("closing", () => {
  test("streams end with SHUTTING_DOWN, a call in flight is answered, new connections are refused", async () => {
    const slow = Promise.withResolvers<void>();
    await api.close();
    api = await startApi({}, { getSandbox: () => slow.promise.then(() => ({})) });
    const listener = await api.listen();
    const client = grpcClient(listener);
    const watch = client.watchSandboxes({})[Symbol.asyncIterator]();
    await watch.next();
    const call = client.getSandbox({ sandboxId: "known" });
    await until("the call has arrived", () => api.openStreams() === 1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const closed = listener.close({ graceMs: 5000 });
    const error = await errorOf(watch.next());
    expect(error.code).toBe(Code.Unavailable);
    expect(error.findDetails(ErrorInfoSchema)[0]?.reason).toBe("SHUTTING_DOWN");
    expect((await errorOf(grpcClient(listener).getSandbox({ sandboxId: "known" }))).code).toBe(
      Code.Unavailable,
    );
    slow.resolve();
    await call;
    await closed;
  });

  test("a call that outlasts the grace ends with SHUTTING_DOWN, and closing takes no longer", async () => {
    await api.close();
    const arrived = Promise.withResolvers<void>();
    const getSandbox = () => {
      arrived.resolve();
      return new Promise<never>(() => {});
    };
    api = await startApi({}, { getSandbox });
    const listener = await api.listen();
    const call = errorOf(grpcClient(listener).getSandbox({ sandboxId: "known" }));
    await arrived.promise;
    const begun = performance.now();
    await listener.close({ graceMs: 300 });
    expect(performance.now() - begun).toBeLessThan(1500);
    expect((await call).findDetails(ErrorInfoSchema)[0]?.reason).toBe("SHUTTING_DOWN");
  });

  test("an idle kept-alive HTTP/1.1 connection does not hold it up", async () => {
    const listener = await api.listen();
    await fetch(`http://${listener.address}/nothing`).then((answer) => answer.text());
    const begun = performance.now();
    await listener.close({ graceMs: 5000 });
    expect(performance.now() - begun).toBeLessThan(1000);
  });
});
