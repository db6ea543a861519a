// How fast the daemon answers, and how fast it tells a death.

import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { create as createMessage, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { credentials, Client as GrpcClient } from "@grpc/grpc-js";
import type Docker from "dockerode";
import { EventService } from "../gen/sandboxd/v1/event_service_pb.ts";
import { SandboxState } from "../gen/sandboxd/v1/sandbox_pb.ts";
import {
  type GetSandboxRequest,
  type GetSandboxResponse,
  SandboxService,
} from "../gen/sandboxd/v1/sandbox_service_pb.ts";
import type { BareEngine } from "./bare-engine.ts";
import { type Result, resultOf } from "./result.ts";
import type { Sandboxes } from "./sandboxes.ts";

const unaryWarmUps = 2_000;

/** One after the other, as a caller makes them: in turn one by one, each would be measured in caches that the others have filled. */
const callsATurn = 20;

/** An event that has not come by then does not come. */
const eventTimeoutMs = 10_000;

/**
 * GetSandbox over the unix socket, in turn with the engine's inspect: with grpc-js, and with connect-node, whose own part of a
 * call in the same cores is as large as the daemon's.
 */
export async function measureUnary(
  { daemon, client, create, removeAll }: Sandboxes,
  bare: BareEngine,
  runs: number,
): Promise<readonly Result[]> {
  const { sandboxId, status } = await create();
  const container = bare.docker.getContainer(status?.containerId ?? "");
  const lean = new GrpcClient(`unix:${daemon.socketPath}`, credentials.createInsecure());
  const calls = {
    unary: () => getSandbox(lean, sandboxId),
    "unary-connect": () => client.getSandbox({ sandboxId }),
    inspect: () => container.inspect(),
  };
  const taken = { unary: [] as number[], "unary-connect": [] as number[], inspect: [] as number[] };
  while (taken.inspect.length < unaryWarmUps + runs) {
    for (const name of ["unary", "unary-connect", "inspect"] as const) {
      for (let call = 0; call < callsATurn; call += 1) {
        const began = performance.now();
        await calls[name]();
        taken[name].push(performance.now() - began);
      }
    }
  }
  lean.close();
  await removeAll();
  const [baseline, ...ours] = [taken.inspect, taken.unary, taken["unary-connect"]].map((all) =>
    all.slice(unaryWarmUps),
  );
  const goal = { of: "p50", atMost: 1 } as const;
  return ["unary", "unary-connect"].map((name, index) =>
    resultOf({ name, unit: "ms", values: ours[index] ?? [], baseline: baseline ?? [], goal }),
  );
}

function getSandbox(client: GrpcClient, sandboxId: string): Promise<GetSandboxResponse> {
  const { input, output } = SandboxService.method.getSandbox;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      `/${SandboxService.typeName}/GetSandbox`,
      (request: GetSandboxRequest) => Buffer.from(toBinary(input, request)),
      (bytes) => fromBinary(output, bytes),
      createMessage(input, { sandboxId }),
      (error, answer) => (answer === undefined ? reject(error) : resolve(answer)),
    );
  });
}

/**
 * From the engine's own event of a death, as a client of the engine gets it, to the daemon's event, as a client of the daemon
 * gets it. In between the daemon asks the engine how it ended, and writes that to disk. The baseline is the asking alone: the
 * engine tells the death before it has tidied up, and answers nothing about the container until it has.
 */
export async function measureExitLatency(
  { daemon, create, removeAll }: Sandboxes,
  bare: BareEngine,
  runs: number,
): Promise<readonly Result[]> {
  const { docker } = bare;
  const deaths = await watchDeaths(docker);
  const stopWatch = new AbortController();
  const told = new Map<string, number>();
  const watched = watchEnds(daemon.client(EventService), told, stopWatch.signal);
  try {
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let run = 0; run < runs; run += 1) {
      const { sandboxId, status } = await create();
      const id = status?.containerId ?? "";
      await docker.getContainer(id).kill();
      const end = await seen(told, sandboxId);
      ours.push(end - (await seen(deaths.at, id)));
      await removeAll();

      const container = await bare.create();
      const inspected = deaths.next().then(async (died) => {
        await container.inspect();
        return performance.now() - died;
      });
      await container.kill();
      theirs.push(await inspected);
      await bare.removeAll();
    }
    const goal = { of: "p50", atMost: 15 } as const;
    return [resultOf({ name: "exit-latency", unit: "ms", values: ours, baseline: theirs, goal })];
  } finally {
    deaths.close();
    stopWatch.abort();
    await watched;
  }
}

interface Deaths {
  /** When each container died, by id, as the engine told this client. */
  readonly at: ReadonlyMap<string, number>;
  /** Resolves at once when the next container dies, with the time. */
  next(): Promise<number>;
  close(): void;
}

async function watchDeaths(docker: Docker): Promise<Deaths> {
  // the client's types promise less than the response that it gives
  const stream = (await docker.getEvents({ filters: { event: ["die"] } })) as Readable;
  const at = new Map<string, number>();
  let tellNext: (time: number) => void = () => undefined;
  let rest = "";
  stream.on("data", (chunk: Buffer) => {
    const now = performance.now();
    const lines = (rest + chunk.toString()).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      at.set((JSON.parse(line) as { readonly id: string }).id, now);
      tellNext(now);
    }
  });
  return {
    at,
    next: () =>
      new Promise((resolve) => {
        tellNext = resolve;
      }),
    close() {
      // a stream that is cut off ends with an error that says only that
      stream.on("error", () => undefined);
      stream.destroy();
    },
  };
}

/** Notes when each sandbox was told to have ended, by id. Resolves when the signal ends it. */
async function watchEnds(
  client: Client<typeof EventService>,
  told: Map<string, number>,
  signal: AbortSignal,
): Promise<void> {
  try {
    for await (const { update } of client.watchEvents({}, { signal })) {
      const state = update.case === "event" ? update.value.sandbox?.status?.state : undefined;
      if (update.case === "event" && (state === SandboxState.FAILED || state === SandboxState.STOPPED)) {
        told.set(update.value.sandboxId, performance.now());
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** The time noted for the id, once it is. @throws Error when it takes too long. */
async function seen(times: ReadonlyMap<string, number>, id: string): Promise<number> {
  const deadline = performance.now() + eventTimeoutMs;
  while (performance.now() < deadline) {
    const time = times.get(id);
    if (time !== undefined) return time;
    await sleep(1);
  }
  throw new Error(`no event of the end of ${id} within ${eventTimeoutMs} ms`);
}
