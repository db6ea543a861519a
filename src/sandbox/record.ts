// What is kept of a sandbox: what was asked, what is wanted now, and what was last seen. Plain values, stored as JSON.

export type State =
  | "PENDING"
  | "PULLING"
  | "CREATING"
  | "RUNNING"
  | "PAUSED"
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
  | "ADOPTED";

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

/** The effective spec: a request laid over its template and the host's defaults. */
export interface Spec {
  readonly template: string;
  readonly image: string;
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly resources: Resources;
  readonly networkMode: "NONE";
  readonly stopGraceMs: number;
}

export interface Exit {
  readonly code: number;
  readonly signal: number;
  readonly oomKilled: boolean;
  readonly oomKills: number;
  readonly finishedAtMs: number;
}

export interface SandboxRecord {
  readonly id: string;
  /** Made anew with each accepted create, so that a container of an earlier sandbox of the same id is told apart. */
  readonly instance: string;
  readonly tenant: string;
  readonly uid: number;
  readonly spec: Spec;
  /** Of the request as the caller made it: the same request again means the same sandbox. */
  readonly requestHash: string;
  readonly generation: number;
  readonly createdAtMs: number;
  readonly wanted: "RUNNING" | "STOPPED" | "DELETED";
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
  readonly exit?: Exit;
}

/** Whether its request counts against the host. */
export function holdsCapacity(record: SandboxRecord): boolean {
  return record.wanted === "RUNNING" || (record.state !== "STOPPED" && record.state !== "FAILED");
}

/** Whether nothing more happens to it by itself. */
export function isSettled(record: SandboxRecord): boolean {
  switch (record.state) {
    case "RUNNING":
    case "PAUSED":
      return record.wanted === "RUNNING";
    case "STOPPED":
    case "FAILED":
      return record.wanted === "STOPPED";
    default:
      return false;
  }
}
