// gRPC for the methods that answer with many bytes or take them: the protocol library's pipeline, but for the encoding of the answers and the
// taking apart of what is asked.

import type { DescMethod, DescService, Message } from "@bufbuild/protobuf";
import type { ConnectRouter, Interceptor, ServiceImpl } from "@connectrpc/connect";
import { Code, ConnectError, createServiceImplSpec } from "@connectrpc/connect";
import type {
  Compression,
  UniversalHandlerFn,
  UniversalServerRequest,
  UniversalServerResponse,
} from "@connectrpc/connect/protocol";
import {
  assertByteStreamRequest,
  createAsyncIterable,
  createMethodSerializationLookup,
  createMethodUrl,
  encodeEnvelope,
  pipe,
  transformDecompressEnvelope,
  transformInvokeImplementation,
  transformParseEnvelope,
  transformSplitEnvelope,
  untilFirst,
  uResponseOk,
} from "@connectrpc/connect/protocol";
import { headerContentType, parseContentType, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { isBulky, splitMessage } from "./bulk-encoding.ts";
import { isBulkyInput, messagesIn } from "./bulk-input.ts";
import { transferred } from "./collection-pace.ts";
import { openCall } from "./grpc-call.ts";

export interface BulkOptions {
  readonly interceptors: Interceptor[];
  readonly readMaxBytes: number;
  readonly writeMaxBytes: number;
  readonly acceptCompression: Compression[];
}

/** By path: for requests of gRPC in binary form. Others are the router's own. */
export type BulkHandlers = ReadonlyMap<string, UniversalHandlerFn>;

/** The router, with each service's bulky methods put into `handlers` as well. */
export function withBulk(
  router: ConnectRouter,
  handlers: Map<string, UniversalHandlerFn>,
  options: BulkOptions,
): ConnectRouter {
  return {
    ...router,
    service<T extends DescService>(service: T, implementation: Partial<ServiceImpl<T>>) {
      router.service(service, implementation);
      for (const spec of Object.values(createServiceImplSpec(service, implementation).methods)) {
        if (isBulkyMethod(spec.method))
          handlers.set(createMethodUrl("/", spec.method), createHandler(spec, options));
      }
      return this;
    },
  };
}

/** Whether what it is asked comes in a gathered body. */
export function takesBytes({ methodKind, input }: DescMethod): boolean {
  return methodKind === "client_streaming" && isBulkyInput(input);
}

const isBulkyMethod = (method: DescMethod): boolean =>
  takesBytes(method) ||
  ((method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming") &&
    isBulky(method.output));

/** Whether a request is for these handlers. */
export function isBinaryGrpc({ method, header }: Pick<UniversalServerRequest, "method" | "header">): boolean {
  return method === "POST" && parseContentType(header.get(headerContentType))?.binary === true;
}

type Spec = Parameters<typeof transformInvokeImplementation>[0];

function createHandler(spec: Spec, options: BulkOptions): UniversalHandlerFn {
  const { interceptors, readMaxBytes, acceptCompression } = options;
  const serialization = createMethodSerializationLookup(spec.method, undefined, undefined, options);
  const serialize = serialization.getO(true);

  function encoded(message: Parameters<typeof serialize.serialize>[0]): readonly Uint8Array[] {
    const parts = splitMessage(spec.method.output, message);
    if (parts === undefined) return [encodeEnvelope(0, serialize.serialize(message))];
    const { head, bytes } = parts;
    transferred(bytes.length);
    const begin = Buffer.allocUnsafe(5 + head.length);
    begin.writeUInt8(0);
    begin.writeUInt32BE(head.length + bytes.length, 1);
    begin.set(head, 5);
    return [begin, bytes];
  }

  return async (request: UniversalServerRequest): Promise<UniversalServerResponse> => {
    assertByteStreamRequest(request);
    const { timeout, context, compression } = openCall(spec.method, request, acceptCompression);

    async function* answers(): AsyncGenerator<Uint8Array> {
      try {
        for (const { error } of [compression, timeout]) if (error !== undefined) throw error;
        const read = (bytes: AsyncIterable<Uint8Array>) =>
          pipe(
            bytes,
            transformSplitEnvelope(readMaxBytes),
            transformDecompressEnvelope(compression.request, readMaxBytes),
            transformParseEnvelope(serialization.getI(true)),
          );
        const body = request.body as AsyncIterable<Uint8Array>;
        const asked = takesBytes(spec.method)
          ? messagesIn<Message>(spec.method.input, body, {
              readMaxBytes,
              read: (bytes) => read(createAsyncIterable([bytes])),
            })
          : read(body);
        for await (const message of transformInvokeImplementation(spec, context, interceptors)(asked)) {
          yield* encoded(message);
        }
        context.abort();
      } catch (error) {
        context.abort(error);
        setTrailerStatus(context.responseTrailer, ConnectError.from(error, Code.Internal));
      } finally {
        context.abort();
      }
    }
    return {
      ...uResponseOk,
      // headers wait for the first bytes: until then the implementation may set some
      body: await untilFirst(answers()),
      header: context.responseHeader,
      trailer: context.responseTrailer,
    };
  };
}
