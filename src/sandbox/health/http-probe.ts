// Asks a server inside a sandbox over HTTP, from within the sandbox's network and from outside of everything else of it.

import { ProgramLate, runProgram } from "../../programs.ts";
import { seconds } from "../lifetime.ts";
import type { Outcome } from "./verdict.ts";

export interface HttpProbeRequest {
  /** An open network namespace. */
  readonly network: number;
  readonly port: number;
  /** Path and query: printable ASCII without spaces, as the contract bounds it. */
  readonly path: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** Of no tenant, and of nobody else: see `[tenants] uid_range`. */
const nobody = "65534";

const refusedCode = 7;
/** "HTTP/1.1 200": more is not read, so no answer can be long, slow or clever enough to matter. */
const answerBytes = 12;

/**
 * Node cannot enter a network namespace. A shell can be started in one in 2 ms, which is a fiftieth of what another Node
 * takes; it opens the connection itself, tells that by a "+", and hands on the first bytes of the answer: all that anybody
 * looks at. It starts no other program: on a host that is short of processes it could begin and not end, and the sandbox
 * would be blamed. Reading ends at a zero byte, which no answer of HTTP has, and after a time of its own, in case that the
 * daemon is killed meanwhile.
 */
const script = `exec 4<>"/dev/tcp/127.0.0.1/$1" || exit ${refusedCode}
printf +
printf 'GET %s HTTP/1.1\\r\\nHost: 127.0.0.1:%s\\r\\nUser-Agent: sandboxd\\r\\nAccept: */*\\r\\nConnection: close\\r\\n\\r\\n' "$2" "$1" >&4
IFS= read -r -t "$3" -d '' -n ${answerBytes} answer <&4 && answer=\${answer:-?}
printf %s "$answer"`;

export async function probeHttp({
  network,
  port,
  path,
  timeoutMs,
  signal,
}: HttpProbeRequest): Promise<Outcome> {
  const net = `--net=/proc/${process.pid}/fd/${network}`;
  const enter = ["nsenter", net, `--setgid=${nobody}`, `--setuid=${nobody}`, "--"];
  const shell = ["bash", "--noprofile", "--norc", "-c", script, "probe"];
  const values = [String(port), path, String(Math.ceil(timeoutMs / 1_000) + 1)];
  try {
    const { code, output } = await runProgram([...enter, ...shell, ...values], { timeoutMs, signal });
    if (code === refusedCode && output === "") return failed(`port ${port} takes no connection`);
    if (!output.startsWith("+")) throw new Error(`nsenter and bash cannot be used: exit code ${code}`);
    return judged(output.slice(1), port);
  } catch (error) {
    if (error instanceof ProgramLate) return failed(`no answer on port ${port} within ${seconds(timeoutMs)}`);
    throw error;
  }
}

/** A status from 200 to 399 is success. */
function judged(answer: string, port: number): Outcome {
  const [, status] = /^HTTP\/1\.[01] ([1-5]\d\d)$/.exec(answer) ?? [];
  if (status === undefined) {
    return failed(
      answer === "" ? `port ${port} closed without an answer` : `port ${port} does not speak HTTP`,
    );
  }
  const isSuccess = Number(status) >= 200 && Number(status) < 400;
  return { kind: isSuccess ? "passed" : "failed", message: `status ${status}` };
}

const failed = (message: string): Outcome => ({ kind: "failed", message });
