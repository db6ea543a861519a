// Says in plain words, with figures, how a sandbox is and why. A function of its record and of what was measured.

import type { WindowSummary } from "../monitor/window.ts";
import { expiryOf, seconds } from "./lifetime.ts";
import type { SandboxRecord } from "./record.ts";

export interface Finding {
  /** A stable word. */
  readonly kind: string;
  readonly message: string;
  readonly hint?: string;
}

export interface Explanation {
  readonly summary: string;
  readonly findings: readonly Finding[];
}

/** What is known besides the record. */
export interface Circumstances {
  readonly nowMs: number;
  /** Of the last minute, while it runs. */
  readonly window?: WindowSummary;
  readonly idleSinceMs?: number;
  /** What it shares with others, while it runs. */
  readonly totals?: readonly Total[];
  /** What its workspace holds, if it has one and that was read. */
  readonly workspace?: WorkspaceRoom;
  /** What is seen of its network, if it has one. */
  readonly network?: NetworkFacts;
  /** Why no sandbox can be started or looked at now: the host's conditions in words. */
  readonly hostProblems: readonly string[];
}

/** What several sandboxes together use of what they may have together. */
export interface Total {
  /** "its tenant's sandboxes". */
  readonly whose: string;
  readonly memoryBytes: number;
  /** Undefined: not bounded. */
  readonly memoryLimitBytes: number | undefined;
  readonly pids: number;
  readonly pidsLimit: number | undefined;
}

export interface NetworkFacts {
  /** Whether the kernel holds its rules. */
  readonly enforced: boolean;
  /** How much was refused, by why. */
  readonly denials: Readonly<Record<keyof typeof refusals, number>>;
}

export interface WorkspaceRoom {
  readonly id: string;
  readonly bytes: number;
  readonly limitBytes: number;
  /** Undefined where they are not counted. */
  readonly inodes: number | undefined;
  readonly limitInodes: number | undefined;
}

/** From this share of periods on, being held back is worth telling. */
const tellingThrottle = 0.1;
/** From this share of its limit on, memory is worth telling. */
const tellingMemory = 0.9;
/** The same of a workspace, which is meant to be filled. */
const tellingDisk = 0.95;

export function explain(record: SandboxRecord, around: Circumstances): Explanation {
  const findings = [
    ...ofState(record, around),
    ...ofExit(record),
    ...ofWork(record, around),
    ...ofTotals(record, around),
    ...ofWorkspace(around),
    ...ofNetwork(around),
    ...ofTime(record, around),
  ];
  return { summary: summaryOf(record, findings), findings };
}

function summaryOf({ id, state, transition }: SandboxRecord, findings: readonly Finding[]): string {
  const subject = `Sandbox "${id}"`;
  switch (state) {
    case "RUNNING": {
      const [first] = findings;
      return first === undefined
        ? `${subject} runs, and nothing holds it back.`
        : `${subject} runs; ${first.message}.`;
    }
    case "FAILED":
      return `${subject} failed: ${transition.message}.`;
    case "STOPPED":
      return `${subject} is stopped: ${transition.message}.`;
    case "BACKING_OFF":
      return `${subject} waits for its next start: ${transition.message}.`;
    default:
      return `${subject} is ${state}: ${transition.message}.`;
  }
}

function ofState(record: SandboxRecord, { hostProblems, nowMs }: Circumstances): readonly Finding[] {
  const { state, transition, stuck, restarts, spec } = record;
  const reason = transition.reason.toLowerCase();
  const found: Finding[] = [];
  if (state === "FAILED" || state === "STOPPED") {
    found.push({ kind: reason, message: transition.message, ...hintFor(transition.reason) });
  }
  if (state === "BACKING_OFF" && restarts?.nextAtMs !== undefined) {
    const inMs = Math.max(0, restarts.nextAtMs - nowMs);
    const message = `its main command is started again in ${seconds(inMs)}; so far ${restarts.count} restarts, ${restarts.recentMs.length} of them within ${seconds(spec.restart.windowMs)}`;
    found.push({ kind: "backing_off", message });
  }
  if (stuck !== undefined) {
    found.push({
      kind: "stuck",
      message: `it was told to end and does not: ${stuck.evidence}`,
      hint: "a process in state D waits in the kernel, mostly for a disk or a network file system; see dmesg",
    });
  }
  const isWaiting =
    state === "PENDING" || state === "PULLING" || state === "CREATING" || state === "STOPPING";
  if (isWaiting) {
    found.push({
      kind: state.toLowerCase(),
      message: `${transition.message}, since ${ago(transition.timeMs)}`,
    });
    for (const problem of hostProblems) found.push({ kind: "host", message: problem });
  }
  return found;
}

