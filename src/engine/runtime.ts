// The door to the container engine: what the domain may ask of it, in words of its own. Docker stands behind it.

import type { CgroupPaths } from "./cgroup-path.ts";
import type { ContainerPlan } from "./container-plan.ts";
import type { NetworkPlan } from "./network-plan.ts";

export interface Waiting {
  /** Aborting stops waiting; what was asked of the engine may still happen. */
  readonly signal?: AbortSignal;
}

/** A container of this host as the engine shows it. */
export interface Container {
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly state: "created" | "running" | "paused" | "exited";
  readonly imageId: string;
  /** On the host. 0 unless running or paused. */
  readonly pid: number;
  /** The engine's own text for the time of the last start; compared, never computed with. Empty before the first. */
  readonly startedAt: string;
  readonly finishedAt: string;
  readonly exitCode: number;
  /** The engine saw an out-of-memory kill of some process in it. */
  readonly oomKilled: boolean;
  /** Why the last start failed, if it did. */
  readonly error: string;
  readonly limits: LiveLimits;
}

/** What a list tells: enough to see that something changed. */
export interface ContainerSummary {
  readonly id: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly state: Container["state"];
}

/** Limits that can change while a container runs. */
export interface LiveLimits {
  readonly cpuMillis: number;
  readonly cpuWeight: number;
  readonly memoryBytes: number;
  readonly pids: number;
}

export interface Image {
  readonly id: string;
  readonly digests: readonly string[];
  readonly tags: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** Directories that it declares as VOLUME. */
  readonly volumes: readonly string[];
}

/** The least version of the engine's API that is needed, as major.minor: that of Docker Engine 20.10. */
export const leastApi = "1.41";

export interface EngineDescription {
  readonly version: string;
  readonly apiVersion: string;
  readonly cgroupVersion: 1 | 2;
  readonly cgroupDriver: string;
  readonly storageDriver: string;
  readonly runtimes: readonly string[];
  /** Where it keeps its data. */
  readonly dataRoot: string;
}

export interface LogChunk {
  readonly timeNanoseconds: bigint;
  readonly stream: "stdout" | "stderr";
  readonly data: Uint8Array;
}

export interface LogOptions extends Waiting {
  readonly follow: boolean;
  readonly tailLines?: number;
  readonly sinceNanoseconds?: bigint;
  readonly stream?: LogChunk["stream"];
}

/** A line with its number (`log-numbers.ts`); or word that lines before the one of this number are gone. */
export type LogEntry =
  | (LogChunk & { readonly kind: "line"; readonly sequence: bigint })
  | { readonly kind: "gap"; readonly sequence: bigint };

/** A place in a log: the line that was seen last, and whether it was in this container's log or in one before it. */
export interface LogPosition {
  readonly sequence: bigint;
  readonly isOfThisLog: boolean;
}

export interface NumberedLogOptions extends Waiting {
  /** Left out: from the oldest line that is there. */
  readonly after?: LogPosition;
  /** Whether to wait for more, until the log is removed, or the engine ends its stream of it. */
  readonly follow: boolean;
}

/** Reads logs whole. */
export interface NumberedLogs {
  /**
   * Reads a log from its oldest line or a known one on, over its rotations, at the reader's pace; some lines at a time. Ends at
   * once where there is no such container. @throws SandboxdError SEQUENCE_TRUNCATED for a number that is not of this log.
   */
  numberedLog(id: string, options: NumberedLogOptions): AsyncIterable<readonly LogEntry[]>;
}

export interface ExecRequest {
  /** The executable and its arguments. */
  readonly command: readonly string[];
  /** `uid:gid`. */
  readonly user: string;
  readonly workingDir: string;
  /** From the command's start on; then what it started is killed. The engine's own part has its verb's deadline. */
  readonly timeoutMs: number;
  /** Output beyond is dropped. */
  readonly maxOutputBytes: number;
}

/** A program that is to run inside on its own: without input, and nobody reads what it writes. */
export type LaunchRequest = Pick<ExecRequest, "command" | "user" | "workingDir">;

/** `timeout`: it did not end, or not close its output, in time. `excess`: it wrote more than 1 MiB. Either was killed. */
export type ExecResult =
  | { readonly kind: "ended"; readonly exitCode: number; readonly output: Buffer }
  | { readonly kind: "timeout" | "excess"; readonly output: Buffer };

/** Something happened to a container. Only ever a reason to look. */
export interface EngineEvent {
  readonly containerId: string;
  readonly action: string;
  readonly labels: Readonly<Record<string, string>>;
  /** When it happened, by the engine's clock: nanoseconds since 1970. */
  readonly timeNanos: bigint;
}

export interface EventOptions {
  readonly onOpen: () => void;
  /** Tells those first that the engine still knows from this time on. Left out: none. */
  readonly sinceNanos?: bigint;
  readonly signal: AbortSignal;
}

/** A network of the engine; what is not told is empty. */
export interface NetworkSummary {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly bridge: string;
  /** Of IPv4. */
  readonly subnet: string;
}

