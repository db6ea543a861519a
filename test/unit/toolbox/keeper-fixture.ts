// A toolbox of the tests' own, that serves on this machine as a user without rights, and the daemon's side of a process that it holds.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Connection, connectionOver } from "../../../src/toolbox/connection.ts";
import { type Frame, frame, reader, request, writer } from "../../../src/toolbox/protocol.ts";
import { ensureToolbox } from "../../../tools/lib/toolbox.mjs";

export interface Status {
  readonly pid: number;
  readonly startedNs: bigint;
  readonly oldestSequence: number;
  readonly lastSequence: number;
  readonly outputBytes: number;
  readonly inputOffset: number;
  readonly inputOpen: boolean;
}

export interface Output {
  readonly is: "output";
  readonly sequence: number;
  readonly offset: number;
  readonly stream: "stdout" | "stderr" | "terminal";
  readonly bytes: Buffer;
}

export interface Exit {
  readonly is: "exit";
  readonly sequence: number;
  readonly how: "exited" | "signaled";
  readonly status: number;
  readonly cause: "self" | "timeout" | "orphaned" | "signal";
  readonly durationUs: number;
  readonly userUs: number;
  readonly systemUs: number;
  readonly maxResidentBytes: number;
  readonly endedNs: bigint;
}

export type Event =
  | Output
  | Exit
  | { readonly is: "taken"; readonly inputOffset: number; readonly inputOpen: boolean }
  | { readonly is: "failed"; readonly errno: number; readonly operation: string }
  | { readonly is: "error"; readonly errno: number; readonly operation: string; readonly path: string };

/** Why a start was refused. */
export class Refused extends Error {
  readonly errno: number;
  readonly operation: string;
  constructor(errno: number, operation: string, where: string) {
    super(`${operation} ${errno} ${where}`);
    this.errno = errno;
    this.operation = operation;
  }
}

export interface StartOptions {
  readonly id?: string;
  readonly env?: readonly string[];
  readonly directory?: string;
  readonly input?: boolean;
  readonly terminal?: { readonly rows: number; readonly columns: number };
  readonly timeoutMs?: number;
  readonly graceMs?: number;
  readonly orphanMs?: number;
  readonly retainBytes?: number;
  readonly waitMs?: number;
}

export interface Attached {
  readonly id: string;
  readonly status: Status;
  /** The next thing told; undefined once the connection has ended. */
  next(): Promise<Event | undefined>;
  /** As next, until one is as wanted; output is acknowledged. Fails if the connection ends before. */
  until<T extends Event>(wanted: (event: Event) => event is T): Promise<T>;
  /** All output to the exit, acknowledged, and the exit, which is taken. */
  finish(): Promise<Finished>;
  /** Output, acknowledged, until the text of it has what is looked for. */
  shows(text: string | RegExp): Promise<string>;
  input(offset: number, data: string | Buffer): Promise<void>;
  closeInput(offset: number): Promise<void>;
  resize(rows: number, columns: number, repaint?: boolean): Promise<void>;
  signal(signal: number, scope: "process" | "group" | "tree"): Promise<void>;
  ack(sequence: number): Promise<void>;
  end(graceMs: number): Promise<void>;
  forget(): Promise<void>;
  send(bytes: Buffer): Promise<void>;
  close(): void;
}

export interface Finished {
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  readonly terminal: Buffer;
  readonly bytes: number;
  readonly exit: Exit;
}

export interface TestToolbox {
  readonly directory: string;
  readonly server: ChildProcess;
  /** Another server in its place; the one before must have ended. */
  serve(): Promise<void>;
  open(): Promise<Connection>;
  start(argv: readonly string[], options?: StartOptions): Promise<Attached>;
  /** @throws Error with a code, if nobody listens there. */
  attach(id: string, sequence: number): Promise<Attached>;
  list(): Promise<readonly string[]>;
  /** Processes of this toolbox that live: its server, keepers, and what they started. */
  processes(): readonly number[];
  /** Ends everything. Fails if a process was left that `allowed` does not expect. */
  close(): Promise<void>;
}

const streams = { 1: "stdout", 2: "stderr", 3: "terminal" } as const;
const causes = ["self", "timeout", "orphaned", "signal"] as const;

