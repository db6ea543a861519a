// Which scheduler to try next: the configured endpoints in turn, unless one of them names another.

import { invalidField } from "../errors.ts";

/** One address of a scheduler. */
export interface Endpoint {
  /** As configured: "https://host:port". */
  readonly url: string;
  /** Whether it is spoken to with TLS. */
  readonly secure: boolean;
  /** A name, or an address without brackets: what the scheduler's certificate must be for. */
  readonly host: string;
  /** Host and port as gRPC names them; the name is resolved anew for each session. */
  readonly target: string;
}

export interface Endpoints {
  /** The endpoint for the next session. */
  next(): Endpoint;
  /**
   * Makes the endpoint that a scheduler named the next one, once; if that fails too, the turn goes on.
   * Returns why not, or undefined. A scheduler that is spoken to with TLS may not send hosts to one without.
   */
  redirect(from: Endpoint, url: string): string | undefined;
}

/** Throws INVALID_FIELD for an empty list or anything but "http(s)://host:port". */
export function createEndpoints(urls: readonly string[]): Endpoints {
  const configured = urls.map(parseEndpoint);
  let turn = 0;
  let named: Endpoint | undefined;
  if (configured.length === 0) {
    throw invalidField("scheduler.endpoints", "is empty");
  }
  return {
    next() {
      const endpoint = named ?? configured[turn++ % configured.length];
      named = undefined;
      if (endpoint === undefined) throw new RangeError("no endpoint");
      return endpoint;
    },
    redirect(from, url) {
      const endpoint = readEndpoint(url);
      if (endpoint === undefined) return "is not the URL of a host";
      if (from.secure && !endpoint.secure) return "would give up TLS";
      named = endpoint;
      return undefined;
    },
  };
}

function parseEndpoint(url: string): Endpoint {
  const endpoint = readEndpoint(url);
  if (endpoint === undefined) {
    throw invalidField("scheduler.endpoints", `${JSON.stringify(url)} is not "https://host:port"`);
  }
  return endpoint;
}

function readEndpoint(text: string): Endpoint | undefined {
  const url = text.length <= 512 && /^https?:\/\/[^/?#@]+$/.test(text) ? URL.parse(text) : null;
  if (url === null || url.hostname === "") return undefined;
  const secure = url.protocol === "https:";
  const port = url.port === "" ? (secure ? 443 : 80) : Number(url.port);
  if (port === 0) return undefined;
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  return { url: text, secure, host, target: `dns:///${url.hostname}:${port}` };
}
