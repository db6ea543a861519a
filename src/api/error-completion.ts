// Errors that the protocol library makes before any interceptor runs (a message that is too large or does not parse,
// an unusable header) leave it without details. Here they get the form that all other errors have.
import { Code, ConnectError } from "@connectrpc/connect";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import { encodeEnvelope } from "@connectrpc/connect/protocol";
import {
  codeToHttpStatus,
  endStreamFlag,
  endStreamFromJson,
  endStreamToJson,
  errorFromJsonBytes,
  errorToJsonBytes,
} from "@connectrpc/connect/protocol-connect";
import { findTrailerError, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { trailerFlag, trailerParse, trailerSerialize } from "@connectrpc/connect/protocol-grpc-web";
import { reasonOf } from "./error-encoding.ts";

/** Makes the full error of a bare one. */
export type Completion = (error: ConnectError) => ConnectError;

const envelopeHeaderBytes = 5;
const messageHeader = "grpc-message";
const lengthHeader = "content-length";

/** The response with its error, if it has a bare one, completed. */
export async function completeResponse(
  response: UniversalServerResponse,
  complete: Completion,
): Promise<UniversalServerResponse> {
  const type = response.header?.get("content-type") ?? "";
  if (response.body === undefined) {
    return response;
  }
  if (type.startsWith("application/grpc-web")) {
    return { ...response, body: mapped(response.body, (chunk) => completeWebTrailer(chunk, complete)) };
  }
  if (type.startsWith("application/grpc")) {
    return {
      ...response,
      body: afterwards(response.body, () => completeTrailer(response.trailer, complete)),
    };
  }
  if (type.startsWith("application/connect+")) {
    return { ...response, body: mapped(response.body, (chunk) => completeEndStream(chunk, complete)) };
  }
  return response.status === 200 ? response : completeUnary(response, response.body, complete);
}

function completeTrailer(trailer: Headers | undefined, complete: Completion): void {
  const error = trailer === undefined ? undefined : findTrailerError(trailer);
  if (trailer !== undefined && error !== undefined) {
    if (reasonOf(error) === undefined) {
      setTrailerStatus(trailer, complete(error));
    }
    respell(trailer);
  }
}

/**
 * The library escapes more of grpc-message than the protocol asks for, and grpc-js does not undo all of it. Here only
 * what is not printable ASCII is escaped, and the escape itself.
 */
function respell(trailer: Headers): void {
  const message = decodeURIComponent(trailer.get(messageHeader) ?? "");
  trailer.set(
    messageHeader,
    message.replace(/[^ -$&-~]+/gu, (unsafe) =>
      Buffer.from(unsafe).reduce((spelled, byte) => `${spelled}%${byte.toString(16).padStart(2, "0")}`, ""),
    ),
  );
}

function completeWebTrailer(chunk: Uint8Array, complete: Completion): Uint8Array {
  const [flags] = chunk;
  if (flags !== trailerFlag) {
    return chunk;
  }
  const trailer = trailerParse(chunk.subarray(envelopeHeaderBytes));
  completeTrailer(trailer, complete);
  return encodeEnvelope(trailerFlag, trailerSerialize(trailer));
}

function completeEndStream(chunk: Uint8Array, complete: Completion): Uint8Array {
  const [flags] = chunk;
  if (flags !== endStreamFlag) {
    return chunk;
  }
  const end = endStreamFromJson(chunk.subarray(envelopeHeaderBytes));
  const error = bare(end.error);
  if (error === undefined) {
    return chunk;
  }
  const json = endStreamToJson(end.metadata, complete(error), undefined);
  return encodeEnvelope(endStreamFlag, new TextEncoder().encode(JSON.stringify(json)));
}

async function completeUnary(
  response: UniversalServerResponse,
  body: AsyncIterable<Uint8Array>,
  complete: Completion,
): Promise<UniversalServerResponse> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) {
    chunks.push(chunk);
  }
  const bytes = Buffer.concat(chunks);
  const error = bare(parsedError(bytes));
  if (error === undefined) {
    return { ...response, body: just(bytes) };
  }
  const completed = complete(error);
  const json = errorToJsonBytes(completed, undefined);
  response.header?.set(lengthHeader, String(json.byteLength));
  return { ...response, status: codeToHttpStatus(completed.code), body: just(json) };
}

function parsedError(bytes: Uint8Array): ConnectError | undefined {
  const unparsed = new ConnectError("the answer is no error", Code.Unknown);
  try {
    return errorFromJsonBytes(bytes, undefined, unparsed);
  } catch (error) {
    if (error === unparsed) {
      return undefined;
    }
    throw error;
  }
}

function bare(error: ConnectError | undefined): ConnectError | undefined {
  return error === undefined || reasonOf(error) !== undefined ? undefined : error;
}

async function* just(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}

async function* mapped(
  source: AsyncIterable<Uint8Array>,
  map: (chunk: Uint8Array) => Uint8Array,
): AsyncIterable<Uint8Array> {
  for await (const chunk of source) {
    yield map(chunk);
  }
}

async function* afterwards(source: AsyncIterable<Uint8Array>, then: () => void): AsyncIterable<Uint8Array> {
  yield* source;
  then();
}