function decode({ type, payload }: Frame): Event {
  const read = reader(payload);
  switch (type) {
    case frame.output: {
      const [sequence, offset, stream] = [read.u64(), read.u64(), read.u8() as 1 | 2 | 3];
      return { is: "output", sequence, offset, stream: streams[stream], bytes: Buffer.from(read.rest()) };
    }
    case frame.exit:
      return {
        is: "exit",
        sequence: read.u64(),
        how: read.u8() === 0 ? "exited" : "signaled",
        status: read.u32(),
        cause: causes[read.u8()] ?? "self",
        durationUs: read.u64(),
        userUs: read.u64(),
        systemUs: read.u64(),
        maxResidentBytes: read.u64(),
        endedNs: read.i64(),
      };
    case frame.taken:
      return { is: "taken", inputOffset: read.u64(), inputOpen: read.u8() === 1 };
    case frame.failed:
      return { is: "failed", errno: read.u32(), operation: read.str() };
    case frame.error:
      return { is: "error", errno: read.u32(), operation: read.str(), path: read.str() };
    default:
      throw new Error(`a frame of type ${type}`);
  }
}

async function attached(id: string, connection: Connection): Promise<Attached> {
  const first = await connection.receive();
  if (first === undefined) throw new Error("the connection ended");
  const read = reader(first.payload);
  if (first.type === frame.error) throw new Refused(read.u32(), read.str(), read.str());
  if (first.type !== frame.status) throw new Error(`a frame of type ${first.type}`);
  const status: Status = {
    pid: read.u32(),
    startedNs: read.i64(),
    oldestSequence: read.u64(),
    lastSequence: read.u64(),
    outputBytes: read.u64(),
    inputOffset: read.u64(),
    inputOpen: read.u8() === 1,
  };
  const self: Attached = {
    id,
    status,
    async next() {
      const received = await connection.receive();
      return received === undefined ? undefined : decode(received);
    },
    async until(wanted) {
      for (;;) {
        const event = await self.next();
        if (event === undefined) throw new Error("the connection ended");
        if (event.is === "output") void self.ack(event.sequence);
        if (wanted(event)) return event;
      }
    },
    async finish() {
      const parts: Output[] = [];
      let bytes = 0;
      const exit = await self.until((event): event is Exit => {
        if (event.is === "output") {
          bytes += event.bytes.length;
          // What floods is counted, not kept.
          if (bytes < 4 * 1024 * 1024) parts.push(event);
        }
        if (event.is === "error") throw new Refused(event.errno, event.operation, event.path);
        return event.is === "exit";
      });
      await self.forget();
      while ((await self.next()) !== undefined);
      const of = (stream: Output["stream"]) =>
        Buffer.concat(parts.filter((part) => part.stream === stream).map((part) => part.bytes));
      return { stdout: of("stdout"), stderr: of("stderr"), terminal: of("terminal"), bytes, exit };
    },
    async shows(text) {
      let seen = "";
      await self.until((event): event is Output => {
        if (event.is === "exit") throw new Error(`it ended, having shown ${JSON.stringify(seen)}`);
        if (event.is === "output") seen += event.bytes.toString("latin1");
        return typeof text === "string" ? seen.includes(text) : text.test(seen);
      });
      return seen;
    },
    input: (offset, data) =>
      connection.send(writer().u64(offset).bytes(Buffer.from(data)).frame(frame.input)),
    closeInput: (offset) => connection.send(writer().u64(offset).frame(frame.closeInput)),
    resize: (rows, columns, repaint = false) =>
      connection.send(
        writer()
          .u16(rows)
          .u16(columns)
          .u8(repaint ? 1 : 0)
          .frame(frame.resize),
      ),
    signal: (signal, scope) =>
      connection.send(
        writer().u8(signal).u8(["process", "group", "tree"].indexOf(scope)).frame(frame.signal),
      ),
    ack: (sequence) => connection.send(writer().u64(sequence).frame(frame.ack)),
    end: (graceMs) => connection.send(writer().u32(graceMs).frame(frame.end)),
    forget: () => connection.send(writer().frame(frame.forget)),
    send: (bytes) => connection.send(bytes),
    close: () => connection.close(),
  };
  return self;
}

async function connectTo(socketPath: string): Promise<Connection> {
  const socket = connect(socketPath);
  await once(socket, "connect");
  return connectionOver(socket);
}

