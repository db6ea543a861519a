// The connection to the daemon: one HTTP/2 session for all that one command asks.

import { readFileSync } from "node:fs";
import type { ClientHttp2Stream, Http2Session } from "node:http2";
import { connect } from "node:net";
import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { UsageError } from "./arguments.ts";
import type { Target } from "./target.ts";

export interface Connection {
  client<Service extends DescService>(service: Service): Client<Service>;
}

/** Of one stream's answers that were not read yet; then the daemon waits. */
const windowBytes = 1024 * 1024;
/** Of all streams' together: 64 KiB unless said otherwise, which is a quarter of the throughput. */
const sessionWindowBytes = 4 * windowBytes;

/** A host that is gone without a word is noticed by then. Not on a unix socket: there the kernel tells. */
const ping = { pingIntervalMs: 10_000, pingTimeoutMs: 10_000 };

/** Node has no option for the window of a session. */
class WideSessionManager extends Http2SessionManager {
  readonly #widened = new WeakSet<Http2Session>();

  override async request(...call: Parameters<Http2SessionManager["request"]>): Promise<ClientHttp2Stream> {
    const stream = await super.request(...call);
    const { session } = stream;
    if (session !== undefined && !this.#widened.has(session)) {
      this.#widened.add(session);
      session.setLocalWindowSize(sessionWindowBytes);
    }
    return stream;
  }
}

/** Connects when first asked, and again after the connection broke. @throws UsageError for a file that cannot be read. */
export function createConnection(target: Target): Connection {
  const transport = transportTo(target);
  return { client: (service) => createClient(service, transport) };
}

function transportTo(target: Target): Transport {
  const settings = { settings: { initialWindowSize: windowBytes } };
  switch (target.kind) {
    case "unix": {
      const baseUrl = "http://sandboxd";
      const sessionManager = new WideSessionManager(baseUrl, undefined, {
        ...settings,
        createConnection: () => connect(target.path),
      });
      return createGrpcTransport({ baseUrl, sessionManager, acceptCompression: [] });
    }
    case "plain": {
      const sessionManager = new WideSessionManager(target.url, ping, settings);
      return createGrpcTransport({ baseUrl: target.url, sessionManager, acceptCompression: [] });
    }
    case "tls": {
      const sessionManager = new WideSessionManager(target.url, ping, {
        ...settings,
        cert: contentOf("--cert", target.cert),
        key: contentOf("--key", target.key),
        ...(target.ca === undefined ? {} : { ca: contentOf("--ca", target.ca) }),
      });
      return createGrpcTransport({ baseUrl: target.url, sessionManager });
    }
    default:
      return target satisfies never;
  }
}

function contentOf(option: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new UsageError(`${option}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
