// PortService: connections to ports of sandboxes as streams of bytes, and tokens for the preview listener.

import type { ServiceImpl } from "@connectrpc/connect";
import type { ForwardPortRequest, PortService } from "../../gen/sandboxd/v1/port_service_pb.ts";
import { invalidField } from "../errors.ts";
import type { PortConnection } from "../ports/forwarder.ts";
import type { Ports } from "../ports/ports.ts";
import { millisecondsOf, timestampOf } from "./time-codec.ts";

/** A token for one port of one sandbox, and where a browser uses it. */
export interface PreviewAccess {
  readonly url: string;
  readonly token: string;
  readonly expiresAtMs: number;
}

export interface PortServiceOptions {
  readonly ports: Ports;
  /** @throws SandboxdError as Ports.check, and PREVIEW_UNAVAILABLE. */
  readonly grantPreview: (port: {
    readonly sandboxId: string;
    readonly port: number;
    readonly ttlMs: number;
  }) => PreviewAccess;
  /** Someone uses the sandbox, until what is returned is called. */
  readonly attach: (id: string) => () => void;
}

const defaultTtlMs = 3_600_000;
const nothing = new Uint8Array();

export function createPortService(options: PortServiceOptions): ServiceImpl<typeof PortService> {
  const { ports, grantPreview, attach } = options;
  return {
    async *forwardPort(requests, { signal }) {
      const asked = requests[Symbol.asyncIterator]();
      const { sandboxId, port, data } = firstOf(await asked.next());
      const connection = await ports.connect({ sandboxId, port }, { signal });
      const detach = attach(sandboxId);
      let failure: unknown;
      const sending = sendAll(connection, data, asked).catch((error: unknown) => {
        failure = error;
        connection.close();
      });
      try {
        yield { data: nothing };
        for (;;) {
          const bytes = await connection.receive();
          if (bytes === undefined) break;
          yield { data: bytes };
          // what is large was sent before the next is asked for (`response-writer.ts`), and what is small is not used again
          connection.release(bytes);
        }
        yield { data: nothing, end: true };
        await sending;
        if (failure !== undefined) throw failure;
      } catch (error) {
        signal.throwIfAborted();
        throw failure ?? error;
      } finally {
        connection.close();
        detach();
      }
    },
    async createPreview({ sandboxId, port, ttl }) {
      const ttlMs = ttl === undefined ? defaultTtlMs : millisecondsOf(ttl);
      const { url, token, expiresAtMs } = grantPreview({ sandboxId, port, ttlMs });
      return { url, token, expireTime: timestampOf(expiresAtMs) };
    },
  };
}

function firstOf(first: IteratorResult<ForwardPortRequest>): ForwardPortRequest {
  if (first.done === true || first.value.sandboxId === "")
    throw invalidField("sandbox_id", "is required in the first request");
  if (first.value.port === 0) throw invalidField("port", "is required in the first request");
  return first.value;
}

/** To the end of the requests. */
async function sendAll(
  connection: PortConnection,
  first: Uint8Array,
  rest: AsyncIterator<ForwardPortRequest>,
): Promise<void> {
  await connection.send(first);
  for (;;) {
    const { done, value } = await rest.next();
    if (done === true) break;
    if (value.sandboxId !== "") throw invalidField("sandbox_id", "is of the first request alone");
    if (value.port !== 0) throw invalidField("port", "is of the first request alone");
    await connection.send(value.data);
  }
  connection.end();
}
