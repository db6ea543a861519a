// The catalogue of errors: every reason that a caller can meet, the status it travels under, and the one error
// type that carries subject, value, limit and hint through all layers. The domain throws these; the API alone
// knows how they look on the wire.

/** gRPC status names, as the Connect protocol spells them. */
export type Status =
  | "canceled"
  | "invalid_argument"
  | "deadline_exceeded"
  | "not_found"
  | "already_exists"
  | "permission_denied"
  | "resource_exhausted"
  | "failed_precondition"
  | "aborted"
  | "out_of_range"
  | "internal"
  | "unavailable"
  | "unauthenticated";

/** Reason → status. Mirrors `sandboxd.v1.ErrorReason`; a reason is never renamed. */
export const catalogue = {
  INVALID_FIELD: "invalid_argument",
  MALFORMED_MESSAGE: "invalid_argument",
  SANDBOX_NOT_FOUND: "not_found",
  SANDBOX_ALREADY_EXISTS: "already_exists",
  TEMPLATE_NOT_FOUND: "invalid_argument",
  IMAGE_NOT_ALLOWED: "permission_denied",
  IMAGE_UNAVAILABLE: "failed_precondition",
  IMAGE_UNSUPPORTED: "failed_precondition",
  COMMAND_UNUSABLE: "failed_precondition",
  HOST_CAPACITY_EXCEEDED: "resource_exhausted",
  LIMIT_UNENFORCEABLE: "failed_precondition",
  HARDENING_MISMATCH: "internal",
  INVALID_STATE: "failed_precondition",
  GENERATION_MISMATCH: "aborted",
  ENGINE_UNAVAILABLE: "unavailable",
  ENGINE_TIMEOUT: "deadline_exceeded",
  ENGINE_FAILED: "internal",
  SEQUENCE_TRUNCATED: "out_of_range",
  STALE_TERM: "failed_precondition",
  STATE_DISK_FULL: "resource_exhausted",
  SHUTTING_DOWN: "unavailable",
  MESSAGE_TOO_LARGE: "resource_exhausted",
  TOO_MANY_STREAMS: "resource_exhausted",
  UNAUTHENTICATED: "unauthenticated",
  ROLE_NOT_ALLOWED: "permission_denied",
  INTERNAL: "internal",
  DEADLINE_EXCEEDED: "deadline_exceeded",
  CANCELED: "canceled",
  HOST_CORDONED: "failed_precondition",
  HOST_PRESSURE: "resource_exhausted",
  DRAIN_CANCELED: "aborted",
  TENANT_NOT_FOUND: "not_found",
  TENANT_NOT_EMPTY: "failed_precondition",
  TENANT_DELETING: "failed_precondition",
  TENANT_QUOTA_EXCEEDED: "resource_exhausted",
  LIMIT_RANGE_VIOLATED: "invalid_argument",
  WORKSPACE_NOT_FOUND: "not_found",
  WORKSPACE_ALREADY_EXISTS: "already_exists",
  WORKSPACE_IN_USE: "failed_precondition",
  WORKSPACE_UNAVAILABLE: "failed_precondition",
  WORKSPACES_UNAVAILABLE: "failed_precondition",
  SNAPSHOT_NOT_FOUND: "not_found",
  ARCHIVE_REFUSED: "invalid_argument",
  ARCHIVE_TOO_LARGE: "resource_exhausted",
  PROCESS_NOT_FOUND: "not_found",
  PROCESS_ALREADY_EXISTS: "already_exists",
  PROCESS_LIMIT_REACHED: "resource_exhausted",
  INPUT_OUT_OF_ORDER: "out_of_range",
  TOOLBOX_UNAVAILABLE: "failed_precondition",
  FILE_NOT_FOUND: "not_found",
  FILE_ALREADY_EXISTS: "already_exists",
  FILE_NOT_ALLOWED: "permission_denied",
  FILE_READ_ONLY: "failed_precondition",
  FILE_WRONG_TYPE: "failed_precondition",
  DIRECTORY_NOT_EMPTY: "failed_precondition",
  FILE_CHANGED: "aborted",
  FILE_NO_SPACE: "resource_exhausted",
  FILE_FAILED: "internal",
  NETWORK_UNAVAILABLE: "failed_precondition",
  NETWORK_NOT_ALLOWED: "permission_denied",
  ADDRESS_EXHAUSTED: "resource_exhausted",
  PORT_NOT_ALLOWED: "permission_denied",
  PORT_UNREACHABLE: "unavailable",
  PREVIEW_UNAVAILABLE: "failed_precondition",
} as const satisfies Record<string, Status>;

export type Reason = keyof typeof catalogue;

/** One field that breaks a rule: its path as the contract names it, and what would be right. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** One exhausted resource. Amounts are in the unit that the resource's name ends with. */
export interface QuotaViolation {
  /** Whose limit: one sandbox's, its tenant's or the host's. */
  readonly level: "SANDBOX" | "TENANT" | "HOST";
  /** As the contract names it. */
  readonly resource: string;
  readonly limit: number;
  /** To others, at this level. */
  readonly promised: number;
  readonly asked: number;
  readonly free: number;
}

export interface ErrorDetails {
  /** What a person can do about it. */
  readonly hint?: string;
  readonly fields?: readonly FieldViolation[];
  readonly quotas?: readonly QuotaViolation[];
  /** When another try is worth it. Milliseconds. */
  readonly retryDelayMs?: number;
  /** Further facts for programs: short strings under lower-case keys. */
  readonly metadata?: Readonly<Record<string, string>>;
  readonly cause?: unknown;
}

/** The only error that crosses a layer on purpose. */
export class SandboxdError extends Error {
  readonly reason: Reason;
  readonly details: ErrorDetails;

  constructor(reason: Reason, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "SandboxdError";
    this.reason = reason;
    this.details = details;
  }

  get status(): Status {
    return catalogue[this.reason];
  }
}

/** An INVALID_FIELD error for one field. */
export function invalidField(field: string, description: string, hint?: string): SandboxdError {
  return new SandboxdError("INVALID_FIELD", `${field}: ${description}`, {
    fields: [{ field, description }],
    ...(hint === undefined ? {} : { hint }),
  });
}

/** @throws SandboxdError INVALID_FIELD naming each of the fields, if there are any. */
export function throwIfAny(fields: readonly FieldViolation[]): void {
  if (fields.length === 0) return;
  const message = fields.map((one) => `${one.field}: ${one.description}`).join("; ");
  throw new SandboxdError("INVALID_FIELD", message, { fields });
}

/** What was thrown, in words. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Whether the process, or the machine, has no file descriptor left: nobody's fault that is asked, and over once some are closed. */
export function isOutOfDescriptors(error: unknown): boolean {
  const cause = error instanceof SandboxdError ? error.details.cause : error;
  return cause instanceof Error && "code" in cause && (cause.code === "EMFILE" || cause.code === "ENFILE");
}
