// The API as one thing: our services, health and reflection behind the same interceptors on any number of listeners.
import type { DescService } from "@bufbuild/protobuf";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import type { ConnectRouter, Interceptor } from "@connectrpc/connect";
import { createConnectRouter } from "@connectrpc/connect";
import type { UniversalHandlerFn } from "@connectrpc/connect/protocol";
import type { Logger } from "pino";
import { file_google_rpc_error_details } from "../../gen/google/rpc/error_details_pb.ts";
import { Health } from "../../gen/grpc/health/v1/health_pb.ts";
import type { ServerReflectionRequest } from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import {
  ServerReflection,
  ServerReflectionRequestSchema,
  ServerReflectionResponseSchema,
} from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import type { ServerReflectionRequest as AlphaRequest } from "../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import {
  ServerReflectionRequestSchema as AlphaRequestSchema,
  ServerReflectionResponseSchema as AlphaResponseSchema,
  ServerReflection as ServerReflectionAlpha,
} from "../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { file_sandboxd_v1_error } from "../../gen/sandboxd/v1/error_pb.ts";
import { withBulk } from "./bulk-handler.ts";
import { compressionGzip } from "./compression.ts";
import type { HealthRegistry } from "./health.ts";
import { createHealthService } from "./health.ts";
import { createAccessInterceptor } from "./interceptors/access.ts";
import { createAuthorizationInterceptor } from "./interceptors/authorization.ts";
import { createDeadlineInterceptor } from "./interceptors/deadline.ts";
import { createErrorInterceptor } from "./interceptors/errors.ts";
import { createMessageInterceptor } from "./interceptors/message.ts";
import { createRepeatedCalls, type RepeatedCalls } from "./interceptors/repeated-calls.ts";
import { createStreamLimitInterceptor } from "./interceptors/stream-limit.ts";
import { createTermInterceptor } from "./interceptors/term.ts";
import type { ApiLimits } from "./limits.ts";
import { defaultLimits } from "./limits.ts";
import type { Listener, ListenerConfig } from "./listeners.ts";
import { openListener } from "./listeners.ts";
import type { ApiMetrics, Terms } from "./ports.ts";
import { createReflection, reflectionStream } from "./reflection.ts";
import { createRequestHandler } from "./request-handler.ts";
import { withUnary } from "./unary-handler.ts";
import { compileRules, createRuleCheck, type MessageCheck } from "./validation.ts";

/** What the API is made of. */
export interface ApiServerOptions {
  /** Registers our services. */
  readonly routes: (router: ConnectRouter) => void;
  readonly health: HealthRegistry;
  readonly terms: Terms;
  readonly metrics: ApiMetrics;
  readonly log: Logger;
  /** Bounds that differ from the defaults. */
  readonly limits?: Partial<ApiLimits>;
}

/** The API before and while it listens. */
export interface ApiServer {
  /** Opens a listener. Throws an error with a hint when that cannot or must not be. */
  listen(config: ListenerConfig): Promise<Listener>;
  /** Has every TLS listener read its files again; all are tried, the first failure is thrown. */
  reload(): Promise<void>;
  /** Sets all health to NOT_SERVING and closes all listeners, each with the same grace. */
  close(options: { readonly graceMs: number }): Promise<void>;
}

/** Puts the API together; nothing listens yet. */
export function createApiServer(options: ApiServerOptions): ApiServer {
  const { health, log, metrics } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const checkRules = createRuleCheck();
  const repeated = createRepeatedCalls((line) => log.info(line, "call"));
  const common = {
    interceptors: interceptors(options, limits, checkRules, repeated),
    readMaxBytes: limits.readMaxBytes,
    writeMaxBytes: limits.writeMaxBytes,
    // Requests may come compressed. Answers never are: on a local network it costs more than it saves.
    acceptCompression: [compressionGzip],
    compressMinBytes: Number.MAX_SAFE_INTEGER,
  };
  const router = createConnectRouter({ ...common, jsonOptions: { ignoreUnknownFields: false } });
  const direct = new Map<string, UniversalHandlerFn>();
  options.routes(withUnary(withBulk(router, direct, common), direct, common));
  router.service(Health, createHealthService(health));
  addReflection(router);
  const handle = createRequestHandler(router, direct, limits, log, metrics);
  const listeners: Listener[] = [];
  void compileRules(
    checkRules,
    router.handlers.map(({ method }) => method.input),
  );
  return {
    async listen(config) {
      const listener = await openListener(config, { handle, limits, metrics, log });
      listeners.push(listener);
      return listener;
    },
    async reload() {
      const results = await Promise.allSettled(listeners.map((listener) => listener.reload()));
      for (const result of results) {
        if (result.status === "rejected") {
          throw result.reason;
        }
      }
    },
    async close(closing) {
      for (const service of health.list().keys()) {
        health.set(service, "NOT_SERVING");
      }
      // One turn of the event loop, in which watchers of the health hear of it.
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
      await Promise.all(listeners.map((listener) => listener.close(closing)));
      repeated.close();
    },
  };
}

/** From the outermost to the innermost. */
function interceptors(
  options: ApiServerOptions,
  limits: ApiLimits,
  checkRules: MessageCheck,
  repeated: RepeatedCalls,
): Interceptor[] {
  return [
    createAccessInterceptor(options.log, options.metrics, repeated),
    createDeadlineInterceptor(),
    createErrorInterceptor(options.log),
    createAuthorizationInterceptor(),
    createStreamLimitInterceptor(limits.streamsPerCaller, options.metrics),
    createMessageInterceptor(checkRules),
    createTermInterceptor(options.terms),
  ];
}

function addReflection(router: ConnectRouter): void {
  const services = (): DescService[] => [...new Set(router.handlers.map(({ service }) => service))];
  const reflection = createReflection(services, [file_google_rpc_error_details, file_sandboxd_v1_error]);
  router.service(ServerReflection, {
    serverReflectionInfo: (requests) => reflectionStream(reflection, requests),
  });
  router.service(ServerReflectionAlpha, {
    async *serverReflectionInfo(requests) {
      // The same messages, byte for byte, under another name.
      const current = asCurrent(requests);
      for await (const answer of reflectionStream(reflection, current)) {
        yield fromBinary(AlphaResponseSchema, toBinary(ServerReflectionResponseSchema, answer));
      }
    },
  });
}

async function* asCurrent(requests: AsyncIterable<AlphaRequest>): AsyncGenerator<ServerReflectionRequest> {
  for await (const request of requests) {
    yield fromBinary(ServerReflectionRequestSchema, toBinary(AlphaRequestSchema, request));
  }
}
