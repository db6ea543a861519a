// Every bound of the API's transport in one place, with its default. The configuration may narrow or widen each.

/** Bounds of the transport. Each applies per listener unless its comment says otherwise. */
export interface ApiLimits {
  /** Largest request message, after decompression. Bytes. */
  readonly readMaxBytes: number;
  /** Largest answer message. Bytes. */
  readonly writeMaxBytes: number;
  /** Request bytes held at once while calls are being received, over all calls. Bytes. */
  readonly receiveBudgetBytes: number;
  /** Streams (calls) that one HTTP/2 session may have open. */
  readonly streamsPerSession: number;
  /** Streaming calls that one caller may have open, over all its sessions. */
  readonly streamsPerCaller: number;
  /** Connections; further ones are closed at once. */
  readonly sessions: number;
  /** Size of all headers of one request. Bytes. */
  readonly headerBytes: number;
  /** Headers of one request. */
  readonly headers: number;
  /** Streams that an HTTP/2 session may reset at once before it is ended (CVE-2023-44487). */
  readonly resetBurst: number;
  /** Resets that are forgiven each second after that. */
  readonly resetsPerSecond: number;
  /** Invalid frames after which an HTTP/2 session is ended. */
  readonly invalidFrames: number;
  /** Time from the connection to its protocol's first bytes, and to the end of a TLS handshake. Milliseconds. */
  readonly greetingTimeoutMs: number;
  /** Time for the headers of an HTTP/1.1 request. Milliseconds. */
  readonly headersTimeoutMs: number;
  /** Time for the whole of a request that is one message. Milliseconds. */
  readonly requestTimeoutMs: number;
  /** Quiet after which a connection without calls is closed. Milliseconds. */
  readonly idleTimeoutMs: number;
  /** Time between two pings of an HTTP/2 session. Milliseconds. */
  readonly pingIntervalMs: number;
  /** Time for the answer to a ping, after which the session is dead. Milliseconds. */
  readonly pingTimeoutMs: number;
}

const mebibyte = 1024 * 1024;

/** Sane for a few schedulers and operators on a trusted network; `resetBurst` and its rate are Node's own. */
export const defaultLimits: ApiLimits = {
  readMaxBytes: 4 * mebibyte,
  writeMaxBytes: 16 * mebibyte,
  receiveBudgetBytes: 64 * mebibyte,
  streamsPerSession: 128,
  streamsPerCaller: 1000,
  sessions: 1024,
  headerBytes: 16 * 1024,
  headers: 64,
  resetBurst: 1000,
  resetsPerSecond: 33,
  invalidFrames: 100,
  greetingTimeoutMs: 5_000,
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 60_000,
  idleTimeoutMs: 15 * 60_000,
  pingIntervalMs: 30_000,
  pingTimeoutMs: 10_000,
};
