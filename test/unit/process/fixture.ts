// Processes on a real toolbox of this machine: what a daemon would have of them, with a sandbox that the test says the state of.

import { once } from "node:events";
import { connect } from "node:net";
import { join } from "node:path";
import { createLog } from "../../../src/observe/log.ts";
import { createMetrics, type MetricsRegistry } from "../../../src/observe/metrics.ts";
import { createProcesses, type ProcessConfig, type Processes } from "../../../src/process/processes.ts";
import type { ProcessExit } from "../../../src/process/record.ts";
import type { StartRequest } from "../../../src/process/request.ts";
import type { Told } from "../../../src/process/watcher.ts";
import type { SandboxRecord } from "../../../src/sandbox/record.ts";
import type { Store } from "../../../src/store/store.ts";
import { type Connection, connectionOver, type Link } from "../../../src/toolbox/connection.ts";
import { recordOf } from "../sandbox/fixture.ts";
import { startToolbox, type TestToolbox } from "../toolbox/keeper-fixture.ts";

export const sandboxId = "one";

export interface Bench {
  readonly toolbox: TestToolbox;
  readonly store: Store;
  readonly registry: MetricsRegistry;
  readonly logs: () => string;
  /** Of the daemon's life that is now. */
  processes: Processes;
  /** Connections that this life has. */
  readonly connections: Set<Connection>;
  /** The sandbox becomes this; undefined: it is deleted. */
  sandboxIs(change: Partial<SandboxRecord> | undefined): void;
  /** What the out-of-memory counter of the sandbox shows. */
  oomKills: number;
  /** The daemon is killed, and another takes up. */
  restart(): void;
  /** Runs a command, and collects what is told to its end. */
  run(command: readonly string[], change?: Partial<StartRequest>): Promise<Collected>;
  start(command: readonly string[], change?: Partial<StartRequest>): Promise<Stream>;
  connect(processId: string, afterSequence?: number): Promise<Stream>;
  close(): Promise<void>;
}

export interface Collected {
  readonly told: readonly Told[];
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: string;
  readonly exit: ProcessExit;
}

/** A stream that is read by hand. */
export interface Stream {
  readonly processId: string;
  next(): Promise<Told>;
  /** Reads until what was written on any stream has it. */
  shows(text: string): Promise<string>;
  /** Reads to the end. */
  rest(): Promise<Collected>;
  /** The reader goes away. */
  leave(reason?: unknown): void;
}

export const requestOf = (command: readonly string[], change: Partial<StartRequest> = {}): StartRequest => ({
  sandboxId,
  processId: "",
  command,
  env: {},
  workingDir: "/tmp",
  hasInput: false,
  killsOnDisconnect: false,
  waits: false,
  retainedBytes: 0,
  ...change,
});

export async function openBench(store: Store, config: Partial<ProcessConfig> = {}): Promise<Bench> {
  const toolbox = await startToolbox();
  let sandbox: SandboxRecord | undefined = recordOf({ state: "RUNNING", ranSinceMs: 1 });
  const listeners = new Set<(id: string) => void>();
  const repository = {
    get: (id: string) => (id === sandboxId ? sandbox : undefined),
    all: () => (sandbox === undefined ? [] : [sandbox]),
    subscribe(listener: (id: string) => void) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    until: (_id: string, done: (record: SandboxRecord | undefined) => boolean, signal?: AbortSignal) =>
      new Promise<SandboxRecord | undefined>((resolve, reject) => {
        const look = () => {
          if (!done(sandbox)) return;
          listeners.delete(look);
          resolve(sandbox);
        };
        signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
        listeners.add(look);
        look();
      }),
  };
  const lines: string[] = [];
  const log = createLog({ level: "trace", destination: { write: (line) => void lines.push(line) } });
  const registry = createMetrics();

  async function connected(name: string): Promise<Connection | undefined> {
    const socket = connect(join(toolbox.directory, name));
    try {
      await once(socket, "connect");
    } catch {
      return undefined;
    }
    const connection = connectionOver(socket);
    bench.connections.add(connection);
    socket.once("close", () => bench.connections.delete(connection));
    return connection;
  }
  const link: Link = {
    async open() {
      const connection = await connected("toolbox.sock");
      if (connection === undefined) throw new Error("the toolbox is not there");
      return connection;
    },
    openProcess: (_sandbox, id) => connected(`p-${id}.sock`),
  };
  const create = () =>
    createProcesses({
      link,
      repository,
      store,
      clock: { nowMs: () => performance.timeOrigin + performance.now() },
      config: {
        maxRunning: 64,
        maxRetained: 256,
        exitRetentionMs: 3_600_000,
        outputBytes: 2 ** 28,
        ...config,
      },
      oomCount: () => bench.oomKills,
      placeOf: () => undefined,
      metrics: registry.metrics,
      log,
      graces: { disconnectMs: 400, goneMs: 300 },
    });

  const bench: Bench = {
    toolbox,
    store,
    registry,
    logs: () => lines.join(""),
    processes: create(),
    connections: new Set(),
    oomKills: 0,
    sandboxIs(change) {
      sandbox =
        change === undefined ? undefined : { ...recordOf({ state: "RUNNING", ranSinceMs: 1 }), ...change };
      // as the repository does
      if (change === undefined)
        store.transact((transaction) => transaction.removeSandbox(sandboxId, "instance-one"));
      for (const listener of [...listeners]) listener(sandboxId);
    },
    restart() {
      bench.processes.close();
      for (const connection of bench.connections) connection.close();
      bench.processes = create();
      bench.processes.recover();
    },
    async run(command, change) {
      return (await bench.start(command, change)).rest();
    },
    async start(command, change) {
      const abort = new AbortController();
      const request = requestOf(command, { workingDir: toolbox.directory, ...change });
      const { processId, events } = await bench.processes.start(request, { signal: abort.signal });
      return streamOf(processId, events, abort);
    },
    async connect(processId, afterSequence = 0) {
      const abort = new AbortController();
      const request = { sandboxId, processId, afterSequence };
      const { events } = await bench.processes.connect(request, { signal: abort.signal });
      return streamOf(processId, events, abort);
    },
    async close() {
      bench.processes.close();
      for (const connection of bench.connections) connection.close();
      await toolbox.close();
    },
  };
  bench.processes.recover();
  return bench;
}

function streamOf(processId: string, events: AsyncIterable<Told>, abort: AbortController): Stream {
  const iterator = events[Symbol.asyncIterator]();
  const told: Told[] = [];
  const textOf = (stream?: string) =>
    Buffer.concat(
      told.flatMap((one) =>
        one.kind === "output" && (stream === undefined || one.stream === stream) ? [one.data] : [],
      ),
    ).toString();
  const stream: Stream = {
    processId,
    async next() {
      const { done, value } = await iterator.next();
      if (done) throw new Error("the stream has ended");
      told.push(value);
      return value;
    },
    async shows(text) {
      while (!textOf().includes(text)) await stream.next();
      return textOf();
    },
    async rest() {
      for (;;) {
        const one = await stream.next();
        if (one.kind !== "exited") continue;
        if (!(await iterator.next()).done) throw new Error("something came after the end");
        const [stdout, stderr, terminal] = [textOf("stdout"), textOf("stderr"), textOf("terminal")];
        return { told, stdout, stderr, terminal, exit: one.exit };
      }
    },
    leave: (reason = new Error("left")) => abort.abort(reason),
  };
  return stream;
}
