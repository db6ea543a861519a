// A door in front of an engine: a unix socket that passes every call on, but for those that a rule makes go wrong. For
// faults that a real engine does not do on demand.

import { mkdtempSync, rmSync } from "node:fs";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
  type ServerResponse,
} from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";

/** What goes wrong with a call. */
export type Fault =
  /** It reaches the engine late, even if the caller gave up meanwhile. */
  | { readonly kind: "late"; readonly ms: number }
  /** It never reaches the engine, which answers with this. */
  | { readonly kind: "answer"; readonly status: number; readonly body: unknown }
  /** It never reaches the engine, and is never answered. */
  | { readonly kind: "silence" }
  /** The engine does it, and the connection breaks before its answer: all of it, or after half of its body. */
  | { readonly kind: "cut"; readonly after: "request" | "half" }
  /** Its answer arrives in pieces of so many bytes; `behind` is told how many bytes are still to arrive of what the engine said. */
  | { readonly kind: "pieces"; readonly bytes: number; readonly behind?: (bytes: number) => void }
  /**
   * `reached` is called once the call has come so far: it has arrived, the engine has done it, or its answer was handed to the
   * caller. Before that it does not go on; one that `arrived` never does.
   */
  | { readonly kind: "point"; readonly at: Point; readonly reached: () => Promise<void> }
  /** What is asked, or answered, is changed on the way. JSON. */
  | { readonly kind: "change"; readonly asked?: Change; readonly answered?: Change };

export type Point = "arrived" | "done" | "answered";

type Json = Readonly<Record<string, unknown>>;
type Change = (value: Json) => Json;

export interface Rule {
  /** Default: any. */
  readonly method?: string;
  /** Matched against the path without version and query, as in `/containers/create`. Default: any. */
  readonly path?: RegExp;
  /** How often it applies. Default: always. */
  readonly times?: number;
  /** Of the calls that match, the share to which it applies, by a fixed sequence. Default: all. */
  readonly share?: number;
  readonly fault: Fault;
}

/** A call that came to the door. */
export interface Call {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  /** When it came, and when its answer or connection ended; undefined until then. Monotonic. */
  readonly beganMs: number;
  readonly endedMs: number | undefined;
}

/** Versions of the API, as in "1.41". */
export interface Speech {
  readonly least: string;
  readonly most: string;
}

export interface EngineDoor {
  readonly socket: string;
  /** Plays an engine that speaks these versions of the API, and refuses calls in others, as engines do. */
  speak(versions: Speech): void;
  /** All calls so far, in the order in which they came. */
  readonly calls: readonly Call[];
  /** Adds a rule; the first that matches counts. Returns how to take it away. */
  rule(rule: Rule): () => void;
  /** Takes away all rules, and lets the engine speak for itself. */
  mend(): void;
  /** Breaks every connection. */
  cutAll(): void;
  close(): Promise<void>;
}