/** The engine's networks. Each method ends as those of `Runtime` do. */
export interface EngineNetworks {
  /**
   * Makes the network if it is not there; compares it with the plan if it is. One of ours that is otherwise is made anew if no
   * container has it. Asked for by several at once, it is made once. `subnet taken`: another network, or a route of the host, has
   * addresses of it; `bridge taken`: an interface of that name exists. After either nothing is left, and another plan may do.
   *
   * @throws SandboxdError HARDENING_MISMATCH for one that is not ours, or in use otherwise, naming the field; ENGINE_FAILED.
   */
  createNetwork(plan: NetworkPlan, options?: Waiting): Promise<"ready" | "subnet taken" | "bridge taken">;
  /** Removes it, never by force. Gone is success; `in use`: a container that runs is on it. */
  removeNetwork(name: string, options?: Waiting): Promise<"gone" | "in use">;
  /** All networks with this label: one call. */
  networks(label: string, options?: Waiting): Promise<readonly NetworkSummary[]>;
}

/** Every method ends by its verb's deadline with ENGINE_TIMEOUT, or with ENGINE_UNAVAILABLE when nobody answers. */
export interface Runtime {
  describe(options?: Waiting): Promise<EngineDescription>;
  /** Whether it answers at all: the cheapest call there is. */
  ping(options?: Waiting): Promise<void>;
  /** Whether it takes new connections, or is going down and takes its containers along. Does not fail; ends within 2 s. */
  isOpen(): Promise<boolean>;
  /** All containers with this label, also those that don't run: one call. */
  list(label: string, options?: Waiting): Promise<readonly ContainerSummary[]>;
  /** Undefined only if the engine says that there is none. */
  inspect(idOrName: string, options?: Waiting): Promise<Container | undefined>;
  /** Undefined if it is not on the host. */
  image(reference: string, options?: Waiting): Promise<Image | undefined>;
  pull(reference: string, options?: Waiting): Promise<void>;
  /**
   * Creates the container, and the volumes that it needs and the engine has not. `taken` if the name is in use.
   *
   * @throws SandboxdError HARDENING_MISMATCH for a volume that is not ours; LIMIT_UNENFORCEABLE if the engine said that it
   * dropped a limit, with the container removed.
   */
  create(plan: ContainerPlan, options?: Waiting): Promise<{ readonly id: string } | "taken">;
  /**
   * Compares what the engine made with the plan; before every start. Name and labels only of a new one: later the one may
   * have been changed, and the others tell how it was planned then.
   *
   * @throws SandboxdError HARDENING_MISMATCH.
   */
  compare(id: string, plan: ContainerPlan, options: Waiting & { readonly isNew: boolean }): Promise<void>;
  /**
   * Starts it; already running is success. One whose network was removed and made again meanwhile is connected to it as before.
   *
   * @throws SandboxdError COMMAND_UNUSABLE, NETWORK_UNAVAILABLE, ENGINE_FAILED.
   */
  start(id: string, options?: Waiting): Promise<void>;
  /**
   * Reads back from the kernel every limit, every mount and the network of a running container. Resolves to where its accounts are;
   * undefined if it does not run (any more). @throws SandboxdError LIMIT_UNENFORCEABLE naming every limit that is not held,
   * HARDENING_MISMATCH naming every mount that is not as planned, or how else it is connected.
   */
  verify(id: string, plan: ContainerPlan, options?: Waiting): Promise<CgroupPaths | undefined>;
  /** Changes limits and reads them back. @throws SandboxdError LIMIT_UNENFORCEABLE with the old ones put back. */
  update(container: Container, limits: LiveLimits, options?: Waiting): Promise<void>;
  /** Freezes every process. Frozen, ended or gone is success: the next look tells. */
  pause(id: string, options?: Waiting): Promise<void>;
  /** Lets them go on. Not frozen, ended or gone is success. */
  resume(id: string, options?: Waiting): Promise<void>;
  /** Its stop signal, after the grace SIGKILL. Already stopped, or gone, is success. */
  stop(id: string, graceSeconds: number, options?: Waiting): Promise<void>;
  /** Kills and removes with its log. Gone is success; `going`: another removal of it goes on, and its end will be an event. */
  remove(id: string, options?: Waiting): Promise<"gone" | "going">;
  /**
   * Runs a command inside, with the container's own environment, filter and lack of capabilities. What it writes to stdout and
   * stderr is one output. Aborting kills it like the timeout does. A command that cannot be executed has exit code 126 or 127.
   *
   * @throws SandboxdError ENGINE_FAILED if the container does not run, or is paused.
   */
  exec(id: string, request: ExecRequest, options?: Waiting): Promise<ExecResult>;
  /**
   * Starts a program inside that goes on by itself, confined as `exec`. Resolves once it runs.
   *
   * @throws SandboxdError INVALID_STATE if the container does not run, or is paused; PROCESS_LIMIT_REACHED if it has all the
   * processes that it may; TOOLBOX_UNAVAILABLE for a program that cannot be executed.
   */
  launch(id: string, request: LaunchRequest, options?: Waiting): Promise<void>;
  /** As the engine tells it: quick for a few last lines; of a log that is rotated meanwhile, it can lose and repeat lines. */
  logs(id: string, options: LogOptions): AsyncIterable<LogChunk>;
  /** From the moment that the first `next()` resolved on; ends with an error when the connection does. */
  events(label: string, options: EventOptions): AsyncIterable<EngineEvent>;
  close(): void;
}
