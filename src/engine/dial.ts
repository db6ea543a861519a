// Two calls past the client's own methods, through its connection: what those methods drop or hold in memory is needed.

import type { Readable } from "node:stream";
import type Docker from "dockerode";
import type { containerCreateOptions } from "./host-config.ts";

interface Created {
  readonly id: string;
  readonly warnings: readonly string[];
}

/** Creates past the client's own method, which drops the engine's warnings: a discarded limit is told nowhere else. */
export function dialCreate(
  docker: Docker,
  { name, ...body }: ReturnType<typeof containerCreateOptions>,
  abortSignal: AbortSignal,
): Promise<Created> {
  const call = {
    path: "/containers/create?",
    method: "POST",
    // told apart, or the client would send the body in the address as well
    options: { _query: { name }, _body: body },
    abortSignal,
    statusCodes: {
      201: true,
      400: "bad parameter",
      404: "no such image",
      409: "conflict",
      500: "server error",
    },
  };
  return new Promise((resolve, reject) => {
    docker.modem.dial(call, (error: Error | null, answer: unknown) => {
      if (error !== null) return reject(error);
      const { Id, Warnings } = answer as { Id: string; Warnings?: readonly string[] | null };
      resolve({ id: Id, warnings: Warnings ?? [] });
    });
  });
}

/** Opens a log as a stream, also when it is not followed: the client's own method would hold all of it in memory. */
export function dialLogs(docker: Docker, id: string, query: object): Promise<Readable> {
  const call = {
    path: `/containers/${id}/logs?`,
    method: "GET",
    isStream: true,
    options: query,
    statusCodes: { 200: true, 404: "no such container", 500: "server error" },
  };
  return new Promise((resolve, reject) => {
    docker.modem.dial(call, (error: Error | null, answer: unknown) =>
      error === null ? resolve(answer as Readable) : reject(error),
    );
  });
}
