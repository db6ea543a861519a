// The engine's own way to measure containers: a stream of statistics for each.

import type { Readable } from "node:stream";
import Docker from "dockerode";

export interface EngineStats {
  /** Samples received so far, of all containers together. */
  count(): number;
  close(): void;
}

/** Opens the streams and counts what comes. The engine sends a sample a second on each, if it can. */
export async function streamEngineStats(
  socketPath: string,
  containers: readonly string[],
): Promise<EngineStats> {
  const docker = new Docker({ socketPath });
  let samples = 0;
  const streams = await Promise.all(
    // the client's types promise less than the response that it gives
    containers.map(async (id) => (await docker.getContainer(id).stats({ stream: true })) as Readable),
  );
  for (const stream of streams) {
    // each sample is one line of JSON
    stream.on("data", (chunk: Buffer) => {
      samples += chunk.reduce((lines, byte) => lines + (byte === 0x0a ? 1 : 0), 0);
    });
  }
  return {
    count: () => samples,
    close() {
      for (const stream of streams) {
        // a stream that is cut off ends with an error that says only that
        stream.on("error", () => undefined);
        stream.destroy();
      }
    },
  };
}
