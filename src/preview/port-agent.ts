// Connections to the programs inside, as Node's HTTP client wants them: kept for a few seconds for the next request to the same port.

import type { ClientRequest, RequestOptions } from "node:http";
import type { Duplex } from "node:stream";
import { Agent } from "../http.ts";
import type { Ports } from "../ports/ports.ts";
import { PortStream } from "./port-stream.ts";
import type { Grant } from "./token.ts";

const keptMs = 4_000;
const mostKept = 16;

/** What a request is made with: Node hands it on to its agent. */
export interface PortOptions extends RequestOptions {
  readonly grant: Grant;
}

type Callback = (error: Error | null, stream: Duplex) => void;

export class PortAgent extends Agent {
  readonly #ports: Ports;
  readonly #timers = new WeakMap<object, NodeJS.Timeout>();

  constructor(ports: Ports, { keepAlive }: { readonly keepAlive: boolean }) {
    super({ keepAlive, maxFreeSockets: mostKept });
    this.#ports = ports;
  }

  /** Of one run of the sandbox: what is kept never answers for another. */
  override getName(options?: RequestOptions): string {
    const { record, port } = (options as PortOptions).grant;
    return JSON.stringify([port, record.instance, record.containerId, record.startedAtMs]);
  }

  override createConnection(options: RequestOptions, callback?: Callback): undefined {
    const { record, port } = (options as PortOptions).grant;
    this.#ports.connect({ sandboxId: record.id, port }).then(
      (connection) => callback?.(null, new PortStream(connection)),
      (error: Error) => callback?.(error, undefined as never),
    );
    return undefined;
  }

  override keepSocketAlive(stream: Duplex): boolean {
    this.#timers.set(
      stream,
      setTimeout(() => stream.destroy(), keptMs),
    );
    return true;
  }

  override reuseSocket(stream: Duplex, request: ClientRequest): void {
    clearTimeout(this.#timers.get(stream));
    this.#timers.delete(stream);
    request.reusedSocket = true;
  }
}
