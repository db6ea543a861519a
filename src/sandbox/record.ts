// What is kept of a sandbox: what was asked, what is wanted now, and what was last seen. Plain values, stored as JSON.

import type { NetworkPlace, SandboxNetworkSpec } from "../network/policy.ts";

export type State =
  | "PENDING"
  | "PULLING"
  | "CREATING"
  | "RUNNING"
  | "BACKING_OFF"
  | "PAUSING"
  | "PAUSED"
  | "RESUMING"
  | "STOPPING"
  | "STOPPED"
  | "FAILED"
  | "DELETING"
  | "DELETED";

/** Why a sandbox changed its state; mirrors `sandboxd.v1.TransitionReason`. */
export type TransitionReason =
  | "REQUESTED"
  | "PROGRESS"
  | "COMPLETED"
  | "EXITED"
  | "SIGNALED"
  | "OOM_KILLED"
  | "IMAGE_UNAVAILABLE"
  | "IMAGE_UNSUPPORTED"
  | "COMMAND_UNUSABLE"
  | "START_FAILED"
  | "HARDENING_MISMATCH"
  | "LIMIT_UNENFORCED"
  | "ENGINE_UNAVAILABLE"
  | "CONTAINER_LOST"
  | "HOST_REBOOT"
  | "EXTERNAL"
  | "ADOPTED"
  | "EXPIRED"
  | "IDLE"
  | "MAX_LIFETIME"
  | "UNHEALTHY"
  | "EVICTED"
  | "DRAINED"
  | "RETIRED"
  | "WORKSPACE_UNAVAILABLE"
  | "NETWORK_UNAVAILABLE";

export interface Actor {
  readonly kind: "CALLER" | "POLICY" | "EXTERNAL" | "HOST" | "SANDBOX";
  readonly identity: string;
}

export const actors = {
  policy: { kind: "POLICY", identity: "" },
  external: { kind: "EXTERNAL", identity: "" },
  host: { kind: "HOST", identity: "" },
  sandbox: { kind: "SANDBOX", identity: "" },
} as const satisfies Record<string, Actor>;

export interface Transition {
  readonly from: State | undefined;
  readonly to: State;
  readonly reason: TransitionReason;
  readonly message: string;
  readonly actor: Actor;
  readonly timeMs: number;
}

export interface BlockIo {
  readonly readBytesPerSecond?: number;
  readonly writeBytesPerSecond?: number;
  readonly readOperationsPerSecond?: number;
  readonly writeOperationsPerSecond?: number;
}

/** Complete: every default is filled in. Units in names. */
export interface Resources {
  readonly cpuMillis: number;
  readonly cpuRequestMillis: number;
  readonly memoryBytes: number;
  readonly memoryRequestBytes: number;
  readonly pids: number;
  readonly openFiles: number;
  readonly tmpfsBytes: number;
  readonly tmpfsInodes: number;
  readonly shmBytes: number;
  readonly logBytes: number;
  readonly blockIo?: BlockIo;
}

/** When a sandbox ends by itself. */
export interface Lifetime {
  readonly ttlMs?: number;
  readonly maxLifetimeMs?: number;
  readonly idleTimeoutMs?: number;
  readonly idleCpuMillis: number;
  readonly onExpiry: "DELETE" | "STOP" | "PAUSE";
  readonly warningMs: number;
}

/** Whether its main command is started again after it ended. */
export interface RestartPolicy {
  readonly mode: "NEVER" | "ON_FAILURE" | "UNLESS_STOPPED";
  readonly delayMs: number;
  readonly maxDelayMs: number;
  readonly maxAttempts: number;
  readonly windowMs: number;
  readonly resetAfterMs: number;
}

export type Probe =
  | { readonly kind: "exec"; readonly command: readonly string[] }
  | { readonly kind: "tcp"; readonly port: number }
  | { readonly kind: "http"; readonly port: number; readonly path: string };

/** How it is found out whether it works. */
export interface HealthCheck {
  readonly probe: Probe;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly startPeriodMs: number;
  readonly retries: number;
  readonly onUnhealthy: "REPORT" | "RESTART" | "STOP";
}

/** What the main command is sent first when it is to stop. */
export const stopSignals = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM"] as const;
export type StopSignal = (typeof stopSignals)[number];

/** The workspace that a sandbox sees at /workspace: one of its tenant. */
export interface WorkspaceUse {
  readonly workspaceId: string;
  readonly readOnly: boolean;
}

/** A directory in memory beside /tmp. */
export interface TmpfsMount {
  readonly path: string;
  readonly sizeBytes: number;
  readonly inodes: number;
}

/** A directory that the host's configuration shares, by its name there. */
export interface SharedMount {
  readonly name: string;
  readonly path: string;
}

/** A volume that the host's configuration declares, by its name there. */
export interface VolumeMount {
  readonly name: string;
  readonly path: string;
  readonly readOnly: boolean;
}

/** What a sandbox sees besides its image. What there is none of, is absent, as in specs of earlier releases. */
export interface Mounts {
  readonly workspace?: WorkspaceUse;
  readonly tmpfs?: readonly TmpfsMount[];
  readonly shared?: readonly SharedMount[];
  readonly volumes?: readonly VolumeMount[];
  /** Of a writable root layer; the root is read-only otherwise. */
  readonly rootBytes?: number;
}

