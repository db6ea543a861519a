// A sandboxd of its own for a test: the real program as a child process, on an engine, with its own state, host id and
// cgroup, reached over its unix socket.

import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chownSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { stringify, type TomlTable } from "smol-toml";
import { Health, HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1/health_pb.ts";
import { call, callJson } from "../../tools/lib/engine-api.mjs";
import { engineMark, removeCgroups } from "../../tools/lib/leftovers.mjs";
import { unmountIn } from "../../tools/lib/mounts.mjs";
import { launcher } from "../../tools/lib/node.mjs";
import { baseImage, sharedEngine } from "./engine.ts";

/** A daemon that doesn't serve by then is taken to have failed. */
const readyTimeoutMs = 40_000;

/** How long an orderly shutdown may take before the test gives up on it. */
const stopTimeoutMs = 20_000;

/** How long the engine may take to remove a container. */
const removeTimeoutMs = 30_000;

export interface DaemonOptions {
  /** The engine's socket. Default: the one that all tests share. */
  readonly engine?: string;
  /** The socket that the daemon itself is given, where that is not the engine's own. Default: `engine`. */
  readonly door?: string;
  /** Default: random, so that daemons on one engine leave each other alone. */
  readonly hostId?: string;
  /** Tables of the configuration, laid over the harness's own, key by key. */
  readonly config?: TomlTable;
  /** Added to the daemon's environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** What starts the program, with its arguments: it runs in another namespace or as another user. Default: nothing. */
  readonly launcher?: readonly string[];
  /** User that its files belong to. Default: the one of the tests. */
  readonly uid?: number;
  /** Where its directory is made. Default: among the temporary files. */
  readonly home?: string;
}

export interface Daemon {
  readonly hostId: string;
  readonly socketPath: string;
  readonly stateDirectory: string;
  /** The parent cgroup of its sandboxes, as in the configuration. */
  readonly cgroupParent: string;
  /** Of the process that runs now; undefined when none does. */
  pid(): number | undefined;
  /** A client of one of its services. Lives until cleanup; connects again after a restart. */
  client<Service extends DescService>(service: Service): Client<Service>;
  /** What it has written to standard output and standard error, over all its lives. */
  logs(): string;
  /** Writes its configuration anew, with these tables instead of the options'. It hears of it at a SIGHUP or a start. */
  configure(config: TomlTable): void;
  /** Sends a signal. With SIGKILL, resolves when it is gone. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Starts it again, after a kill or a stop. Resolves when it serves. */
  start(): Promise<void>;
  /** Ends it in an orderly way. Resolves to its exit code. Already ended is success. */
  stop(): Promise<number | null>;
  restart(): Promise<void>;
  /** Ends it, removes every container with its host id, its state and its cgroup. Call it in every case. */
  cleanup(): Promise<void>;
}

/** Starts a daemon and waits until it serves. */
export async function startDaemon(options: DaemonOptions = {}): Promise<Daemon> {
  const engine = options.engine ?? sharedEngine();
  const token = randomBytes(4).toString("hex");
  const hostId = options.hostId ?? `test-${token}`;
  const directory = mkdtempSync(join(options.home ?? tmpdir(), "daemon-"));
  const socketPath = join(directory, "sandboxd.sock");
  const stateDirectory = join(directory, "state");
  // Below the runner's name, so that it is removed even if this test is killed.
  const cgroup = `${process.env[engineMark] ?? `sandboxd-test-${process.pid}`}-${token}`;
  const configFile = join(directory, "sandboxd.toml");
  const base = {
    host: { id: hostId },
    state: { directory: stateDirectory },
    engine: { socket: options.door ?? engine, cgroup_parent: `/${cgroup}` },
    listen: { socket: socketPath },
    images: { allow: ["sandboxd-base:*"], pull: "never" },
    // where a test needs none, none is proven at each start
    workspaces: { backend: "none" },
    // that somebody's disk is nearly full, or the machine busy, is no reason for a test to fail
    pressure: {
      ...{ disk_available_percent: 1, inodes_available_percent: 1 },
      ...{ stalled_percent: 100, stalled_cpu_percent: 100 },
    },
    templates: { shell: { image: baseImage, command: ["sh", "-c", "while :; do date; sleep 1; done"] } },
  };
  const configure = (config: TomlTable) =>
    writeFileSync(configFile, stringify(merge(base, config)), { mode: 0o600 });
  configure(options.config ?? {});
  if (options.uid !== undefined)
    for (const file of [directory, configFile]) chownSync(file, options.uid, options.uid);

  const sessions = new Http2SessionManager("http://sandboxd", undefined, {
    createConnection: () => connect(socketPath),
  });
  const transport = createGrpcTransport({ baseUrl: "http://sandboxd", sessionManager: sessions });
  let output = "";
  let child: ChildProcess | undefined;

  const start = async (): Promise<void> => {
    const [command = launcher, ...args] = [
      ...(options.launcher ?? []),
      ...[launcher, "serve", "--dev", "--config", configFile],
    ];
    const started = spawn(command, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...ownEnvironment(), ...options.env },
    });
    child = started;
    for (const stream of [started.stdout, started.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        output += chunk.toString();
      });
    }
    await untilServing(transport, started, () => output);
  };
  const stop = async (): Promise<number | null> => {
    if (child === undefined) return null;
    const code = await end(child, "SIGTERM");
    child = undefined;
    return code;
  };
  const cleanup = async (): Promise<void> => {
    if (child !== undefined) await end(child, "SIGKILL");
    child = undefined;
    sessions.abort();
    await removeContainers(engine, hostId);
    await removeVolumes(engine, hostId);
    await removeCgroups(cgroup);
    // what workspaces are mounted on stays when a daemon ends: sandboxes run on
    await unmountIn(directory);
    rmSync(directory, { recursive: true, force: true });
  };

  try {
    await start();
  } catch (error) {
    await cleanup();
    throw error;
  }
  return {
    hostId,
    socketPath,
    stateDirectory,
    cgroupParent: `/${cgroup}`,
    pid: () => child?.pid,
    client: (service) => createClient(service, transport),
    logs: () => output,
    configure,
    async kill(signal) {
      if (child === undefined) throw new Error("the daemon does not run");
      if (signal !== "SIGKILL") {
        child.kill(signal);
        return;
      }
      await end(child, signal);
      child = undefined;
    },
    start,
    stop,
    async restart() {
      await stop();
      await start();
    },
    cleanup,
  };
}

