import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { createMetricsListener, type MetricsAddress } from "../../../src/observe/metrics-listener.ts";

const anyPort: MetricsAddress = { kind: "tcp", host: "127.0.0.1", port: 0 };

async function listen(address: MetricsAddress, render = () => "m 1\n") {
  const listener = await createMetricsListener({ address, render });
  onTestFinished(() => listener.close());
  return listener;
}

function temporarySocket(): string {
  const directory = mkdtempSync(join(tmpdir(), "sandboxd-metrics-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  return join(directory, "metrics.sock");
}

async function readSocket(socketPath: string): Promise<string> {
  const sent = request({ socketPath, path: "/metrics" });
  sent.end();
  const [response] = await once(sent, "response");
  let text = "";
  for await (const chunk of response) text += chunk;
  return text;
}

test("GET /metrics answers in Prometheus' format; anything else is refused", async () => {
  const { address } = await listen(anyPort);
  const response = await fetch(`http://${address}/metrics?x=1`);
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  expect(await response.text()).toBe("m 1\n");
  expect((await fetch(`http://${address}/`)).status).toBe(404);
  expect((await fetch(`http://${address}/metrics`, { method: "POST" })).status).toBe(405);
});

test("what fails to render is answered with 500, and the next one works", async () => {
  let fails = true;
  const { address } = await listen(anyPort, () => {
    if (fails) throw new Error("no");
    return "m 2\n";
  });
  expect((await fetch(`http://${address}/metrics`)).status).toBe(500);
  fails = false;
  expect(await (await fetch(`http://${address}/metrics`)).text()).toBe("m 2\n");
});

test("after close nobody listens", async () => {
  const listener = await createMetricsListener({ address: anyPort, render: () => "" });
  await fetch(`http://${listener.address}/metrics`);
  await listener.close();
  await expect(fetch(`http://${listener.address}/metrics`)).rejects.toThrow();
});

test("a unix socket is for its owner and group, and gone after close", async () => {
  const path = temporarySocket();
  const listener = await createMetricsListener({ address: { kind: "unix", path }, render: () => "m 1\n" });
  expect(listener.address).toBe(`unix:${path}`);
  expect(statSync(path).mode & 0o777).toBe(0o660);
  expect(await readSocket(path)).toBe("m 1\n");
  await listener.close();
  expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
});

test("the socket of a dead process is replaced", async () => {
  const path = temporarySocket();
  const code = `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
  spawnSync(process.execPath, ["-e", code]);
  expect(statSync(path).isSocket()).toBe(true);
  await listen({ kind: "unix", path });
  expect(await readSocket(path)).toBe("m 1\n");
});

test("the socket of a living process, or a file, is left alone", async () => {
  const path = temporarySocket();
  const other = createServer().listen(path);
  await once(other, "listening");
  await expect(listen({ kind: "unix", path })).rejects.toThrow("EADDRINUSE");
  expect(statSync(path).isSocket()).toBe(true);
  other.close();
  await once(other, "close");
  writeFileSync(path, "kept");
  await expect(listen({ kind: "unix", path })).rejects.toThrow("EADDRINUSE");
  expect(statSync(path).isFile()).toBe(true);
});

test("an aborted signal ends the wait", async () => {
  const signal = AbortSignal.abort(new Error("stopping"));
  await expect(createMetricsListener({ address: anyPort, render: () => "", signal })).rejects.toThrow(
    "stopping",
  );
});
