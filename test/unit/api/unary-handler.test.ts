import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { createConnectRouter, createContextValues } from "@connectrpc/connect";
import type {
  UniversalHandlerFn,
  UniversalServerRequest,
  UniversalServerResponse,
} from "@connectrpc/connect/protocol";
import { describe, expect, test } from "vitest";
import {
  GetSandboxRequestSchema,
  GetSandboxResponseSchema,
  SandboxService,
} from "../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { compressionGzip } from "../../../src/api/compression.ts";
import { encodeError } from "../../../src/api/error-encoding.ts";
import { withUnary } from "../../../src/api/unary-handler.ts";
import { SandboxdError } from "../../../src/errors.ts";

const path = "/sandboxd.v1.SandboxService/GetSandbox";
const readMaxBytes = 1_000;

/** The same method twice: as the protocol library serves it, and as this does. */
function served() {
  const options = {
    interceptors: [],
    readMaxBytes,
    writeMaxBytes: 2_000,
    acceptCompression: [compressionGzip],
    compressMinBytes: Number.MAX_SAFE_INTEGER,
  };
  const signals: AbortSignal[] = [];
  const direct = new Map<string, UniversalHandlerFn>();
  const router = createConnectRouter(options);
  withUnary(router, direct, options).service(SandboxService, {
    getSandbox({ sandboxId }, { signal, responseHeader }) {
      signals.push(signal);
      responseHeader.set("said", "something");
      if (sandboxId === "gone") throw encodeError(new SandboxdError("SANDBOX_NOT_FOUND", "It is gone."));
      if (sandboxId === "defect") throw new TypeError("a defect");
      return create(GetSandboxResponseSchema, {
        sandbox: { sandboxId, tenant: sandboxId === "large" ? "x".repeat(3_000) : "t" },
      });
    },
  });
  const ours = direct.get(path);
  const theirs = router.handlers.find(({ requestPath }) => requestPath === path);
  if (ours === undefined || theirs === undefined) throw new Error("not served");
  return { ours, theirs, signals };
}

const message = (sandboxId: string) =>
  toBinary(GetSandboxRequestSchema, create(GetSandboxRequestSchema, { sandboxId }));

function envelope(flags: number, data: Uint8Array, length = data.length): Buffer {
  const header = Buffer.alloc(5);
  header.writeUInt8(flags);
  header.writeUInt32BE(length, 1);
  return Buffer.concat([header, data]);
}

function asked(chunks: readonly Uint8Array[], headers: Record<string, string> = {}): UniversalServerRequest {
  return {
    httpVersion: "2.0",
    method: "POST",
    url: `http://sandboxd${path}`,
    header: new Headers({ "content-type": "application/grpc", ...headers }),
    body: (async function* () {
      yield* chunks;
    })(),
    signal: new AbortController().signal,
    contextValues: createContextValues(),
  };
}

/** All that a caller sees of an answer. */
async function seen({ status, header, body, trailer }: UniversalServerResponse) {
  const chunks: Uint8Array[] = [];
  for await (const chunk of (body ?? []) as AsyncIterable<Uint8Array>) chunks.push(chunk);
  return {
    status,
    header: [...(header ?? [])],
    body: Buffer.concat(chunks).toString("hex"),
    trailer: [...(trailer ?? [])],
  };
}

const plain = envelope(0, message("known"));
const bytes = [...plain].map((byte) => Buffer.from([byte]));

const requests: Record<string, readonly [readonly Uint8Array[], Record<string, string>?]> = {
  "one message in one piece": [[plain]],
  "an empty message": [[envelope(0, new Uint8Array())]],
  "a message in pieces of a byte": [bytes],
  "a message and an empty piece": [[plain, new Uint8Array()]],
  "a compressed message": [[envelope(1, gzipSync(message("known")))], { "grpc-encoding": "gzip" }],
  "a message that is not compressed although it may be": [[plain], { "grpc-encoding": "gzip" }],
  "a compressed message of an encoding that is not told": [[envelope(1, gzipSync(message("known")))]],
  "an encoding that nobody knows": [[plain], { "grpc-encoding": "odd" }],
  "a deadline": [[plain], { "grpc-timeout": "5S" }],
  "a deadline that is none": [[plain], { "grpc-timeout": "soon" }],
  "no message": [[]],
  "two messages": [[plain, plain]],
  "two messages in one piece": [[Buffer.concat([plain, plain])]],
  "half a message": [[plain.subarray(0, -2)]],
  "half a header": [[plain.subarray(0, 3)]],
  "bytes that are no message": [[envelope(0, Buffer.from([0xff, 0xff]))]],
  "a message that is too large": [[envelope(0, Buffer.alloc(readMaxBytes + 1))]],
  "the beginning of a message that is too large": [[envelope(0, new Uint8Array(), readMaxBytes + 1)]],
  "an answer that is too large": [[envelope(0, message("large"))]],
  "an error of the catalogue": [[envelope(0, message("gone"))]],
};

describe("is answered as by the protocol library, byte for byte:", () => {
  test.each(Object.entries(requests))("%s", async (_name, [chunks, headers]) => {
    const { ours, theirs } = served();
    expect(await seen(await ours(asked(chunks, headers)))).toEqual(
      await seen(await theirs(asked(chunks, headers))),
    );
  });
});

test("what is refused is refused before more of it was read", async () => {
  const { ours } = served();
  const request = asked([]);
  const answer = await ours({
    ...request,
    body: (async function* () {
      yield envelope(0, new Uint8Array(), readMaxBytes + 1);
      await new Promise(() => {});
    })(),
  });
  expect((await seen(answer)).trailer).toContainEqual(["grpc-status", "8"]);
});

test("a defect is INTERNAL", async () => {
  const { ours } = served();
  const { trailer, body } = await seen(await ours(asked([envelope(0, message("defect"))])));
  expect(trailer).toContainEqual(["grpc-status", "13"]);
  expect(body).toBe("");
});

test("the signal of a call aborts once it is over", async () => {
  const { ours, signals } = served();
  await ours(asked([plain]));
  expect(signals.map(({ aborted, reason }) => [aborted, reason.reason])).toEqual([[true, "CANCELED"]]);
});