function hintFor(reason: string): Pick<Finding, "hint"> {
  const hints: Readonly<Record<string, string>> = {
    OOM_KILLED: "give it more memory_bytes, or make its work smaller",
    IMAGE_UNAVAILABLE: "pull the image on the host, or check its name",
    COMMAND_UNUSABLE: "check command, args and working_dir against the image",
    LIMIT_UNENFORCED: "ask without that limit, or enable the cgroup controller on the host",
    CONTAINER_LOST: "somebody removed its container past this API",
    EXTERNAL: "somebody stopped or killed its container past this API",
    EXPIRED: "renew it in time with RenewSandbox, or create it with a longer lifetime.ttl",
    EVICTED:
      "the host was short of something; use another host, or ask for larger requests or a higher priority",
  };
  const hint = hints[reason];
  return hint === undefined ? {} : { hint };
}

function ofExit({ exit, state, spec }: SandboxRecord): readonly Finding[] {
  if (exit === undefined || state === "RUNNING") return [];
  const found: Finding[] = [];
  const { report } = exit;
  const how = exit.signal === 0 ? `exit code ${exit.code}` : `signal ${exit.signal}`;
  const age = report === undefined ? "" : ` after ${seconds(report.ageMs)}`;
  found.push({ kind: "exit", message: `its main command last ended with ${how}${age}` });
  if (exit.oomKills > 0 && !exit.oomKilled) {
    found.push({
      kind: "child_oom_killed",
      message: `${exit.oomKills} of its processes were killed at the memory limit, not its main command`,
    });
  }
  if (report === undefined) return found;
  if (report.pidsRefused > 0) {
    found.push({
      kind: "pids_refused",
      message: `${report.pidsRefused} forks were refused at its limit of ${spec.resources.pids} processes`,
      hint: "give it more pids",
    });
  }
  if (report.throttledShare >= tellingThrottle) {
    found.push({
      kind: "cpu_throttled",
      message: `it was held back at its CPU limit in ${percent(report.throttledShare)} of the time`,
    });
  }
  if (report.logTail.length > 0) {
    found.push({ kind: "last_output", message: `its last line was: ${report.logTail.at(-1)}` });
  }
  return found;
}

function ofWork({ spec, health, state }: SandboxRecord, { window }: Circumstances): readonly Finding[] {
  const found: Finding[] = [];
  if (health?.state === "UNHEALTHY") {
    found.push({
      kind: "unhealthy",
      message: `its health check failed ${health.failures} times in a row: ${health.message}`,
    });
  }
  if (window === undefined || state !== "RUNNING") return found;
  const { resources } = spec;
  if (window.cpu.throttledShare >= tellingThrottle) {
    found.push({
      kind: "cpu_throttled",
      message: `it is held back at its limit of ${resources.cpuMillis} millicores in ${percent(window.cpu.throttledShare)} of the periods of the last minute`,
      hint: "give it more cpu_millis with UpdateSandbox",
    });
  }
  if (window.memory.maxWorkingSetBytes >= tellingMemory * resources.memoryBytes) {
    found.push({
      kind: "memory_short",
      message: `it uses up to ${window.memory.maxWorkingSetBytes} of its ${resources.memoryBytes} bytes of memory, and met the limit ${window.memory.limitHits} times in the last minute`,
      hint: "give it more memory_bytes with UpdateSandbox",
    });
  }
  if (window.pids.refusedForks > 0) {
    found.push({
      kind: "pids_refused",
      message: `${window.pids.refusedForks} forks were refused at its limit of ${resources.pids} processes in the last minute`,
      hint: "give it more pids with UpdateSandbox",
    });
  }
  return found;
}

