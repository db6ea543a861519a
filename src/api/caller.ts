// Who calls: an identity and a role, taken from the transport alone. Nothing in a request can change them.
import type { ContextKey } from "@connectrpc/connect";
import { createContextKey } from "@connectrpc/connect";
import { SandboxdError } from "../errors.ts";
import type { Actor } from "../sandbox/record.ts";

const roles = ["scheduler", "operator", "viewer"] as const;

/** What a caller may do: schedulers and operators everything, viewers whatever has no side effects. */
type Role = (typeof roles)[number];

/** One caller. */
export interface Caller {
  /** From the certificate: its common name, else its first alternative name. "unix" and "dev" for the local sockets. */
  readonly identity: string;
  /** Absent when the certificate grants none, or names more than one. */
  readonly role: Role | undefined;
  /** When its certificate ends. Milliseconds since 1970; Infinity where there is none. */
  readonly expiresAtMs: number;
}

/** Everyone who may open the unix socket: its file mode and group are the authentication. */
export const unixCaller: Caller = {
  identity: "unix",
  role: "operator",
  expiresAtMs: Number.POSITIVE_INFINITY,
};

/** Everyone who reaches the loopback listener of a development daemon. */
export const devCaller: Caller = { identity: "dev", role: "operator", expiresAtMs: Number.POSITIVE_INFINITY };

/** The part of Node's PeerCertificate that says who. */
export interface CertificateFacts {
  readonly subject?: { readonly CN?: string | string[]; readonly OU?: string | string[] } | undefined;
  readonly subjectaltname?: string | undefined;
  readonly valid_to: string;
}

const rolePrefix = "sandboxd://role/";
const identityMaxLength = 256;

/** The caller that a verified certificate stands for. Role: SAN URIs `sandboxd://role/<role>`, else the OU. */
export function callerOfCertificate(certificate: CertificateFacts): Caller {
  const names = alternativeNames(certificate.subjectaltname ?? "");
  const roleNames = names
    .filter((name) => name.startsWith(rolePrefix))
    .map((name) => name.slice(rolePrefix.length));
  const granted = roleNames.length > 0 ? roleNames : listOf(certificate.subject?.OU);
  const [only] = new Set(granted).size === 1 ? granted : [];
  const identity =
    listOf(certificate.subject?.CN)[0] ?? names.find((name) => !name.startsWith(rolePrefix)) ?? "";
  const expiresAtMs = Date.parse(certificate.valid_to);
  return {
    identity: identity.slice(0, identityMaxLength),
    role: roles.find((role) => role === only),
    expiresAtMs: Number.isNaN(expiresAtMs) ? 0 : expiresAtMs,
  };
}

function listOf(value: string | string[] | undefined): string[] {
  return value === undefined ? [] : typeof value === "string" ? [value] : value;
}

/**
 * URI and DNS names of Node's `subjectaltname`. Node writes a name that could be mistaken for several as a JSON
 * string (CVE-2021-44532); such a name is no identity of ours and is dropped whole.
 */
function alternativeNames(subjectAltName: string): string[] {
  const names: string[] = [];
  for (const [, kind, value] of subjectAltName.matchAll(/([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^,"]*)(?:, |$)/g)) {
    if ((kind === "URI" || kind === "DNS") && value !== undefined && value !== "" && !value.startsWith('"')) {
      names.push(value);
    }
  }
  return names;
}

/** Refuses a caller without an identity, or whose certificate has ended since its session began. */
export function assertAuthenticated(caller: Caller | undefined, nowMs: number): asserts caller is Caller {
  if (caller === undefined || caller.identity === "") {
    throw new SandboxdError("UNAUTHENTICATED", "The certificate names nobody.", {
      hint: "Use a client certificate with a common name.",
    });
  }
  if (caller.expiresAtMs <= nowMs) {
    throw new SandboxdError("UNAUTHENTICATED", `The certificate of "${caller.identity}" has expired.`, {
      hint: "Connect again with a certificate that is valid.",
    });
  }
}

/** The caller as the domain knows it. */
export function actorOfCaller(caller: Caller | undefined): Actor {
  return { kind: "CALLER", identity: caller?.identity ?? "" };
}

/** The caller of a call. Set by the listener before any interceptor runs. */
export const callerKey: ContextKey<Caller | undefined> = createContextKey<Caller | undefined>(undefined, {
  description: "the caller",
});
