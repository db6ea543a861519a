// Two ways to do the same in one sandbox, the daemon's and the engine's, measured in turn.

import type { ClientHttp2Session } from "node:http2";
import type { Client } from "@connectrpc/connect";
import type { FilesystemService } from "../gen/sandboxd/v1/filesystem_service_pb.ts";
import type { ProcessService } from "../gen/sandboxd/v1/process_service_pb.ts";
import type { BareExec } from "./bare-exec.ts";

/** Runs that do not count. */
export const warmUps = 5;

/** Where it is measured. */
export interface Inside {
  readonly sandboxId: string;
  readonly processes: Client<typeof ProcessService>;
  readonly files: Client<typeof FilesystemService>;
  /** To the same daemon, for what is sent past the protocol library. */
  readonly session: ClientHttp2Session;
  readonly bare: BareExec;
}

export interface Measured {
  readonly values: readonly number[];
  readonly baseline: readonly number[];
}

/** Milliseconds of each, one after the other, the first of them alternating. */
export async function inTurn(
  runs: number,
  ours: () => Promise<unknown>,
  theirs: () => Promise<unknown>,
): Promise<Measured> {
  const values: number[] = [];
  const baseline: number[] = [];
  const timed = async (into: number[], run: () => Promise<unknown>) => {
    const began = performance.now();
    await run();
    into.push(performance.now() - began);
  };
  const warm = Math.min(warmUps, Math.ceil(runs / 5));
  for (let run = -warm; run < runs; run += 1) {
    const turns = [() => timed(values, ours), () => timed(baseline, theirs)];
    for (const turn of run % 2 === 0 ? turns : turns.toReversed()) await turn();
  }
  return { values: values.slice(warm), baseline: baseline.slice(warm) };
}

export const megabytesPerSecond = (bytes: number, ms: number): number => bytes / 1e3 / ms;

export function assertRead(got: number, wanted: number): void {
  if (got !== wanted) throw new Error(`${got} instead of ${wanted}`);
}
