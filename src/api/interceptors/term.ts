// The fence: a mutating call that names an older term than the newest seen comes from a scheduler that has lost.
import type { Interceptor } from "@connectrpc/connect";
import { invalidField, SandboxdError } from "../../errors.ts";
import { shortened } from "../error-encoding.ts";
import { isReadOnly } from "../method.ts";
import type { Terms } from "../ports.ts";

const termHeader = "sandboxd-term";

/** Refuses STALE_TERM. Calls without the header, and calls that change nothing, are not fenced. */
export function createTermInterceptor(terms: Terms): Interceptor {
  return (next) => async (request) => {
    const header = request.header.get(termHeader);
    if (header !== null && !isReadOnly(request.method)) {
      const term = parseTerm(header);
      if (!terms.accept(term)) {
        const newest = terms.newest();
        throw new SandboxdError(
          "STALE_TERM",
          `Term ${term} is older than ${newest}, the newest this host has seen.`,
          {
            hint: "Another scheduler leads now; find it before calling again.",
            metadata: { term: String(term), newest_term: String(newest) },
          },
        );
      }
    }
    return next(request);
  };
}

function parseTerm(header: string): number {
  const term = /^[0-9]{1,16}$/.test(header) ? Number(header) : Number.NaN;
  if (!Number.isSafeInteger(term)) {
    throw invalidField(
      termHeader,
      `${JSON.stringify(shortened(header, 64))} is not an integer from 0 to 2^53 - 1`,
    );
  }
  return term;
}
