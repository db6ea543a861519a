// What the way to a port of a sandbox costs, by ForwardPort and by the preview, against a connection to the same programs on this machine.

import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { create as messageOf, toBinary } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { ForwardPortRequestSchema, PortService } from "../gen/sandboxd/v1/port_service_pb.ts";
import { TenantService } from "../gen/sandboxd/v1/tenant_service_pb.ts";
import { bodyBytes, type Reading } from "./answer.ts";
import { forward } from "./forward.ts";
import { assertRead, inTurn, megabytesPerSecond } from "./in-turn.ts";
import { residentBytes } from "./process-usage.ts";
import { percentile, type Result, resultOf } from "./result.ts";
import { type Sandboxes, spec, startSandboxes } from "./sandboxes.ts";

const mebibyte = 1_024 ** 2;
const floodBytes = 512 * mebibyte;
const floodRuns = 5;

const pagePort = 8_080;
const floodPort = 8_081;
const socketPort = 8_082;

const answering = (status: string, then: string) => `#!/bin/sh
while read -r line && [ "\${#line}" -gt 1 ]; do :; done
printf 'HTTP/1.1 ${status}\\r\\n\\r\\n'
exec ${then}
`;

/** What listens: a web server with one small page, one whose page is large, and one of WebSockets. */
const programs = {
  "www/index.html": "hello\n",
  flood: answering(
    `200 OK\\r\\nContent-Length: ${floodBytes}`,
    `dd if=/dev/zero bs=64k count=${floodBytes / 65_536}`,
  ),
  socket: answering("101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket", "cat"),
};

const servers = (directory: string, ports = [pagePort, floodPort, socketPort]) => `
httpd -f -p 127.0.0.1:${ports[0]} -h ${directory}/www &
nc -ll -p ${ports[1]} -e ${directory}/flood &
nc -ll -p ${ports[2]} -e ${directory}/socket &
exec sleep 100000`;

/** The same in a sandbox, which has no files but its own. */
const serving = () => {
  const files = Object.entries(programs).map(
    ([name, text]) => `printf '%s' '${text.replaceAll("'", "'\\''")}' > /tmp/${name}; chmod +x /tmp/${name}`,
  );
  return ["mkdir -p /tmp/www", ...files, servers("/tmp")].join("\n");
};

const roomy = {
  ...spec,
  command: ["sh", "-c", serving()],
  args: [],
  resources: { cpuMillis: 2_000n, memoryBytes: BigInt(512 * mebibyte), pids: 512n },
};

export async function* measurePorts(runs: number): AsyncGenerator<Result> {
  const sandboxes = await startSandboxes({ config: { preview: { address: "127.0.0.1:0" } } });
  const local = startLocal();
  const session = connectHttp2("http://sandboxd", {
    createConnection: () => connect(sandboxes.daemon.socketPath),
  });
  const client = startClient(sandboxes.daemon.socketPath);
  const ports = sandboxes.daemon.client(PortService);
  try {
    await sandboxes.daemon.client(TenantService).putTenant({
      tenant: "bench",
      network: { forwardPorts: [{ first: pagePort, last: socketPort }] },
    });
    await create(sandboxes, "ports");
    const forwarded: Way = (port) => (onPiece) => forward(session, requestTo(port), onPiece);
    const previewed = await overPreview(ports, "ports");
    for (const [name, way, flood] of [
      ["forward", forwarded, () => client.read(floodPort)],
      ["preview", previewed, () => bodyBytes(previewed(floodPort))],
    ] as const) {
      const { values, baseline } = await inTurn(
        runs,
        () => firstByte(way, pagePort),
        () => firstByte(local.way, pagePort),
      );
      yield overBaseline(`${name}-first-byte`, values, baseline);
      const floods = await inTurn(
        floodRuns,
        async () => assertRead(await flood(), floodBytes),
        async () => assertRead(await bodyBytes(local.way(floodPort)), floodBytes),
      );
      yield resultOf({
        name: `${name}-throughput`,
        unit: "MB/s",
        values: floods.values.map((ms) => megabytesPerSecond(floodBytes, ms)),
        baseline: floods.baseline.map((ms) => megabytesPerSecond(floodBytes, ms)),
        goal: { of: "ratio", atLeast: 0.5 },
      });
    }
    yield await measureSockets(sandboxes, ports);
  } finally {
    local.close();
    client.close();
    session.destroy();
    await sandboxes.close();
  }
}

async function create({ client }: Sandboxes, sandboxId: string): Promise<void> {
  await client.createSandbox({ tenant: "bench", sandboxId, spec: roomy });
  // its programs listen
  await sleep(1_000);
}

/** Asks a port for its page. */
type Way = (port: number) => Reading;

async function firstByte(way: Way, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const over = way(port)(() => resolve());
  over.catch(reject);
  await promise;
  await over;
}

const asked = (host = "localhost", more = "") =>
  `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${more}\r\n`;

/** What comes is read into the same memory, so that the client costs little. */
const incoming = Buffer.alloc(65_536);

