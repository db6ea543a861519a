// What the way to a port of a sandbox costs, by ForwardPort and by the preview, against a connection to the same programs on this machine.

import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { PortService } from "../gen/sandboxd/v1/port_service_pb.ts";
import { TenantService } from "../gen/sandboxd/v1/tenant_service_pb.ts";
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
  const sessionManager = new Http2SessionManager("http://sandboxd", undefined, {
    createConnection: () => connect(sandboxes.daemon.socketPath),
    // as sandboxctl
    settings: { initialWindowSize: mebibyte },
  });
  const ports = createClient(
    PortService,
    createGrpcTransport({ baseUrl: "http://sandboxd", sessionManager }),
  );
  try {
    await sandboxes.daemon.client(TenantService).putTenant({
      tenant: "bench",
      network: { forwardPorts: [{ first: pagePort, last: socketPort }] },
    });
    await create(sandboxes, "ports");
    const forwarded: Way = (port) => overForward(ports, port);
    const previewed = await overPreview(ports, "ports");
    for (const [name, way] of [
      ["forward", forwarded],
      ["preview", previewed],
    ] as const) {
      const { values, baseline } = await inTurn(
        runs,
        () => firstByte(way, pagePort),
        () => firstByte(local.way, pagePort),
      );
      yield overBaseline(`${name}-first-byte`, values, baseline);
      const flood = await inTurn(
        floodRuns,
        async () => assertRead(await drain(way), floodBytes),
        async () => assertRead(await drain(local.way), floodBytes),
      );
      yield resultOf({
        name: `${name}-throughput`,
        unit: "MB/s",
        values: flood.values.map((ms) => megabytesPerSecond(floodBytes, ms)),
        baseline: flood.baseline.map((ms) => megabytesPerSecond(floodBytes, ms)),
        goal: { of: "ratio", atLeast: 0.5 },
      });
    }
    yield await measureSockets(sandboxes, ports);
  } finally {
    local.close();
    sessionManager.abort();
    await sandboxes.close();
  }
}

async function create({ client }: Sandboxes, sandboxId: string): Promise<void> {
  await client.createSandbox({ tenant: "bench", sandboxId, spec: roomy });
  // its programs listen
  await sleep(1_000);
}

/** Asks a port for its page; told of each piece of the answer, until it ends. */
type Way = (port: number) => (onPiece: (bytes: Uint8Array) => void) => Promise<void>;

async function firstByte(way: Way, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const over = way(port)(() => resolve());
  over.catch(reject);
  await promise;
  await over;
}

/** How many bytes come behind the headers. */
async function drain(way: Way): Promise<number> {
  let [read, head] = [0, ""];
  await way(floodPort)((bytes) => {
    if (head.includes("\r\n\r\n")) {
      read += bytes.length;
      return;
    }
    head += Buffer.from(bytes).toString("latin1");
    const at = head.indexOf("\r\n\r\n");
    if (at !== -1) read = head.length - at - 4;
  });
  return read;
}

const asked = (host = "localhost", more = "") =>
  `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${more}\r\n`;

/** What comes is read into the same memory, so that the client costs little. */
const incoming = Buffer.alloc(65_536);

function overSocket(port: number, request: string): ReturnType<Way> {
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

function overForward(ports: Client<typeof PortService>, port: number): ReturnType<Way> {
  return async (onPiece) => {
    async function* requests() {
      yield { sandboxId: "ports", port, data: Buffer.from(asked()) };
    }
    for await (const { data } of ports.forwardPort(requests())) if (data.length > 0) onPiece(data);
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
