// Whatever was thrown becomes an error of the catalogue: ours as it is, what the protocol library throws by its
// code, an abort by its reason, and the rest INTERNAL under a correlation id whose details stay in the log.
import { randomUUID } from "node:crypto";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Logger } from "pino";
import { SandboxdError } from "../errors.ts";
import { encodeError, reasonOf } from "./error-encoding.ts";

/** The wire form of anything thrown in a call. A defect is logged with its stack. */
export function translateError(
  thrown: unknown,
  signal: AbortSignal,
  method: string,
  log: Logger,
): ConnectError {
  if (thrown instanceof SandboxdError) {
    return encodeError(thrown.reason === "INTERNAL" ? defect(thrown, method, log) : thrown);
  }
  if (thrown instanceof ConnectError) {
    return reasonOf(thrown) === undefined ? translateProtocolError(thrown, method, log) : thrown;
  }
  if (signal.aborted && isAbort(thrown)) {
    return encodeError(interruption(signal.reason));
  }
  // a caller that hangs up in the middle of its own stream
  if (thrown instanceof Error && "code" in thrown && thrown.code === "ERR_STREAM_PREMATURE_CLOSE") {
    return encodeError(interruption(undefined));
  }
  return encodeError(defect(thrown, method, log));
}

/**
 * The error of the catalogue for an error that the protocol library made. UNIMPLEMENTED has none and stays, and so does
 * what only the handler of a standard service can have meant.
 */
export function translateProtocolError(error: ConnectError, method: string, log: Logger): ConnectError {
  const { code, rawMessage } = error;
  switch (code) {
    case Code.Unimplemented:
      return error;
    case Code.DeadlineExceeded:
    case Code.Canceled:
    case Code.Aborted:
      return encodeError(interruption(error));
    case Code.ResourceExhausted:
      return encodeError(
        new SandboxdError("MESSAGE_TOO_LARGE", `The ${sentence(rawMessage)}`, {
          hint: "Send or ask for less in one message.",
        }),
      );
    case Code.InvalidArgument:
      return encodeError(malformed(rawMessage));
    case Code.Internal:
    case Code.Unknown:
    case Code.DataLoss:
      // The library says INTERNAL where the caller's bytes do not parse.
      return rawMessage.startsWith("parse binary:")
        ? encodeError(malformed(rawMessage))
        : encodeError(defect(error, method, log));
    default:
      return error;
  }
}

/** DEADLINE_EXCEEDED, CANCELED, or the error of ours that a call's signal was aborted with. */
export function interruption(reason: unknown): SandboxdError {
  if (reason instanceof SandboxdError) {
    return reason;
  }
  if (reason instanceof ConnectError && reason.code === Code.DeadlineExceeded) {
    return new SandboxdError(
      "DEADLINE_EXCEEDED",
      "The caller's deadline has ended; what was accepted goes on.",
    );
  }
  return new SandboxdError("CANCELED", "The caller has gone; what was accepted goes on.");
}

function malformed(message: string): SandboxdError {
  return new SandboxdError("MALFORMED_MESSAGE", `The message cannot be read: ${sentence(message)}`, {
    hint: "Compare the request with the contract; unknown JSON fields are refused.",
  });
}

function sentence(message: string): string {
  return message.endsWith(".") ? message : `${message}.`;
}

function isAbort(thrown: unknown): boolean {
  return thrown instanceof Error && (thrown.name === "AbortError" || thrown.name === "TimeoutError");
}

function defect(thrown: unknown, method: string, log: Logger): SandboxdError {
  const correlationId = randomUUID();
  log.error({ err: thrown, method, correlation_id: correlationId }, "call failed by a defect");
  return new SandboxdError("INTERNAL", `The daemon failed in a way it should not (${correlationId}).`, {
    metadata: { correlation_id: correlationId },
    hint: "The daemon's log has the details under this id.",
  });
}