/** The effective spec: a request laid over its template and the host's defaults. */
export interface Spec extends Mounts, SandboxNetworkSpec {
  readonly template: string;
  readonly image: string;
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly resources: Resources;
  readonly stopGraceMs: number;
  readonly stopSignal: StopSignal;
  readonly lifetime: Lifetime;
  readonly restart: RestartPolicy;
  readonly healthCheck?: HealthCheck;
  /** Under pressure lower ones go before higher ones. */
  readonly priority: number;
}

/** What specs of releases before these fields were there mean. */
export const earlierSpec = {
  stopSignal: "SIGTERM",
  lifetime: { idleCpuMillis: 10, onExpiry: "DELETE", warningMs: 60_000 },
  restart: {
    mode: "NEVER",
    delayMs: 5_000,
    maxDelayMs: 300_000,
    maxAttempts: 3,
    windowMs: 600_000,
    resetAfterMs: 600_000,
  },
  priority: 0,
} as const satisfies Partial<Spec>;

export interface Exit {
  readonly code: number;
  readonly signal: number;
  readonly oomKilled: boolean;
  readonly oomKills: number;
  readonly finishedAtMs: number;
  /** What its samples and its log told of the run. Absent in records of earlier releases. */
  readonly report?: ExitReport;
}

export interface ExitReport {
  readonly ageMs: number;
  readonly maxMemoryBytes: number;
  readonly memoryLimitHits: number;
  /** Bounds: 0 to 1. */
  readonly throttledShare: number;
  readonly pidsRefused: number;
  readonly logTail: readonly string[];
}

export interface Restarts {
  /** By policy, since the acceptance. */
  readonly count: number;
  /** When those that count against the policy's bound happened. Steady time. */
  readonly recentMs: readonly number[];
  /** When the next start is due. Steady time. */
  readonly nextAtMs?: number;
}

export interface Health {
  readonly state: "STARTING" | "HEALTHY" | "UNHEALTHY";
  readonly failures: number;
  readonly message: string;
  /** When the last probe ended, by the wall clock. */
  readonly timeMs?: number;
}

export interface Stuck {
  /** By the wall clock. */
  readonly sinceMs: number;
  readonly evidence: string;
}

export interface SandboxRecord {
  readonly id: string;
  /** Made anew with each accepted create, so that a container of an earlier sandbox of the same id is told apart. */
  readonly instance: string;
  readonly tenant: string;
  readonly uid: number;
  /** Whether its container is below the tenant's cgroup. Absent in records of earlier releases, which had none. */
  readonly isInTenantCgroup?: true;
  /** Version of the toolbox in its container. Absent in records of earlier releases, and where the host had none: it has none. */
  readonly toolbox?: string;
  readonly spec: Spec;
  /** On its tenant's network. Absent with NONE. */
  readonly place?: NetworkPlace;
  /** Of the request as the caller made it: the same request again means the same sandbox. */
  readonly requestHash: string;
  readonly generation: number;
  readonly createdAtMs: number;
  /** As createdAtMs, in steady time: see `clock.ts`. Absent in records of earlier releases. */
  readonly acceptedAtMs?: number;
  readonly wanted: "RUNNING" | "PAUSED" | "STOPPED" | "DELETED";
  readonly state: State;
  readonly transition: Transition;
  readonly stopGraceMs: number;
  readonly containerId: string;
  readonly imageId: string;
  readonly imageVolumes: readonly string[];
  /** The engine's text for the start of the run that was last told as ended: another text is another run. */
  readonly endedRun: string;
  /** The boot of the machine in which the sandbox was last seen running. */
  readonly bootId: string;
  readonly startedAtMs?: number;
  /** As startedAtMs, in steady time. Absent once that run was told as ended. */
  readonly ranSinceMs?: number;
  readonly exit?: Exit;
  /** When its lease ends. Steady time. */
  readonly expiresAtMs?: number;
  /** The expiry of which a warning was told last. */
  readonly warnedOfMs?: number;
  readonly restarts?: Restarts;
  readonly health?: Health;
  readonly stuck?: Stuck;
}

/** Whether its request counts against the host. */
export function holdsCapacity(record: SandboxRecord): boolean {
  const { state, transition } = record;
  // what held none does not come to hold some by being removed
  const held = state === "DELETING" ? transition.from : state;
  return isToLive(record) || (held !== "STOPPED" && held !== "FAILED");
}

/**
 * A record of this release from one of any release. What it has stays in its order: a container's labels are signed as text,
 * and one that was created before the daemon ended is compared with what is read back.
 */
export function completed<T extends Pick<SandboxRecord, "spec">>(record: T): T {
  const absent = Object.entries(earlierSpec).filter(([key]) => !Object.hasOwn(record.spec, key));
  return { ...record, spec: { ...record.spec, ...Object.fromEntries(absent) } };
}

/** Whether it is to have a container with processes in it. */
export function isToLive({ wanted }: SandboxRecord): boolean {
  return wanted === "RUNNING" || wanted === "PAUSED";
}

/** Whether nobody need wait for what happens next: it is as wanted, or as near to that as it will be for a while. */
export function isSettled(record: SandboxRecord): boolean {
  switch (record.state) {
    case "RUNNING":
    case "BACKING_OFF":
      return record.wanted === "RUNNING";
    case "PAUSED":
      return record.wanted === "PAUSED";
    case "STOPPED":
    case "FAILED":
      return record.wanted === "STOPPED";
    default:
      return false;
  }
}
