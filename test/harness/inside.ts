// The way into sandboxes as the daemon has it, for tests that go past its services.

import { createDockerRuntime } from "../../src/engine/docker.ts";
import type { Runtime } from "../../src/engine/runtime.ts";
import type { SandboxRecord } from "../../src/sandbox/record.ts";
import type { Connection } from "../../src/toolbox/connection.ts";
import type { Toolbox } from "../../src/toolbox/install.ts";
import { createLink, type ToolboxLink } from "../../src/toolbox/link.ts";
import { type Frame, frame, reader, request } from "../../src/toolbox/protocol.ts";
import { sharedEngine } from "./engine.ts";

const timeoutsMs = {
  ...{ list: 20_000, inspect: 20_000, create: 20_000, start: 20_000, stop: 20_000, remove: 20_000 },
  ...{ update: 20_000, pull: 20_000, pause: 20_000, resume: 20_000, exec: 20_000 },
};

/** What a link has to know of a sandbox. */
export type Known = Pick<SandboxRecord, "id" | "uid" | "containerId"> & Partial<SandboxRecord>;

export interface Inside {
  readonly link: ToolboxLink;
  readonly runtime: Runtime;
  /** Tells the link of a sandbox: as it is now, or that it is gone. */
  tell(id: string, record: Known | undefined): void;
  /** How often it had a toolbox started. */
  launches(): number;
  close(): void;
}

export interface InsideOptions {
  readonly toolbox: Pick<Toolbox, "at">;
  readonly cgroupParent: string;
  /** How long a toolbox may take to answer. Default: the daemon's own patience. */
  readonly patienceMs?: number;
}

/** A link of a test's own, on the engine that all share. */
export async function openInside({ toolbox, cgroupParent, patienceMs }: InsideOptions): Promise<Inside> {
  const runtime = createDockerRuntime({ socket: sharedEngine(), timeoutsMs, observe: () => undefined });
  const { cgroupVersion } = await runtime.describe();
  const records = new Map<string, SandboxRecord>();
  const listeners = new Set<(id: string) => void>();
  let launches = 0;
  const link = createLink({
    repository: {
      get: (id) => records.get(id),
      subscribe(listener) {
        listeners.add(listener);
        return () => void listeners.delete(listener);
      },
    },
    runtime: {
      launch(...asked) {
        launches += 1;
        return runtime.launch(...asked);
      },
    },
    facts: () => ({
      ...{ hostId: "test", cgroupParent, cgroupVersion, possibleCpus: 1, blockDevice: undefined },
      toolboxAt: toolbox.at,
    }),
    ...(patienceMs === undefined ? {} : { patienceMs }),
  });
  return {
    link,
    runtime,
    tell(id, record) {
      if (record === undefined) records.delete(id);
      else records.set(id, { state: "RUNNING", ...record } as SandboxRecord);
      for (const listener of listeners) listener(id);
    },
    launches: () => launches,
    close() {
      link.close();
      runtime.close();
    },
  };
}

/** The first answer to a request. */
export async function ask(inside: Inside, id: string, asked: Buffer): Promise<Frame | undefined> {
  const connection = await inside.link.open(id);
  try {
    await connection.send(asked);
    return await connection.receive();
  } finally {
    connection.close();
  }
}

/** The process id of the server inside. @throws if something else answers. */
export async function ping(inside: Inside, id: string): Promise<number> {
  const answer = await ask(inside, id, request().frame(frame.ping));
  if (answer?.type !== frame.pong) throw new Error(`no pong but ${answer?.type}`);
  return answer.payload.readUInt32LE(0);
}

/** Runs a program to its end through the toolbox. */
export async function runInside(
  inside: Inside,
  id: string,
  argv: readonly string[],
): Promise<{ readonly status: number; readonly output: string }> {
  const connection = await inside.link.open(id);
  try {
    const start = request()
      .str(`test-${process.pid}-${performance.now()}`)
      .list(argv)
      .list([])
      .str("/tmp")
      .u8(0)
      .u16(0)
      .u16(0)
      .u64(60_000)
      .u32(1_000)
      .u64(1_000)
      .u32(1_048_576)
      .u32(5_000);
    await connection.send(start.frame(frame.start));
    return await readToEnd(connection);
  } finally {
    connection.close();
  }
}

async function readToEnd(connection: Connection) {
  const parts: Buffer[] = [];
  for (let got = await connection.receive(); got !== undefined; got = await connection.receive()) {
    const payload = reader(got.payload);
    if (got.type === frame.output) {
      [payload.u64(), payload.u64(), payload.u8()];
      parts.push(Buffer.from(payload.rest()));
    } else if (got.type === frame.exit) {
      [payload.u64(), payload.u8()];
      return { status: payload.u32(), output: Buffer.concat(parts).toString() };
    } else if (got.type === frame.error) {
      throw new Error(`error ${payload.u32()} of ${payload.str()}`);
    }
  }
  throw new Error("the connection ended before the process");
}
