// How a failed call is told: one line with the reason, what of the request was wrong, and what can be done about it.

import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  LocalizedMessageSchema,
  QuotaFailureSchema,
} from "../../../gen/google/rpc/error_details_pb.ts";
import { SandboxdError } from "../../errors.ts";
import { printable } from "./text.ts";

const errorDomain = "sandboxd";

/** The daemon's own word for it, without "ERROR_REASON_"; undefined if it came from elsewhere. */
export function reasonOf(error: unknown): string | undefined {
  if (!(error instanceof ConnectError)) return undefined;
  return error.findDetails(ErrorInfoSchema).find(({ domain }) => domain === errorDomain)?.reason;
}

/** Facts that the daemon gave for programs. */
export function metadataOf(error: unknown): Readonly<Record<string, string>> {
  if (!(error instanceof ConnectError)) return {};
  return error.findDetails(ErrorInfoSchema)[0]?.metadata ?? {};
}

/**
 * Whether the connection failed, and not what was asked: the daemon is away, or going, and the same call may succeed when it is back.
 */
export function isInterruption(error: unknown): boolean {
  if (!(error instanceof ConnectError)) return false;
  if (reasonOf(error) !== undefined) return error.code === Code.Unavailable;
  return [Code.Unavailable, Code.Aborted, Code.Internal, Code.Unknown, Code.Canceled].includes(error.code);
}

/** What the kernel says to a connection when nobody is there to be asked, or one may not. */
const unreachable: ReadonlySet<string> = new Set([
  ...["ENOENT", "ECONNREFUSED", "EACCES", "EPERM", "ENOTSOCK"],
  ...["ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"],
]);

function unreachability(error: ConnectError): string | undefined {
  const { cause } = error;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  if (unreachable.has(code)) return code;
  return error.code === Code.Unavailable && reasonOf(error) === undefined ? "" : undefined;
}

/** Lines for standard error, without their newlines. `host` is where the daemon was looked for. */
export function failureLines(error: unknown, host: string): readonly string[] {
  if (error instanceof SandboxdError)
    return [
      `sandboxctl: ${printable(error.message)} (${error.reason})`,
      ...(error.details.hint === undefined ? [] : [`hint: ${printable(error.details.hint)}`]),
    ];
  if (!(error instanceof ConnectError))
    return [`sandboxctl: ${printable(error instanceof Error ? error.message : String(error))}`];
  const reason = reasonOf(error);
  const code = unreachability(error);
  if (code !== undefined)
    return [
      `sandboxctl: no answer from ${printable(host)}: ${printable(error.rawMessage)}`,
      code === "EACCES" || code === "EPERM"
        ? "hint: be root, or in the group that listen.socket_group names"
        : "hint: is sandboxd running? Say where it is by --host or SANDBOXCTL_HOST",
    ];
  const hint = error.findDetails(LocalizedMessageSchema)[0]?.message;
  const said = hint === undefined ? error.rawMessage : error.rawMessage.replace(/\.?\nHint: [\s\S]*$/, "");
  const fields = error.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) => fieldViolations);
  const quotas = error.findDetails(QuotaFailureSchema).flatMap(({ violations }) => violations);
  return [
    `sandboxctl: ${printable(said)} (${printable(reason ?? nameOf(error.code))})`,
    // one alone is often the message itself
    ...fields
      .filter(({ field, description }) => said !== `${field}: ${description}`)
      .map(({ field, description }) =>
        field === "" ? `  ${printable(description)}` : `  ${printable(field)}: ${printable(description)}`,
      ),
    ...quotas.map(({ quotaId, description }) => `  ${printable(quotaId)}: ${printable(description)}`),
    ...(hint === undefined ? [] : [`hint: ${printable(hint)}`]),
  ];
}

/** "NOT_FOUND". */
function nameOf(code: Code): string {
  return (Code[code] ?? String(code)).replace(/(?<=[a-z])[A-Z]/g, "_$&").toUpperCase();
}
