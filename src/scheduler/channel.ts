// The wire: one gRPC channel per session, so that a session's end leaves nothing behind and the next one resolves
// the name anew. The only importer of grpc-js.

import { isIP } from "node:net";
import { checkServerIdentity } from "node:tls";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type ChannelOptions,
  Client,
  credentials,
  status as grpcStatus,
  logVerbosity,
  Metadata,
  setLogVerbosity,
} from "@grpc/grpc-js";
import {
  type ConnectRequest,
  ConnectRequestSchema,
  type ConnectResponse,
  ConnectResponseSchema,
  SchedulerService,
} from "../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { messageOf } from "../errors.ts";
import type { Endpoint } from "./endpoints.ts";

/** How the daemon and the scheduler know each other. PEM. */
export interface UplinkCredentials {
  /** Authorities that the scheduler's certificate must be from. */
  readonly ca: Buffer;
  /** The daemon's client certificate and its chain. */
  readonly certificate: Buffer;
  /** Its private key. */
  readonly key: Buffer;
}

/** What a call tells. After `ended` nothing more comes. */
export interface CallListener {
  message(response: ConnectResponse): void;
  /** A message that cannot be decoded. */
  malformed(problem: string): void;
  /** The call is over, whoever ended it. `code` is gRPC's name of the status. */
  ended(code: string, message: string): void;
}

/** One open call. */
export interface SchedulerCall {
  /** Gives one message to the transport, and calls back when the peer's flow control let it go. One at a time. */
  write(request: ConnectRequest, written: () => void): void;
  /** Says that nothing more comes. */
  end(): void;
  /** Drops the call and its connection at once. */
  close(): void;
}

/** Opens a call. Throws where the credentials cannot be used; the rest comes through the listener, after it returned. */
export type Dial = (endpoint: Endpoint, listener: CallListener) => SchedulerCall;

export interface DialOptions {
  /** Asked for at each session, so that renewed files are taken up. Undefined where every endpoint is plain. */
  readonly credentials: (() => UplinkCredentials) | undefined;
  /** Time between two pings of the connection, and what an answer may take. Unit: milliseconds. */
  readonly keepaliveMs: number;
  readonly keepaliveTimeoutMs: number;
}

// The least time between two pings that servers in Go, C++, Python and Java grant when told nothing else.
const maxKeepaliveMs = 5 * 60_000;

const pingHint =
  'Hint: the scheduler may refuse a ping every 10 s; see "Keepalive" in docs/scheduler.md for what to set there.';

const path = `/${SchedulerService.typeName}/${SchedulerService.method.connect.name}`;

/** Dials with grpc-js. Pings half as often, to the end of the process, when a scheduler says that they are too many. */
export function createGrpcDial(options: DialOptions): Dial {
  // grpc-js writes to the console by itself; what matters comes with the status of the call
  setLogVerbosity(logVerbosity.NONE);
  let { keepaliveMs } = options;

  function ended(code: number, details: string, listener: CallListener): void {
    const tooManyPings = code === grpcStatus.RESOURCE_EXHAUSTED && details.startsWith("Bandwidth exhausted");
    if (tooManyPings) keepaliveMs = Math.min(keepaliveMs * 2, maxKeepaliveMs);
    listener.ended(grpcStatus[code] ?? String(code), tooManyPings ? `${details}. ${pingHint}` : details);
  }

  return (endpoint, listener) => {
    const client = new Client(
      endpoint.target,
      channelCredentials(endpoint, options),
      channelOptions(endpoint, { ...options, keepaliveMs }),
    );
    const call = client.makeBidiStreamRequest(path, encode, identity, new Metadata());
    call.on("data", (bytes: Buffer) => {
      let response: ConnectResponse;
      try {
        response = fromBinary(ConnectResponseSchema, bytes);
      } catch (error) {
        listener.malformed(messageOf(error));
        return;
      }
      listener.message(response);
    });
    // "status" tells the same; without a listener "error" would be thrown
    call.on("error", () => undefined);
    call.on("status", ({ code, details }) => ended(code, details, listener));
    return {
      write: (request, written) => void call.write(request, written),
      end: () => void call.end(),
      close() {
        call.cancel();
        client.close();
      },
    };
  };
}

function channelCredentials(endpoint: Endpoint, options: DialOptions) {
  if (!endpoint.secure) return credentials.createInsecure();
  const tls = options.credentials?.();
  if (tls === undefined) {
    throw new Error(`${endpoint.url} needs TLS.\nHint: set ca, certificate and key in [scheduler.tls].`);
  }
  return credentials.createSsl(tls.ca, tls.key, tls.certificate, {
    checkServerIdentity: (_name, certificate) => checkServerIdentity(endpoint.host, certificate),
  });
}

function channelOptions(
  endpoint: Endpoint,
  { keepaliveMs, keepaliveTimeoutMs }: DialOptions,
): ChannelOptions {
  return {
    // TLS has no way to ask for an address by name, and Node refuses to try; the certificate is checked against the
    // address all the same.
    ...(endpoint.secure && isIP(endpoint.host) !== 0 ? { "grpc.ssl_target_name_override": "scheduler" } : {}),
    "grpc.primary_user_agent": "sandboxd",
    "grpc.keepalive_time_ms": keepaliveMs,
    "grpc.keepalive_timeout_ms": keepaliveTimeoutMs,
    "grpc.keepalive_permit_without_calls": 1,
    // A retry keeps a copy of everything that was sent. Without a buffer for it, of 1 MiB by default and there even when
    // retries are off, a write is done when flow control let it go and not when it was copied.
    "grpc.enable_retries": 0,
    "grpc.per_rpc_retry_buffer_size": 0,
    // Channels share connections by default; a session must not inherit one from the session that it replaces.
    "grpc.use_local_subchannel_pool": 1,
    // The environment's proxies are for the web, not for the control plane.
    "grpc.enable_http_proxy": 0,
    "grpc.service_config_disable_resolution": 1,
    // What most receivers take by default.
    "grpc.max_send_message_length": 4 * 1024 * 1024,
    // A scheduler says nothing long.
    "grpc.max_receive_message_length": 64 * 1024,
  };
}

function encode(request: ConnectRequest): Buffer {
  const bytes = toBinary(ConnectRequestSchema, request);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function identity(bytes: Buffer): Buffer {
  return bytes;
}