/** Opens a door to the engine behind `engine`. Close it in every case. */
export async function openDoor(engine: string): Promise<EngineDoor> {
  const directory = mkdtempSync(join(tmpdir(), "door-"));
  const socket = join(directory, "docker.sock");
  const rules: { readonly rule: Rule; left: number }[] = [];
  const calls: { -readonly [K in keyof Call]: Call[K] }[] = [];
  const random = sequenceOf(1);
  let speech: Speech | undefined;

  function faultOf(method: string, path: string): Fault | undefined {
    const found = rules.find(
      ({ rule, left }) =>
        left > 0 &&
        (rule.method ?? method) === method &&
        (rule.path?.test(path) ?? true) &&
        (rule.share === undefined || random() < rule.share),
    );
    if (found === undefined) return undefined;
    found.left -= 1;
    return found.rule.fault;
  }

  const server = createServer((incoming, outgoing) => {
    const { pathname, search } = new URL(incoming.url ?? "", "http://engine");
    const [, version, path = pathname] = /^\/v([\d.]+)(\/.*)$/.exec(pathname) ?? [];
    const method = incoming.method ?? "";
    const call = { method, path, query: search, beganMs: performance.now(), endedMs: undefined };
    calls.push(call);
    outgoing.once("close", () => Object.assign(call, { endedMs: performance.now() }));
    const fault = speech === undefined ? faultOf(method, path) : spoken(speech, version, path);
    // the engine behind speaks no other version
    if (speech !== undefined) incoming.url = path + search;
    // a caller that gives up, and a connection that is cut, end here
    serve(engine, incoming, outgoing, fault).catch(() => outgoing.destroy());
  });
  // an answer may take as long as the engine's event stream
  server.requestTimeout = 0;
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  return {
    socket,
    calls,
    rule(rule) {
      const entry = { rule, left: rule.times ?? Number.POSITIVE_INFINITY };
      rules.push(entry);
      return () => {
        entry.left = 0;
      };
    },
    speak(versions) {
      speech = versions;
    },
    mend() {
      rules.splice(0);
      speech = undefined;
    },
    cutAll: () => server.closeAllConnections(),
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** What becomes of a call in this version; undefined for what is passed on. */
function spoken({ least, most }: Speech, version: string | undefined, path: string): Fault | undefined {
  const refused = (message: string) => ({ kind: "answer", status: 400, body: { message } }) as const;
  const minor = (one: string) => Number(one.split(".")[1]);
  if (version !== undefined && minor(version) > minor(most)) {
    return refused(`client version ${version} is too new. Maximum supported API version is ${most}`);
  }
  if (version !== undefined && minor(version) < minor(least)) {
    const advice = "please upgrade your client to a newer version";
    return refused(
      `client version ${version} is too old. Minimum supported API version is ${least}, ${advice}`,
    );
  }
  if (path !== "/version") return undefined;
  return { kind: "change", answered: (value) => ({ ...value, ApiVersion: most, MinAPIVersion: least }) };
}

async function serve(
  engine: string,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  fault: Fault | undefined,
): Promise<void> {
  const asked = await buffer(incoming);
  if (fault?.kind === "silence") return;
  if (fault?.kind === "answer") {
    outgoing.writeHead(fault.status, { "content-type": "application/json" }).end(JSON.stringify(fault.body));
    return;
  }
  if (fault?.kind === "late") await sleep(fault.ms);
  if (fault?.kind === "point" && fault.at === "arrived") return fault.reached();
  const change = fault?.kind === "change" ? fault : undefined;
  const body = changed(asked, change?.asked);
  const answer = await passOn(engine, incoming, body, fault?.kind === "late" ? undefined : outgoing);
  if (fault?.kind === "cut" && fault.after === "request") {
    // only now has the engine done what was asked
    answer.destroy();
    outgoing.destroy();
    return;
  }
  const { connection: _, ...headers } = answer.headers;
  const status = answer.statusCode ?? 500;
  if (fault?.kind === "point") {
    const whole = await buffer(answer);
    if (fault.at === "done") await fault.reached();
    outgoing.writeHead(status, headers);
    await new Promise<void>((resolve) => outgoing.end(whole, resolve));
    if (fault.at === "answered") await fault.reached();
  } else if (fault?.kind === "pieces") {
    outgoing.writeHead(status, headers).flushHeaders();
    await pipeline(answer, inPieces(fault), outgoing);
  } else if (fault?.kind === "cut" || change?.answered !== undefined) {
    const whole = changed(await buffer(answer), change?.answered);
    const { "transfer-encoding": _chunked, ...plain } = headers;
    outgoing.writeHead(status, { ...plain, "content-length": whole.length });
    if (fault?.kind !== "cut") outgoing.end(whole);
    else outgoing.write(whole.subarray(0, whole.length / 2), () => outgoing.destroy());
  } else {
    outgoing.writeHead(status, headers).flushHeaders();
    await pipeline(answer, outgoing);
  }
}

/** Asks the engine. A caller that goes away takes its call back, where there is one. */
function passOn(
  engine: string,
  { method, url, headers }: IncomingMessage,
  body: Buffer,
  caller: ServerResponse | undefined,
): Promise<IncomingMessage> {
  const { "content-length": _, ...kept } = headers;
  const own: IncomingHttpHeaders = { ...kept, connection: "close" };
  if (body.length > 0) own["content-length"] = String(body.length);
  return new Promise((resolve, reject) => {
    const onward = request({ socketPath: engine, method, path: url, headers: own, agent: false });
    onward.once("response", resolve).once("error", reject).end(body);
    caller?.once("close", () => onward.destroy());
  });
}

function changed(body: Buffer, change: Change | undefined): Buffer {
  if (change === undefined) return body;
  return Buffer.from(JSON.stringify(change(JSON.parse(body.toString()) as Json)));
}

function inPieces({ bytes, behind }: Extract<Fault, { readonly kind: "pieces" }>) {
  return async function* (source: AsyncIterable<Buffer>) {
    for await (const chunk of source) {
      for (let at = 0; at < chunk.length; at += bytes) {
        yield chunk.subarray(at, at + bytes);
        behind?.(Math.max(0, chunk.length - at - bytes));
        // a turn of the event loop, so that the pieces are written one by one
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
  };
}

/** Numbers between 0 and 1, the same for each seed: a linear congruential generator. */
function sequenceOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
