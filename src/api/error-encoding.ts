// How the catalogue's errors look on the wire: a status and google.rpc details, small enough for HTTP headers.
import type { DescMessage, Message, MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  LocalizedMessageSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "../../gen/google/rpc/error_details_pb.ts";
import type { FieldViolation, QuotaViolation, Reason, SandboxdError, Status } from "../errors.ts";

/** A detail still to be written: its descriptor and the message. */
interface OutgoingDetail {
  readonly desc: DescMessage;
  readonly value: Message;
}

const errorDomain = "sandboxd";

// gRPC sends the message twice and the details in base64 in one block of trailers, for which several clients
// take no more than 8 KiB.
const messageMaxLength = 1000;
const violationsMaxLength = 2400;

const codes = {
  canceled: Code.Canceled,
  invalid_argument: Code.InvalidArgument,
  deadline_exceeded: Code.DeadlineExceeded,
  not_found: Code.NotFound,
  already_exists: Code.AlreadyExists,
  permission_denied: Code.PermissionDenied,
  resource_exhausted: Code.ResourceExhausted,
  failed_precondition: Code.FailedPrecondition,
  aborted: Code.Aborted,
  out_of_range: Code.OutOfRange,
  internal: Code.Internal,
  unavailable: Code.Unavailable,
  unauthenticated: Code.Unauthenticated,
} as const satisfies Record<Status, Code>;

/** The status name of a code: "not_found". */
export function statusName(code: Code): string {
  return (Code[code] ?? String(code)).replace(/(?<=[a-z])[A-Z]/g, "_$&").toLowerCase();
}

/** The wire form of an error of the catalogue. Its cause stays behind. */
export function encodeError(error: SandboxdError): ConnectError {
  const { details } = error;
  const outgoing: OutgoingDetail[] = [
    detail(ErrorInfoSchema, { reason: error.reason, domain: errorDomain, metadata: { ...details.metadata } }),
  ];
  if (details.fields !== undefined && details.fields.length > 0) {
    outgoing.push(detail(BadRequestSchema, { fieldViolations: bounded(details.fields) }));
  }
  if (details.quotas !== undefined && details.quotas.length > 0) {
    outgoing.push(detail(QuotaFailureSchema, { violations: details.quotas.map(quotaViolation) }));
  }
  if (details.retryDelayMs !== undefined) {
    outgoing.push(
      detail(RetryInfoSchema, { retryDelay: durationFromMs(Math.max(0, Math.ceil(details.retryDelayMs))) }),
    );
  }
  if (details.hint !== undefined) {
    outgoing.push(
      detail(LocalizedMessageSchema, { locale: "en", message: shortened(details.hint, messageMaxLength) }),
    );
  }
  return new ConnectError(
    messageWithHint(error.message, details.hint),
    codes[error.status],
    undefined,
    outgoing,
  );
}

/** The reason that an error carries, if it carries one of ours. */
export function reasonOf(error: ConnectError): Reason | undefined {
  for (const found of error.findDetails(ErrorInfoSchema)) {
    if (found.domain === errorDomain) {
      return found.reason as Reason;
    }
  }
  return undefined;
}

/** The text, or its beginning and an ellipsis. */
export function shortened(text: string, maxLength: number): string {
  return text.length <= maxLength ? text : `${text.slice(0, maxLength - 1).replace(/[\uD800-\uDBFF]$/, "")}…`;
}

function detail<Desc extends DescMessage>(desc: Desc, value: MessageInitShape<Desc>): OutgoingDetail {
  return { desc, value: create(desc, value) };
}

function messageWithHint(message: string, hint: string | undefined): string {
  const said = shortened(message, messageMaxLength);
  if (hint === undefined) {
    return said;
  }
  return `${/[.!?…]$/.test(said) ? said : `${said}.`}\nHint: ${shortened(hint, messageMaxLength)}`;
}

/** As many violations as fit, and then how many more there are. */
function bounded(fields: readonly FieldViolation[]): { field: string; description: string }[] {
  const told: { field: string; description: string }[] = [];
  let length = 0;
  for (const [index, violation] of fields.entries()) {
    const field = shortened(violation.field, 200);
    const description = shortened(violation.description, 300);
    length += field.length + description.length + 8;
    if (length > violationsMaxLength) {
      told.push({ field: "", description: `and ${fields.length - index} more` });
      break;
    }
    told.push({ field, description });
  }
  return told;
}

function quotaViolation(quota: QuotaViolation) {
  const { resource, limit, promised, asked, free } = quota;
  const scope = quota.level.toLowerCase();
  return {
    subject: `${scope}/${resource}`,
    description: `${resource}: limit ${limit}, promised ${promised}, asked ${asked}, free ${free}`,
    quotaMetric: resource,
    quotaId: scope,
    quotaDimensions: { promised: String(promised), asked: String(asked), free: String(free) },
    quotaValue: BigInt(Math.trunc(limit)),
  };
}
