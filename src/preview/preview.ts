// The preview: a listener of its own, on which browsers reach ports of sandboxes with short-lived tokens, and what it says by itself.

import type { IncomingMessage, ServerResponse } from "node:http";
import { SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Ports } from "../ports/ports.ts";
import type { Port } from "../ports/refusals.ts";
import { admit, cookieNames, ownBearer, ownCookies } from "./admission.ts";
import { inwardHeaders } from "./headers.ts";
import { openListener, type PreviewListener, type TlsSource, type Upgrade } from "./listener.ts";
import { PortAgent } from "./port-agent.ts";
import { carry } from "./proxy.ts";
import type { Tokens } from "./token.ts";
import { say, sayError } from "./words.ts";

export interface PreviewOptions {
  readonly ports: Ports;
  readonly tokens: Tokens;
  /** Below which each port of a sandbox has a name. */
  readonly domain: string;
  /** Absent: plain HTTP. */
  readonly tls?: TlsSource;
  /** Someone uses the sandbox, until what is returned is called. */
  readonly attach: (id: string) => () => void;
  readonly log: Log;
  /** See ListenerOptions. */
  readonly patienceMs?: number;
}

export interface PreviewGrant {
  readonly url: string;
  readonly token: string;
  readonly expiresAtMs: number;
}

export interface Preview {
  /** Resolves to the address, with the port that was really taken. */
  listen(address: { readonly host: string; readonly port: number }): Promise<string>;
  /** @throws SandboxdError as Ports.check, and PREVIEW_UNAVAILABLE before it listens. */
  grant(port: Port & { readonly ttlMs: number }): PreviewGrant;
  /** Reads the certificate anew; on failure nothing changes. */
  reload(): Promise<void>;
  close(): Promise<void>;
}

export function createPreview(options: PreviewOptions): Preview {
  const { ports, tokens, domain, tls, attach, log } = options;
  const scheme = tls === undefined ? "http" : "https";
  const agents = {
    keeping: new PortAgent(ports, { keepAlive: true }),
    once: new PortAgent(ports, { keepAlive: false }),
  };
  let listener: PreviewListener | undefined;
  let portSuffix = "";

  async function serve(request: IncomingMessage, response: ServerResponse, upgrade?: Upgrade): Promise<void> {
    const { method = "GET", url: target = "", headers } = request;
    const asked = { method, target, headers, isUpgrade: upgrade !== undefined };
    const admission = admit(asked, { tokens, domain, scheme, nowMs: Date.now() });
    if (admission.kind === "refused") return say(request, response, admission.status, admission.message);
    const { record, port } = admission.grant;
    const about = { sandboxId: record.id, port };
    try {
      ports.check(about);
    } catch (error) {
      return sayError(request, response, error);
    }
    if (admission.kind === "session") return begin(response, admission, headers.host ?? "");
    const detach = attach(record.id);
    try {
      await carry({
        agents,
        request,
        response,
        grant: admission.grant,
        target: admission.target,
        headers: inwardHeaders({
          raw: request.rawHeaders,
          ownCookies,
          isOwnAuthorization: (value) => ownBearer(value, tokens) !== undefined,
          peer: request.socket.remoteAddress ?? "",
          scheme,
          host: headers.host ?? "",
        }),
        ownCookies,
        ...(upgrade === undefined ? {} : { upgrade }),
      });
    } catch (error) {
      log.debug({ sandbox: record.id, err: error }, "preview failed");
      sayError(request, response, error);
    } finally {
      detach();
    }
  }

  /** The token goes into a cookie of this host alone, which scripts cannot read, and out of the address. */
  function begin(
    response: ServerResponse,
    {
      token,
      target,
      grant,
    }: { readonly token: string; readonly target: string; readonly grant: { readonly expiresAtMs: number } },
    host: string,
  ): void {
    const seconds = Math.max(1, Math.floor((grant.expiresAtMs - Date.now()) / 1_000));
    // Lax, not Strict: the link may be on another site's page, and the address that it leads to must open too
    const cookie = `${cookieNames[scheme]}=${token}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Lax`;
    response.writeHead(302, {
      location: `${scheme}://${host}${target}`,
      "set-cookie": scheme === "https" ? `${cookie}; Secure` : cookie,
      "cache-control": "no-store",
      "referrer-policy": "no-referrer",
      "content-length": "0",
    });
    response.end();
  }

  return {
    async listen(address) {
      listener = await openListener({
        ...address,
        serve,
        log,
        ...(tls === undefined ? {} : { tls }),
        ...(options.patienceMs === undefined ? {} : { patienceMs: options.patienceMs }),
      });
      const isUsual = listener.port === (scheme === "https" ? 443 : 80);
      portSuffix = isUsual ? "" : `:${listener.port}`;
      return listener.address;
    },
    grant({ sandboxId, port, ttlMs }) {
      const record = ports.check({ sandboxId, port });
      if (listener === undefined) {
        throw new SandboxdError("PREVIEW_UNAVAILABLE", "this host has no preview listener", {
          hint: "set preview.address in the daemon's configuration; ForwardPort works without",
        });
      }
      const expiresAtMs = Math.floor((Date.now() + ttlMs) / 1_000) * 1_000;
      const token = tokens.issue(record, port, expiresAtMs);
      const url = `${scheme}://${tokens.labelOf(record, port)}.${domain}${portSuffix}/?sandboxd_token=${token}`;
      return { url, token, expiresAtMs };
    },
    reload: async () => listener?.reload(),
    async close() {
      agents.keeping.destroy();
      agents.once.destroy();
      await listener?.close();
    },
  };
}
