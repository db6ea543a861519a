// Starts a process by way of the toolbox. What is to be is kept before the sandbox is asked, so that a daemon that is killed in between
// finds what came of it.

import type { Clock } from "../sandbox/clock.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Connection, Link } from "../toolbox/connection.ts";
import { garbled } from "../toolbox/protocol.ts";
import { keptBytes } from "./acknowledgement.ts";
import { orphanMs } from "./held.ts";
import { ask, type KeeperStatus, wordOf } from "./keeper.ts";
import type { ProcessRecord } from "./record.ts";
import { startRefusal } from "./refusals.ts";
import type { ProcessSpec } from "./request.ts";

export interface Launch {
  readonly sandbox: SandboxRecord;
  readonly id: string;
  /** Of the request. */
  readonly hash: string;
  readonly spec: ProcessSpec;
  readonly keep: (record: ProcessRecord) => void;
  /** What was kept is to be forgotten: it did not start. */
  readonly drop: (record: ProcessRecord) => void;
}

export interface Launched {
  readonly record: ProcessRecord;
  readonly connection: Connection;
  readonly status: KeeperStatus;
}

export interface LauncherOptions {
  readonly link: Pick<Link, "open">;
  readonly clock: Pick<Clock, "nowMs">;
  readonly oomCount: (sandboxId: string) => number | undefined;
}

/**
 * The longest that a program is held back because the daemon itself is behind, which takes what it gets at once: who reads slowly
 * does not come into it.
 */
const ownWaitMs = 1_000;

export function createLauncher({ link, clock, oomCount }: LauncherOptions) {
  return async ({ sandbox, id, hash, spec, keep, drop }: Launch): Promise<Launched> => {
    const { command, env, hasInput, timeoutMs, ...kept } = spec;
    const record: ProcessRecord = {
      ...kept,
      id,
      sandboxId: sandbox.id,
      instance: sandbox.instance,
      ...(sandbox.ranSinceMs === undefined ? {} : { ranSinceMs: sandbox.ranSinceMs }),
      requestHash: hash,
      command,
      acceptedAtMs: clock.nowMs(),
      startedAtMs: Date.now(),
      oomKills: oomCount(sandbox.id) ?? 0,
      state: "STARTING",
    };
    keep(record);
    let connection: Connection | undefined;
    try {
      connection = await link.open(sandbox.id);
      await connection.send(
        ask.start({
          id,
          command,
          env,
          workingDir: spec.workingDir,
          hasInput,
          ...(spec.terminal === undefined ? {} : { terminal: spec.terminal }),
          timeoutMs,
          graceMs: spec.killGraceMs,
          orphanMs: spec.killsOnDisconnect ? orphanMs : 0,
          retainBytes: keptBytes(spec.retainedBytes),
          waitMs: spec.waits ? spec.maxWaitMs : ownWaitMs,
        }),
      );
      const frame = await connection.receive();
      if (frame === undefined) throw garbled("it ends without an answer");
      const word = wordOf(frame);
      if (word.kind === "status") return { record, connection, status: word.status };
      if (word.kind !== "error") throw garbled(`${word.kind} instead of a status`);
      throw startRefusal(word, {
        sandboxId: sandbox.id,
        processId: id,
        executable: command[0] ?? "",
        workingDir: spec.workingDir,
        pidsLimit: sandbox.spec.resources.pids,
      });
    } catch (error) {
      connection?.close();
      drop(record);
      throw error;
    }
  };
}