function ofTotals({ state }: SandboxRecord, { totals = [] }: Circumstances): readonly Finding[] {
  if (state !== "RUNNING") return [];
  return totals.flatMap(({ whose, memoryBytes, memoryLimitBytes, pids, pidsLimit }) => {
    const found: Finding[] = [];
    if (memoryLimitBytes !== undefined && memoryBytes >= tellingMemory * memoryLimitBytes) {
      found.push({
        kind: "total_memory_short",
        message: `${whose} together use ${memoryBytes} of their ${memoryLimitBytes} bytes of memory, and are killed for more`,
        hint: "stop one of them, or raise the quota of memory_bytes with PutTenant",
      });
    }
    if (pidsLimit !== undefined && pids >= tellingMemory * pidsLimit) {
      found.push({
        kind: "total_pids_short",
        message: `${whose} together have ${pids} of their ${pidsLimit} processes, and are refused more`,
        hint: "stop one of them, or raise the quota of pids with PutTenant",
      });
    }
    return found;
  });
}

function ofWorkspace({ workspace }: Circumstances): readonly Finding[] {
  if (workspace === undefined) return [];
  const { id, bytes, limitBytes, inodes = 0, limitInodes = Number.POSITIVE_INFINITY } = workspace;
  const what =
    bytes >= tellingDisk * limitBytes
      ? `${bytes} of its ${limitBytes} bytes`
      : inodes >= tellingDisk * limitInodes
        ? `${inodes} of its ${limitInodes} files`
        : undefined;
  if (what === undefined) return [];
  return [
    {
      kind: "workspace_full",
      message: `workspace "${id}" holds ${what}: writes to /workspace fail with "no space left" or "quota exceeded"`,
      hint: "remove what is not needed, or raise its limits with UpdateWorkspace",
    },
  ];
}

/** What was refused on its network, in words. */
const refusals = {
  policy: "packets to addresses or ports that its egress policy does not allow",
  host: "packets to this host",
  peer: "packets to other sandboxes",
  spoofed: "packets with an address that is not its own",
  connections: "connections above its bounds",
  packets: "packets above its bound",
  queriesRefused: "questions for names that its egress policy does not allow, or that were too many",
  sni: "TLS connections to a server name that its egress policy does not allow, or to none",
} as const;

function ofNetwork({ network }: Circumstances): readonly Finding[] {
  if (network === undefined) return [];
  const { enforced, denials } = network;
  const refused = Object.entries(refusals).flatMap(([reason, what]) => {
    const count = denials[reason as keyof typeof refusals];
    return count === 0 ? [] : [`${count} ${what}`];
  });
  return [
    ...(enforced
      ? []
      : [
          {
            kind: "network_cut_off",
            message:
              "nothing of its network passes: the kernel does not hold the rules of this host's networks",
            hint: "CheckHost tells why",
          },
        ]),
    ...(refused.length === 0
      ? []
      : [
          {
            kind: "network_denied",
            message: `it was refused ${refused.join(", ")}`,
            hint: "SANDBOX_NETWORK_DENIED events tell where to; the tenant's and its own egress policy say what it may",
          },
        ]),
  ];
}

function ofTime(record: SandboxRecord, { nowMs, idleSinceMs }: Circumstances): readonly Finding[] {
  const found: Finding[] = [];
  const expiry = expiryOf(record);
  const { idleTimeoutMs, onExpiry } = record.spec.lifetime;
  const what = onExpiry.toLowerCase();
  if (Number.isFinite(expiry) && expiry > nowMs) {
    found.push({ kind: "expires", message: `it expires in ${seconds(expiry - nowMs)} (${what})` });
  }
  if (idleTimeoutMs !== undefined && idleSinceMs !== undefined) {
    const message = `it has been idle for ${seconds(nowMs - idleSinceMs)} of its ${seconds(idleTimeoutMs)} (${what})`;
    found.push({ kind: "idle", message });
  }
  return found;
}

const percent = (share: number): string => `${Math.round(share * 100)} %`;

const ago = (wallMs: number): string => `${seconds(Math.max(0, Date.now() - wallMs))} ago`;
