// Connections to the programs inside, as Node's HTTP client wants them: kept for a few seconds for the next request to the same port.

import type { ClientRequest, RequestOptions } from "node:http";
import { Duplex } from "node:stream";
import { Agent } from "../http.ts";
import type { PortConnection } from "../ports/forwarder.ts";
import type { Ports } from "../ports/ports.ts";
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
      (connection) => callback?.(null, streamOver(connection)),
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

/** Node calls these of a socket without asking whether it has them. */
const ofSocket = { setKeepAlive() {}, setNoDelay() {}, setTimeout() {}, ref() {}, unref() {} };

/** As a stream of Node's; closed when it is destroyed. */
function streamOver(connection: PortConnection): Duplex {
  const stream = new Duplex({
    // a program that closes has answered
    allowHalfOpen: false,
    read() {
      connection.receive().then(
        (bytes) => stream.push(bytes ?? null),
        (error: Error) => stream.destroy(error),
      );
    },
    write(chunk: Buffer, _encoding, done) {
      connection.send(chunk).then(() => done(), done);
    },
    final(done) {
      connection.end();
      done();
    },
    destroy(error, done) {
      connection.close();
      done(error);
    },
  });
  return Object.assign(stream, ofSocket);
}
