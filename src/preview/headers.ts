// Which headers pass through the preview: what belongs to a connection stays on it, what is the preview's own stays outside, and nothing that a
// sandbox says reaches beyond its own host name.

/** Names and values in turn, as Node has them. */
export type RawHeaders = readonly string[];

export type Header = readonly [name: string, value: string];

/** RFC 9110, 7.6.1, and what older programs used. Those that Connection names come in addition. */
const ofConnection: ReadonlySet<string> = new Set([
  ...["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"],
  ...["proxy-authenticate", "proxy-authorization", "proxy-authentication-info", "http2-settings"],
]);

/** What only the preview says, or sees to itself. */
const notInward: ReadonlySet<string> = new Set([
  ...["expect", "forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"],
  ...["x-forwarded-port", "x-forwarded-server", "x-forwarded-prefix"],
]);

/** Cookies of, and connections to, other names than the sandbox's own. */
const notOutward: ReadonlySet<string> = new Set(["alt-svc", "clear-site-data"]);

function pairsOf(raw: RawHeaders): readonly Header[] {
  const pairs: Header[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) pairs.push([raw[at] ?? "", raw[at + 1] ?? ""]);
  return pairs;
}

/** Without what belongs to the connection that they came on. */
function endToEnd(raw: RawHeaders): readonly Header[] {
  const pairs = pairsOf(raw);
  const named = new Set(
    pairs
      .filter(([name]) => name.toLowerCase() === "connection")
      .flatMap(([, value]) => value.split(",").map((token) => token.trim().toLowerCase())),
  );
  return pairs.filter(([name]) => {
    const lower = name.toLowerCase();
    // a caller must not have these taken out
    return !ofConnection.has(lower) && (!named.has(lower) || lower === "host" || lower === "cookie");
  });
}

export interface Inward {
  readonly raw: RawHeaders;
  /** Names of cookies that are the preview's. */
  readonly ownCookies: readonly string[];
  /** Whether a value of Authorization is the preview's. */
  readonly isOwnAuthorization: (value: string) => boolean;
  readonly peer: string;
  readonly scheme: "http" | "https";
  readonly host: string;
}

/** Of a request, as the program inside gets them; Host is as the browser said it. */
export function inwardHeaders({ raw, ownCookies, isOwnAuthorization, ...told }: Inward): Header[] {
  const kept: Header[] = [];
  for (const [name, value] of endToEnd(raw)) {
    const lower = name.toLowerCase();
    if (notInward.has(lower) || (lower === "authorization" && isOwnAuthorization(value))) continue;
    if (lower !== "cookie") {
      kept.push([name, value]);
      continue;
    }
    const cookies = cookiesOf(value).filter(({ name: cookie }) => !ownCookies.includes(cookie));
    if (cookies.length > 0) kept.push([name, cookies.map(({ text }) => text).join("; ")]);
  }
  return [
    ...kept,
    ["X-Forwarded-For", told.peer],
    ["X-Forwarded-Host", told.host],
    ["X-Forwarded-Proto", told.scheme],
  ];
}

/** Of an answer, as the browser gets them. */
export function outwardHeaders(raw: RawHeaders, ownCookies: readonly string[]): Header[] {
  const kept: Header[] = [];
  for (const [name, value] of endToEnd(raw)) {
    const lower = name.toLowerCase();
    if (notOutward.has(lower)) continue;
    if (lower !== "set-cookie") kept.push([name, value]);
    else if (!ownCookies.includes(cookiesOf(value)[0]?.name ?? "")) kept.push([name, ownHostOnly(value)]);
  }
  return kept;
}

/** A cookie without its Domain: with one, other sandboxes' host names would get it too. */
function ownHostOnly(cookie: string): string {
  return cookie
    .split(";")
    .filter((part, index) => index === 0 || !/^\s*domain\s*(=|$)/i.test(part))
    .join(";");
}

export interface Cookie {
  readonly name: string;
  readonly value: string;
  readonly text: string;
}

/** Of a Cookie header. */
export function cookiesOf(header: string): readonly Cookie[] {
  return header.split(";").flatMap((part) => {
    const text = part.trim();
    if (text === "") return [];
    const at = text.indexOf("=");
    // without "=" it is a value without a name (RFC 6265bis, 5.6)
    return at === -1
      ? [{ name: "", value: text, text }]
      : [{ name: text.slice(0, at).trim(), value: text.slice(at + 1).trim(), text }];
  });
}
