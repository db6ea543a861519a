// What is kept of a process: what was asked without its secrets, what the keeper told of its start, and how it ended. Plain
// values, stored as JSON.

/** STARTING: it was accepted, and whether it runs was not told yet. */
export type ProcessState = "STARTING" | "RUNNING" | "EXITED" | "LOST";

/** Mirrors `sandboxd.v1.ProcessExitCause`. */
export type ExitCause = "SELF" | "SIGNALED" | "TIMEOUT" | "DISCONNECTED" | "SANDBOX_ENDED" | "UNKNOWN";

export interface ProcessExit {
  /** 0 to 255; 128 and the signal's number, or 255 if it is not known. */
  readonly exitCode: number;
  /** 0 if it ended by itself. */
  readonly signal: number;
  readonly oomKilled: boolean;
  readonly cause: ExitCause;
  readonly durationUs: number;
  readonly userUs: number;
  readonly systemUs: number;
  readonly maxResidentBytes: number;
  /** By the wall clock. */
  readonly exitedAtMs: number;
}

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

/** How it is treated; fixed at its start. */
export interface ProcessTerms {
  readonly killGraceMs: number;
  readonly killsOnDisconnect: boolean;
  /** Whether it is held back while a stream is behind, and how long at most in one go. */
  readonly waits: boolean;
  readonly maxWaitMs: number;
  readonly retainedBytes: number;
}

export interface ProcessRecord extends ProcessTerms {
  readonly id: string;
  readonly sandboxId: string;
  /** Of the sandbox: one of the same id that was created later has none of its processes. */
  readonly instance: string;
  /** Which run of the sandbox it belongs to, as the sandbox's record tells it. Absent where that tells none. */
  readonly ranSinceMs?: number;
  /** The same request again means the same process. Empty for one that was found without a record. */
  readonly requestHash: string;
  readonly command: readonly string[];
  readonly workingDir: string;
  readonly terminal?: TerminalSize;
  /** Steady time. */
  readonly acceptedAtMs: number;
  /** By the wall clock. */
  readonly startedAtMs: number;
  /** Inside the sandbox. Absent before it was told. */
  readonly pid?: number;
  /** Out-of-memory kills that the sandbox had seen before it. */
  readonly oomKills: number;
  readonly state: ProcessState;
  readonly exit?: ProcessExit;
  /** When its end was seen. Steady time. */
  readonly endedAtMs?: number;
  /** At the end: of its last event, and of all that it wrote. */
  readonly lastSequence?: number;
  readonly outputBytes?: number;
}

/** What is told of a process: the record, and what is known of it besides. */
export interface ProcessView {
  readonly record: ProcessRecord;
  /** Inside the sandbox; 0 once it has ended. */
  readonly pid: number;
  readonly isInputOpen: boolean;
  readonly inputOffset: number;
  readonly lastSequence: number;
  readonly firstRetainedSequence: number;
  readonly outputBytes: number;
  readonly droppedBytes: number;
  readonly watchers: number;
  readonly usage?: ProcessUsage;
}

/** What the kernel tells of a process that runs. */
export interface ProcessUsage {
  /** Inside the sandbox; 0 for the first process. */
  readonly parentPid: number;
  readonly cpuMs: number;
  readonly residentBytes: number;
}

/** A process that was not started here, as the kernel tells it. */
export interface OtherProcess {
  readonly pid: number;
  readonly command: readonly string[];
  /** By the wall clock. */
  readonly startedAtMs: number;
  readonly usage: ProcessUsage;
}
