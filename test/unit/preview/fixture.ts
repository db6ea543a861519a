// A preview on this machine, in front of programs on its loopback interface, and a browser that says what the test wants.

import { type IncomingHttpHeaders, type OutgoingHttpHeaders, request } from "node:http";
import { onTestFinished } from "vitest";
import type { PortRange } from "../../../src/network/policy.ts";
import { createLog } from "../../../src/observe/log.ts";
import { createPorts, type PortLimits, type Ports } from "../../../src/ports/ports.ts";
import { createPreview, type Preview } from "../../../src/preview/preview.ts";
import { createTokens, type Tokens } from "../../../src/preview/token.ts";
import type { SandboxRecord } from "../../../src/sandbox/record.ts";
import { openBench } from "../ports/fixture.ts";
import { recordOf } from "../sandbox/fixture.ts";

export interface Previewed {
  readonly preview: Preview;
  readonly ports: Ports;
  readonly tokens: Tokens;
  readonly port: number;
  /** Sandboxes that there are. */
  readonly records: Map<string, SandboxRecord>;
  allowed: readonly PortRange[];
  /** How many use each sandbox now. */
  readonly attached: Map<string, number>;
  /** The host name and the token of a port, of sandbox "one" unless said. */
  grant(port: number, sandboxId?: string, ttlMs?: number): { readonly host: string; readonly token: string };
  ask(asked: Ask): Promise<Answer>;
}

export interface Ask {
  readonly host: string;
  readonly path?: string;
  readonly method?: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: Buffer;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  readonly body: Buffer;
  readonly text: string;
}

const anyPort: readonly PortRange[] = [{ protocol: "TCP", first: 1, last: 65_535 }];
export const cookieOf = (token: string) => ({ cookie: `sandboxd_preview=${token}` });

export const runningOf = (id: string, change: Partial<SandboxRecord> = {}): SandboxRecord => ({
  ...recordOf({ state: "RUNNING" }),
  id,
  instance: `instance-of-${id}`,
  containerId: `container-of-${id}`,
  startedAtMs: 1_000,
  ...change,
});

export async function openPreview({ limits = {} as Partial<PortLimits> } = {}): Promise<Previewed> {
  const { forwarders } = await openBench();
  const records = new Map([
    ["one", runningOf("one")],
    ["two", runningOf("two")],
  ]);
  const attached = new Map<string, number>();
  const find = (id: string) => records.get(id);
  // there is one toolbox: all sandboxes are this machine
  const ports = createPorts({
    forwarders: { connect: ({ port }, waiting) => forwarders.connect({ sandboxId: "one", port }, waiting) },
    repository: { get: find },
    allowedPorts: () => self.allowed,
    limits,
  });
  const tokens = createTokens({ key: Buffer.alloc(32, 7), find });
  const count = (id: string, by: number) => attached.set(id, (attached.get(id) ?? 0) + by);
  const preview = createPreview({
    ports,
    tokens,
    domain: "preview.test",
    attach(id) {
      count(id, 1);
      return () => void count(id, -1);
    },
    log: createLog({ level: "fatal" }),
    patienceMs: 1_000,
  });
  const address = await preview.listen({ host: "127.0.0.1", port: 0 });
  onTestFinished(async () => {
    await preview.close();
    ports.close();
  });
  const self: Previewed = {
    preview,
    ports,
    tokens,
    port: Number(address.split(":")[1]),
    records,
    allowed: anyPort,
    attached,
    grant(port, sandboxId = "one", ttlMs = 60_000) {
      const { url, token } = preview.grant({ sandboxId, port, ttlMs });
      return { host: new URL(url).host, token };
    },
    ask: (asked) => ask(self.port, asked),
  };
  return self;
}

function ask(port: number, { host, path = "/", method = "GET", headers = {}, body }: Ask): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port, path, method, headers: { ...headers, host } });
    sent.on("error", reject);
    sent.on("response", (response) => {
      const parts: Buffer[] = [];
      response.on("error", reject);
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("end", () => {
        const whole = Buffer.concat(parts);
        const { statusCode = 0, headers: told, rawHeaders } = response;
        resolve({ status: statusCode, headers: told, rawHeaders, body: whole, text: whole.toString() });
      });
    });
    sent.end(body);
  });
}
