// Who may send a request to which port: the token that it carries, against the host name that it names. A pure decision.

import type { IncomingHttpHeaders } from "node:http";
import { cookiesOf } from "./headers.ts";
import type { Grant, Tokens } from "./token.ts";

export interface Asked {
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  readonly headers: IncomingHttpHeaders;
  readonly isUpgrade: boolean;
}

export type Admission =
  /** `target` is what the program inside is asked for. */
  | { readonly kind: "admitted"; readonly grant: Grant; readonly target: string }
  /** The token goes from the address into a cookie. */
  | { readonly kind: "session"; readonly grant: Grant; readonly token: string; readonly target: string }
  | { readonly kind: "refused"; readonly status: 400 | 401 | 403 | 404; readonly message: string };

export interface AdmissionOptions {
  readonly tokens: Tokens;
  readonly domain: string;
  readonly scheme: "http" | "https";
  readonly nowMs: number;
}

/** A browser keeps a cookie of the first to the very host that set it, but only over TLS (RFC 6265bis, 4.1.3). */
export const cookieNames = { https: "__Host-sandboxd_preview", http: "sandboxd_preview" } as const;
export const ownCookies: readonly string[] = Object.values(cookieNames);

const tokenParameter = "sandboxd_token";

export function admit(asked: Asked, options: AdmissionOptions): Admission {
  const host = asked.headers.host?.toLowerCase() ?? "";
  const name = host.replace(/:\d*$/, "");
  if (!asked.target.startsWith("/")) return refused(400, "the address is not of a path");
  const suffix = `.${options.domain}`;
  return name.endsWith(suffix)
    ? admitToHost(asked, { ...options, host, label: name.slice(0, -suffix.length) })
    : admitToPath(asked, options);
}

interface HostOptions extends AdmissionOptions {
  readonly host: string;
  readonly label: string;
}

/** "8080-first-0123456789ab.preview.example.com": for browsers. */
function admitToHost(asked: Asked, options: HostOptions): Admission {
  const { tokens, label, nowMs, scheme } = options;
  const { rest, token } = withoutToken(asked.target);
  const given = token ?? bearerOf(asked, tokens);
  if (given !== undefined) {
    const grant = tokens.verify(given, nowMs);
    if (grant === undefined) return unknown;
    if (tokens.labelOf(grant.record, grant.port) !== label) return elsewhere;
    const isForBrowser = token !== undefined && !asked.isUpgrade && isReading(asked);
    return isForBrowser
      ? { kind: "session", grant, token, target: rest }
      : { kind: "admitted", grant, target: rest };
  }
  let isOfAnother = false;
  for (const { name, value } of cookiesOf(asked.headers.cookie ?? "")) {
    if (name !== cookieNames[scheme]) continue;
    const grant = tokens.verify(value, nowMs);
    if (grant === undefined) continue;
    if (tokens.labelOf(grant.record, grant.port) !== label) {
      isOfAnother = true;
      continue;
    }
    // the browser sends the cookie by itself, whoever has it send the request
    return isOwn(asked, options)
      ? { kind: "admitted", grant, target: rest }
      : refused(403, "another site sent this request");
  }
  return isOfAnother ? elsewhere : unknown;
}

/** "/first/8080/index.html": for programs. All sandboxes would be one site to a browser, so no cookie counts here, and none is set. */
function admitToPath(asked: Asked, { tokens, nowMs }: AdmissionOptions): Admission {
  const [, id, digits, rest = ""] = /^\/([a-z0-9-]{1,63})\/(\d{1,5})(\/.*|\?.*)?$/s.exec(asked.target) ?? [];
  const given = bearerOf(asked, tokens);
  if (given === undefined) return id === undefined ? refused(404, "there is no such preview") : unknown;
  const grant = tokens.verify(given, nowMs);
  if (grant === undefined) return unknown;
  if (id !== grant.record.id || Number(digits) !== grant.port) return elsewhere;
  return { kind: "admitted", grant, target: rest.startsWith("/") ? rest : `/${rest}` };
}

function refused(status: 400 | 401 | 403 | 404, message: string): Admission {
  return { kind: "refused", status, message };
}

const unknown = refused(401, "this preview needs a token that is good: ask for a new one by CreatePreview");
const elsewhere = refused(403, "the token is of another port or sandbox");

const isReading = ({ method }: Asked): boolean => method === "GET" || method === "HEAD";

/** Takes the token out of the query, and leaves all else of it as it was written. */
function withoutToken(target: string): { readonly rest: string; readonly token?: string } {
  const at = target.indexOf("?");
  if (at === -1) return { rest: target };
  const parts = target.slice(at + 1).split("&");
  const isToken = (part: string) => part.startsWith(`${tokenParameter}=`);
  const token = parts.find(isToken)?.slice(tokenParameter.length + 1);
  if (token === undefined) return { rest: target };
  const query = parts.filter((part) => !isToken(part)).join("&");
  return { rest: `${target.slice(0, at)}${query === "" ? "" : `?${query}`}`, token };
}

/** The preview's own, and no other program's. */
export function ownBearer(authorization: string, tokens: Tokens): string | undefined {
  const [, token] = /^bearer +(\S+) *$/i.exec(authorization) ?? [];
  return token !== undefined && tokens.isToken(token) ? token : undefined;
}

const bearerOf = ({ headers }: Asked, tokens: Tokens) => ownBearer(headers.authorization ?? "", tokens);

/**
 * Whether a page of this very host sent it, or a person who opened its address: the names of all sandboxes are one site to a browser, unless
 * the domain is on the Public Suffix List. Browsers say so by themselves (https://www.w3.org/TR/fetch-metadata/); older ones by Origin.
 */
function isOwn(asked: Asked, { scheme, host }: HostOptions): boolean {
  const { origin } = asked.headers;
  const site = asked.headers["sec-fetch-site"];
  if (site === undefined) return origin === undefined || origin === `${scheme}://${host}`;
  if (site === "same-origin" || site === "none") return true;
  const isOpened =
    asked.headers["sec-fetch-mode"] === "navigate" && asked.headers["sec-fetch-dest"] === "document";
  return isOpened && isReading(asked) && !asked.isUpgrade;
}
