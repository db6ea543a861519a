// What the API needs from the rest of the daemon, as small interfaces.

/** Where the API counts. Implementations must not throw. */
export interface ApiMetrics {
  /** A call has ended. `method` is "sandboxd.v1.SandboxService/GetSandbox", `code` a status name or "ok". Seconds. */
  callEnded(method: string, code: string, durationSeconds: number): void;
  /** The number of open streaming calls has changed by this much. */
  streamsChanged(delta: 1 | -1): void;
  /** A connection was refused or cut for its own behaviour. */
  connectionRefused(why: ConnectionRefusal): void;
}

/** Why a connection was refused or cut. */
export type ConnectionRefusal = "too_many" | "greeting" | "handshake" | "dead" | "idle";

/** The fence against a scheduler that lost its election. */
export interface Terms {
  /** The newest term seen. */
  newest(): number;
  /** Notes the term; false when a newer one has been seen. Durable before it returns true. */
  accept(term: number): boolean;
}
