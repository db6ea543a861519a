// gRPC for the methods that answer one message with one: what the protocol library does in ten streams laid into each other, in one
// piece, since those streams are most of what a short call costs.

import type { DescService, Message } from "@bufbuild/protobuf";
import type { ConnectRouter, ServiceImpl } from "@connectrpc/connect";
import { Code, ConnectError, createServiceImplSpec } from "@connectrpc/connect";
import type {
  UniversalHandlerFn,
  UniversalServerRequest,
  UniversalServerResponse,
} from "@connectrpc/connect/protocol";
import {
  assertByteStreamRequest,
  createMethodSerializationLookup,
  createMethodUrl,
  encodeEnvelope,
  invokeUnaryImplementation,
  pipe,
  transformDecompressEnvelope,
  transformInvokeImplementation,
  transformParseEnvelope,
  transformSplitEnvelope,
  uResponseOk,
} from "@connectrpc/connect/protocol";
import { headerEncoding, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import type { BulkOptions } from "./bulk-handler.ts";
import { callIsOver } from "./calls.ts";
import { openCall } from "./grpc-call.ts";
import { passedOn } from "./iterable.ts";

/** The router, with each service's unary methods put into `handlers` as well. */
export function withUnary(
  router: ConnectRouter,
  handlers: Map<string, UniversalHandlerFn>,
  options: BulkOptions,
): ConnectRouter {
  return {
    ...router,
    service<T extends DescService>(service: T, implementation: Partial<ServiceImpl<T>>) {
      router.service(service, implementation);
      for (const spec of Object.values(createServiceImplSpec(service, implementation).methods)) {
        if (spec.kind === "unary")
          handlers.set(createMethodUrl("/", spec.method), createHandler(spec, options));
      }
      return this;
    },
  };
}

type Spec = Extract<Parameters<typeof transformInvokeImplementation>[0], { readonly kind: "unary" }>;

function createHandler(spec: Spec, options: BulkOptions): UniversalHandlerFn {
  const { interceptors, readMaxBytes, acceptCompression } = options;
  const serialization = createMethodSerializationLookup(spec.method, undefined, undefined, options);
  const [input, output] = [serialization.getI(true), serialization.getO(true)];

  return async (request: UniversalServerRequest): Promise<UniversalServerResponse> => {
    assertByteStreamRequest(request);
    const { timeout, context, compression } = openCall(spec.method, request, acceptCompression);
    if (compression.response !== null) context.responseHeader.set(headerEncoding, compression.response.name);

    async function answered(body: AsyncIterable<Uint8Array>): Promise<Message> {
      for (const { error } of [compression, timeout]) if (error !== undefined) throw error;
      const received = await receive(body);
      if (received.kind === "message")
        return invokeUnaryImplementation(spec, context, input.parse(received.bytes), interceptors);
      const asked = pipe(
        received.body,
        transformSplitEnvelope(readMaxBytes),
        transformDecompressEnvelope(compression.request, readMaxBytes),
        transformParseEnvelope(input),
      );
      for await (const answer of transformInvokeImplementation(spec, context, interceptors)(asked))
        return answer;
      throw new ConnectError("there is no answer", Code.Internal);
    }

    const chunks: Uint8Array[] = [];
    try {
      chunks.push(encodeEnvelope(0, output.serialize(await answered(request.body))));
    } catch (error) {
      setTrailerStatus(context.responseTrailer, ConnectError.from(error, Code.Internal));
    } finally {
      context.abort(callIsOver);
    }
    return {
      ...uResponseOk,
      body: (async function* () {
        yield* chunks;
      })(),
      header: context.responseHeader,
      trailer: context.responseTrailer,
    };
  };
}

/** A message as it is, or a body that is yet to be taken apart. */
type Received =
  | { readonly kind: "message"; readonly bytes: Uint8Array }
  | { readonly kind: "body"; readonly body: AsyncIterable<Uint8Array> };

/** Nearly every body comes in one piece, which is one message that is not compressed. */
async function receive(body: AsyncIterable<Uint8Array>): Promise<Received> {
  const source = body[Symbol.asyncIterator]();
  const taken = [await source.next()];
  const [first] = taken;
  const bytes = first === undefined || first.done === true ? undefined : plainMessage(first.value);
  if (bytes !== undefined) {
    const second = await source.next();
    if (second.done === true) return { kind: "message", bytes };
    taken.push(second);
  }
  const next = async () => taken.shift() ?? (await source.next());
  return { kind: "body", body: { [Symbol.asyncIterator]: () => ({ ...passedOn(source), next }) } };
}

const envelopeHeaderBytes = 5;

/** What is in the envelope, if that is all of these bytes and has no flags. */
function plainMessage(chunk: Uint8Array): Uint8Array | undefined {
  if (chunk.length < envelopeHeaderBytes || chunk[0] !== 0) return undefined;
  const length = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength).getUint32(1);
  return length === chunk.length - envelopeHeaderBytes ? chunk.subarray(envelopeHeaderBytes) : undefined;
}
