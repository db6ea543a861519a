// An API server with stub services on real sockets in a directory of its own, and what it logged and counted.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { create } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { pino } from "pino";
import {
  type CreateSandboxRequest,
  CreateSandboxResponseSchema,
  GetSandboxResponseSchema,
  SandboxService,
} from "../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { createHealthRegistry } from "../../../src/api/health.ts";
import type { ApiLimits } from "../../../src/api/limits.ts";
import type { Listener, ListenerConfig } from "../../../src/api/listeners.ts";
import type { ApiServer } from "../../../src/api/server.ts";
import { createApiServer } from "../../../src/api/server.ts";
import { SandboxdError } from "../../../src/errors.ts";

/** A line of the log, parsed. */
type LogLine = Readonly<Record<string, unknown>>;

export interface ApiFixture {
  readonly directory: string;
  readonly server: ApiServer;
  readonly health: ReturnType<typeof createHealthRegistry>;
  readonly logged: LogLine[];
  readonly ended: { readonly method: string; readonly code: string }[];
  readonly refused: string[];
  readonly created: CreateSandboxRequest[];
  /** Streams that are open now, by the metric. */
  openStreams(): number;
  /** Watches whose handler is running now. */
  openWatches(): number;
  listen(config?: ListenerConfig): Promise<Listener>;
  close(): Promise<void>;
}

type Stubs = Partial<ServiceImpl<typeof SandboxService>>;

/** Stubs: get knows "known", fails on others; watch never sends anything; create echoes. Terms begin at 5. */
export async function startApi(limits: Partial<ApiLimits> = {}, stubs: Stubs = {}): Promise<ApiFixture> {
  const directory = await mkdtemp(join(tmpdir(), "api-"));
  const logged: LogLine[] = [];
  const ended: { method: string; code: string }[] = [];
  const refused: string[] = [];
  const created: CreateSandboxRequest[] = [];
  const health = createHealthRegistry();
  let openStreams = 0;
  let openWatches = 0;
  let newestTerm = 5;
  const log = pino(
    { level: "debug" },
    new Writable({
      write(chunk, _encoding, done) {
        logged.push(JSON.parse(String(chunk)) as LogLine);
        done();
      },
    }),
  );
  const server = createApiServer({
    routes: (router) =>
      router.service(SandboxService, {
        getSandbox({ sandboxId }) {
          if (sandboxId !== "known") {
            throw new SandboxdError("SANDBOX_NOT_FOUND", `There is no sandbox "${sandboxId}".`);
          }
          return create(GetSandboxResponseSchema, { sandbox: { sandboxId } });
        },
        createSandbox(request) {
          created.push(request);
          return create(CreateSandboxResponseSchema, {
            sandbox: { sandboxId: request.sandboxId || "made-up" },
          });
        },
        async *watchSandboxes(_request, context) {
          openWatches += 1;
          try {
            yield { update: { case: "bookmark", value: { sequence: 1n } }, sequence: 1n };
            await aborted(context);
          } finally {
            openWatches -= 1;
          }
        },
        ...stubs,
      }),
    health,
    terms: {
      newest: () => newestTerm,
      accept(term) {
        newestTerm = Math.max(newestTerm, term);
        return term === newestTerm;
      },
    },
    metrics: {
      callEnded: (method, code) => ended.push({ method, code }),
      streamsChanged: (delta) => {
        openStreams += delta;
      },
      connectionRefused: (why) => refused.push(why),
    },
    log,
    limits,
  });
  return {
    directory,
    server,
    health,
    logged,
    ended,
    refused,
    created,
    openStreams: () => openStreams,
    openWatches: () => openWatches,
    listen: (config = { kind: "plain", host: "127.0.0.1", port: 0, dev: true }) => server.listen(config),
    async close() {
      await server.close({ graceMs: 100 });
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Rejects with the reason when the call is over. */
function aborted(context: HandlerContext): Promise<never> {
  return new Promise((_resolve, reject) => {
    context.signal.addEventListener("abort", () => reject(context.signal.reason));
  });
}

/** A gRPC client of the sandbox service on a plain listener. */
export function grpcClient(listener: Listener) {
  return createClient(SandboxService, createGrpcTransport({ baseUrl: `http://${listener.address}` }));
}

/** The error that a promise rejects with. Fails if it does not. */
export async function errorOf(promise: Promise<unknown>): Promise<ConnectError> {
  try {
    await promise;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error("expected an error, got an answer");
}

/** Waits until the condition holds; fails after five seconds. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 5000;
  while (!holds()) {
    if (performance.now() > deadline) {
      throw new Error(`not within 5 s: ${what}`);
    }
    await new Promise((resolve) => {
      setTimeout(resolve, 10);
    });
  }
}