/** Waits until something is so, in steps of a few milliseconds. */
export async function becomes(
  what: string,
  probe: () => boolean | Promise<boolean>,
  withinMs = 10_000,
): Promise<void> {
  const end = performance.now() + withinMs;
  while (!(await probe())) {
    if (performance.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
    await sleep(5);
  }
}

/** Whether a process is there and not just waited for. */
export function lives(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return !["Z", "X"].includes(stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3));
  } catch {
    return false;
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, "latin1");
  } catch {
    return "";
  }
}

let made = 0;

/** `limits` are prlimit's, for the server and all that it starts. */
export async function startToolbox({ limits = [] as readonly string[] } = {}): Promise<TestToolbox> {
  const program = process.env["SANDBOXD_TEST_TOOLBOX"] ?? (await ensureToolbox({ log: () => undefined }));
  const directory = mkdtempSync(path.join(tmpdir(), "sandboxd-toolbox-"));
  made += 1;
  const uid = 60_000 + ((process.pid * 8 + made) % 5000);
  const isRoot = process.getuid?.() === 0;
  if (isRoot) chownSync(directory, uid, uid);
  const socketPath = path.join(directory, "toolbox.sock");
  const mark = `TOOLBOX_OF_TEST=${directory}`;
  const [command, ...args] =
    limits.length > 0 ? ["prlimit", ...limits, program, "serve", socketPath] : [program, "serve", socketPath];
  let server: ChildProcess;
  let ids = 0;

  const self: TestToolbox = {
    directory,
    get server() {
      return server;
    },
    async serve() {
      server = spawn(command as string, args, {
        cwd: directory,
        env: {
          PATH: "/usr/local/bin:/usr/bin:/bin",
          HOME: directory,
          TOOLBOX_OF_TEST: directory,
          OF_SERVER: "yes",
        },
        stdio: ["ignore", "ignore", "inherit"],
        ...(isRoot ? { uid, gid: uid } : {}),
      });
      await becomes("the server answers", async () => {
        if (!existsSync(socketPath)) return false;
        return connectTo(socketPath).then(
          (connection) => {
            connection.close();
            return true;
          },
          () => false,
        );
      });
    },
    open: () => connectTo(socketPath),
    async start(argv, options = {}) {
      ids += 1;
      const id = options.id ?? `test-${ids}`;
      const connection = await connectTo(socketPath);
      const { terminal } = options;
      await connection.send(
        request()
          .str(id)
          .list(argv)
          .list(options.env ?? [])
          .str(options.directory ?? directory)
          .u8((options.input ? 1 : 0) + (terminal === undefined ? 0 : 2))
          .u16(terminal?.rows ?? 0)
          .u16(terminal?.columns ?? 0)
          .u64(options.timeoutMs ?? 0)
          .u32(options.graceMs ?? 5_000)
          .u64(options.orphanMs ?? 0)
          .u32(options.retainBytes ?? 1024 * 1024)
          .u32(options.waitMs ?? 60_000)
          .frame(frame.start),
      );
      return attached(id, connection);
    },
    async attach(id, sequence) {
      const connection = await connectTo(path.join(directory, `p-${id}.sock`));
      await connection.send(request().u64(sequence).frame(frame.attach));
      return attached(id, connection);
    },
    async list() {
      const connection = await connectTo(socketPath);
      await connection.send(request().frame(frame.list));
      const ids: string[] = [];
      for (;;) {
        const received = await connection.receive();
        if (received?.type !== frame.held) return ids.sort();
        ids.push(reader(received.payload).str());
      }
    },
    processes() {
      const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
      return pids
        .filter((pid) => {
          if (!lives(Number(pid)) || Number(pid) === process.pid) return false;
          return (
            textOf(`/proc/${pid}/cmdline`).includes(socketPath) ||
            textOf(`/proc/${pid}/environ`).split("\0").includes(mark)
          );
        })
        .map(Number);
    },
    async close() {
      server.kill("SIGKILL");
      // A keeper goes with what it keeps once that has been taken; what a test had no end of is ended here.
      for (const pid of self.processes()) {
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // it has gone by itself
        }
      }
      await becomes("no process is left", () => self.processes().length === 0);
      rmSync(directory, { recursive: true });
    },
  };
  await self.serve();
  return self;
}