function overSocket(port: number, request: string): Reading {
  return (onPiece) =>
    new Promise((resolve, reject) => {
      const socket: Socket = connect({
        host: "127.0.0.1",
        port,
        onread: {
          buffer: incoming,
          callback(length) {
            onPiece(incoming.subarray(0, length));
            return true;
          },
        },
      });
      socket.on("error", reject);
      socket.on("close", () => resolve());
      socket.write(request);
    });
}

/** A call of ForwardPort that asks a port for its page. */
const requestTo = (port: number): Uint8Array =>
  toBinary(
    ForwardPortRequestSchema,
    messageOf(ForwardPortRequestSchema, { sandboxId: "ports", port, data: Buffer.from(asked()) }),
  );

/** Another program that reads what ForwardPort brings. */
function startClient(socketPath: string) {
  const program = fileURLToPath(new URL("forward-client.ts", import.meta.url));
  const child = fork(program, [socketPath]);
  return {
    /** How many bytes came behind the headers. */
    async read(port: number): Promise<number> {
      child.send(Buffer.from(requestTo(port)).toString("base64"));
      const [count] = await once(child, "message");
      return count;
    },
    close: () => child.disconnect(),
  };
}

async function overPreview(ports: Client<typeof PortService>, sandboxId: string): Promise<Way> {
  const grants = new Map<number, { readonly url: URL; readonly token: string }>();
  for (const port of [pagePort, floodPort]) {
    const { url, token } = await ports.createPreview({ sandboxId, port });
    grants.set(port, { url: new URL(url), token });
  }
  return (port) => {
    const { url, token } = grants.get(port) ?? { url: new URL("http://none"), token: "" };
    return overSocket(Number(url.port), asked(url.host, `Authorization: Bearer ${token}\r\n`));
  };
}

/** The programs on this machine itself, at other ports. */
function startLocal(): { readonly way: Way; close(): void } {
  const directory = mkdtempSync(join(tmpdir(), "bench-ports-"));
  mkdirSync(join(directory, "www"));
  for (const [name, text] of Object.entries(programs)) {
    writeFileSync(join(directory, name), text);
    chmodSync(join(directory, name), 0o755);
  }
  const shift = 20_000 + (process.pid % 10_000);
  const moved = [pagePort, floodPort, socketPort].map((port) => port + shift);
  const script = `httpd() { exec busybox httpd "$@"; }; nc() { exec busybox nc "$@"; };${servers(directory, moved)}`;
  const shell: ChildProcess = spawn("busybox", ["sh", "-c", script], { stdio: "ignore", detached: true });
  return {
    way: (port) => overSocket(port + shift, asked()),
    close() {
      if (shell.pid !== undefined) process.kill(-shell.pid, "SIGKILL");
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** As what it is more than the baseline. */
function overBaseline(name: string, values: readonly number[], baseline: readonly number[]): Result {
  const usual = percentile(baseline, 0.5);
  return resultOf({
    name,
    unit: "ms",
    values: values.map((value) => value - usual),
    goal: { of: "p50", atMost: 10 },
  });
}

const socketSandboxes = 4;
const idleSockets = 500;

/** Memory of the daemon for WebSockets that do nothing. */
async function measureSockets(sandboxes: Sandboxes, ports: Client<typeof PortService>): Promise<Result> {
  const ids = Array.from({ length: socketSandboxes }, (_, index) => `sockets-${index}`);
  for (const id of ids) await create(sandboxes, id);
  const grants = await Promise.all(
    ids.map((sandboxId) => ports.createPreview({ sandboxId, port: socketPort })),
  );
  const open = async (index: number): Promise<Socket> => {
    const { url = "", token = "" } = grants[index % grants.length] ?? {};
    const { port, host } = new URL(url);
    const socket = connect({ host: "127.0.0.1", port: Number(port) });
    const upgrade = `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n`;
    socket.write(`${upgrade}Authorization: Bearer ${token}\r\n\r\n`);
    await new Promise<void>((resolve, reject) => {
      socket.once("data", (bytes: Buffer) =>
        bytes.toString().startsWith("HTTP/1.1 101") ? resolve() : reject(new Error(bytes.toString())),
      );
      socket.once("error", reject);
    });
    return socket;
  };
  // what the first of them loads is not theirs
  for (const index of ids.keys()) (await open(index)).destroy();
  const resident = () => residentBytes(sandboxes.daemon.pid() ?? 0) / 1e6;
  await sleep(5_000);
  const before = resident();
  const sockets: Socket[] = [];
  while (sockets.length < idleSockets) {
    const many = Array.from({ length: 25 }, (_, index) => open(sockets.length + index));
    sockets.push(...(await Promise.all(many)));
  }
  await sleep(10_000);
  const values = [resident() - before];
  for (const socket of sockets) socket.destroy();
  return resultOf({ name: "preview-sockets", unit: "MB", values, goal: { of: "p50", atMost: 40 } });
}
