// What each kind of probe does to a sandbox, and what its answer means.

import { closeSync } from "node:fs";
import type { CgroupPlace } from "../../engine/cgroup-path.ts";
import { openNetworkFile } from "../../engine/member-file.ts";
import type { Runtime } from "../../engine/runtime.ts";
import { listensOn } from "../../monitor/tcp-table.ts";
import { seconds } from "../lifetime.ts";
import type { SandboxRecord } from "../record.ts";
import { probeHttp } from "./http-probe.ts";
import type { Probing } from "./prober.ts";
import type { Outcome } from "./verdict.ts";

export interface ProbesOptions {
  readonly runtime: Pick<Runtime, "exec">;
  /** Where the engine puts a sandbox's container; undefined while it was never reached. */
  readonly place: (record: SandboxRecord) => CgroupPlace | undefined;
  /** Whether the engine is known not to be usable now. */
  readonly isEngineAway: () => boolean;
  /** Does something to a sandbox that is not the sandbox's own activity. */
  readonly unobserved: <T>(id: string, job: () => Promise<T>) => Promise<T>;
}

interface Trying {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

const mostOutputBytes = 1_024;

export function createProbes({ runtime, place, isEngineAway, unobserved }: ProbesOptions): Probing {
  async function exec(
    { containerId, uid, spec }: SandboxRecord,
    command: readonly string[],
    { timeoutMs, signal }: Trying,
  ): Promise<Outcome> {
    if (isEngineAway()) return untried("the engine is away");
    const user = `${uid}:${uid}`;
    const { workingDir } = spec;
    const request = { command, user, workingDir, timeoutMs, maxOutputBytes: mostOutputBytes };
    const result = await runtime.exec(containerId, request, { signal });
    const output = result.output.toString("utf8").trim();
    switch (result.kind) {
      case "timeout":
        return failed(`the command did not end within ${seconds(timeoutMs)}`);
      case "excess":
        return failed("the command wrote too much");
      case "ended": {
        const message = `exit code ${result.exitCode}${output === "" ? "" : `: ${output}`}`;
        return { kind: result.exitCode === 0 ? "passed" : "failed", message };
      }
    }
  }

  async function tcp(record: SandboxRecord, port: number): Promise<Outcome> {
    const isListening = await Promise.all(
      (["net/tcp", "net/tcp6"] as const).map((file) =>
        opened(record, file, (descriptor) => listensOn(descriptor, port)),
      ),
    );
    // without the first table there is no network to look at; the second is absent where the kernel has no IPv6
    if (isListening[0] === undefined) return untried("it has no process");
    return isListening.includes(true)
      ? { kind: "passed", message: `port ${port} listens` }
      : failed(`nothing listens on port ${port}`);
  }

  async function http(record: SandboxRecord, port: number, path: string, trying: Trying): Promise<Outcome> {
    const outcome = await opened(record, "ns/net", (network) =>
      probeHttp({ network, port, path, ...trying }),
    );
    return outcome ?? untried("it has no process");
  }

  async function opened<T>(
    record: SandboxRecord,
    file: Parameters<typeof openNetworkFile>[1],
    use: (descriptor: number) => Promise<T>,
  ): Promise<T | undefined> {
    const where = place(record);
    const descriptor = where === undefined ? undefined : openNetworkFile(where, file);
    if (descriptor === undefined) return undefined;
    try {
      return await use(descriptor);
    } finally {
      closeSync(descriptor);
    }
  }

  return (record, { probe, timeoutMs }, { signal }) => {
    const trying = { timeoutMs, signal };
    switch (probe.kind) {
      case "exec":
        return unobserved(record.id, () => exec(record, probe.command, trying));
      case "tcp":
        return tcp(record, probe.port);
      case "http":
        return unobserved(record.id, () => http(record, probe.port, probe.path, trying));
    }
  };
}

const failed = (message: string): Outcome => ({ kind: "failed", message });
const untried = (message: string): Outcome => ({ kind: "untried", message });
