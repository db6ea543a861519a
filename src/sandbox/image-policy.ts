// Which images may run: the templates' own, and what the host's configuration allows.

import { SandboxdError } from "../errors.ts";

/** @throws SandboxdError IMAGE_NOT_ALLOWED. */
export function checkImage(reference: string, allowed: readonly string[]): void {
  const wanted = withTag(reference);
  if (allowed.some((pattern) => pattern === "*" || matches(wanted, pattern))) return;
  throw new SandboxdError("IMAGE_NOT_ALLOWED", `spec.image: "${reference}" is not allowed on this host`, {
    hint: "use a template's image, or have the operator add it to [images] allow",
    fields: [{ field: "spec.image", description: "not allowed by the host's image policy" }],
  });
}

/** `name:*` allows every tag, but no digest: a digest is allowed by itself. */
function matches(reference: string, pattern: string): boolean {
  if (!pattern.endsWith(":*")) return reference === withTag(pattern);
  const name = pattern.slice(0, -1);
  return reference.startsWith(name) && /^[A-Za-z0-9_.-]+$/.test(reference.slice(name.length));
}

/** As the engine reads it: without a tag or digest, the tag is latest. */
export function withTag(reference: string): string {
  if (reference.includes("@") || reference.startsWith("sha256:")) return reference;
  return reference.slice(reference.lastIndexOf("/") + 1).includes(":") ? reference : `${reference}:latest`;
}