/** The environment without what the daemon would take for configuration. */
function ownEnvironment(): Record<string, string | undefined> {
  return Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("SANDBOXD_")));
}

/** Asks the daemon's health until it serves; fails with its logs when it ends or takes too long. */
async function untilServing(
  transport: Parameters<typeof createClient>[1],
  child: ChildProcess,
  logs: () => string,
): Promise<void> {
  const health = createClient(Health, transport);
  const deadline = performance.now() + readyTimeoutMs;
  let last: unknown = "not asked";
  while (performance.now() < deadline) {
    if (child.exitCode !== null || child.signalCode !== null) {
      throw new Error(`the daemon ended with status ${child.exitCode ?? child.signalCode}:\n${logs()}`);
    }
    try {
      const { status } = await health.check({}, { timeoutMs: 1_000 });
      if (status === HealthCheckResponse_ServingStatus.SERVING) return;
      last = HealthCheckResponse_ServingStatus[status];
    } catch (error) {
      last = error;
    }
    await sleep(50);
  }
  throw new Error(`the daemon did not serve within ${readyTimeoutMs} ms (${String(last)}):\n${logs()}`);
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  child.kill(signal);
  // A stopped process acts on no signal but SIGKILL until it is continued.
  child.kill("SIGCONT");
  const timer = setTimeout(() => child.kill("SIGKILL"), stopTimeoutMs);
  try {
    return await ended;
  } finally {
    clearTimeout(timer);
  }
}

async function removeContainers(engine: string, hostId: string): Promise<void> {
  const filters = encodeURIComponent(JSON.stringify({ label: [`sandboxd.host=${hostId}`] }));
  const found = await callJson(engine, "GET", `/containers/json?all=1&filters=${filters}`);
  for (const { Id: id } of found as readonly { readonly Id: string }[]) {
    const path = `/containers/${id}?force=1&v=1`;
    const { status, body } = await call(engine, "DELETE", path, { timeoutMs: removeTimeoutMs });
    // the daemon that was killed may have asked for its removal just before
    if (status >= 400 && status !== 404 && status !== 409)
      throw new Error(`DELETE ${path}: ${status} ${body}`);
  }
}

async function removeVolumes(engine: string, hostId: string): Promise<void> {
  const filters = encodeURIComponent(JSON.stringify({ label: [`sandboxd.host=${hostId}`] }));
  const found = await callJson(engine, "GET", `/volumes?filters=${filters}`);
  const { Volumes: volumes } = found as { readonly Volumes: readonly { readonly Name: string }[] | null };
  for (const { Name: name } of volumes ?? []) {
    const path = `/volumes/${encodeURIComponent(name)}`;
    const { status, body } = await call(engine, "DELETE", path, { timeoutMs: removeTimeoutMs });
    if (status >= 400 && status !== 404) throw new Error(`DELETE ${path}: ${status} ${body}`);
  }
}

function isTable(value: unknown): value is TomlTable {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

function merge(base: TomlTable, over: TomlTable): TomlTable {
  const merged = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const under = merged[key];
    merged[key] = isTable(under) && isTable(value) ? merge(under, value) : value;
  }
  return merged;
}
