// How a call of gRPC begins in the handlers that are our own: what its headers say, in the library's terms.

import type { DescMethod } from "@bufbuild/protobuf";
import { createHandlerContext } from "@connectrpc/connect";
import type { Compression, UniversalServerRequest } from "@connectrpc/connect/protocol";
import { compressionNegotiate } from "@connectrpc/connect/protocol";
import {
  contentTypeProto,
  grpcStatusOk,
  headerAcceptEncoding,
  headerContentType,
  headerEncoding,
  headerGrpcStatus,
  headerTimeout,
  parseTimeout,
} from "@connectrpc/connect/protocol-grpc";

/** Of Node's timers. */
const mostTimeoutMs = 2 ** 31 - 1;

/** `timeout` and `compression` may each have an error, which the call is to be answered with. */
export function openCall(method: DescMethod, request: UniversalServerRequest, accepted: Compression[]) {
  const timeout = parseTimeout(request.header.get(headerTimeout), mostTimeoutMs);
  const context = createHandlerContext({
    method,
    service: method.parent,
    requestMethod: request.method,
    protocolName: "grpc",
    timeoutMs: timeout.timeoutMs,
    requestSignal: request.signal,
    requestHeader: request.header,
    url: request.url,
    responseHeader: { [headerContentType]: contentTypeProto },
    responseTrailer: { [headerGrpcStatus]: grpcStatusOk },
    contextValues: request.contextValues,
  });
  const compression = compressionNegotiate(
    accepted,
    request.header.get(headerEncoding),
    request.header.get(headerAcceptEncoding),
    headerAcceptEncoding,
  );
  return { timeout, context, compression };
}
