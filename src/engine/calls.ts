// One way to call the engine: with a deadline per verb, and with each failure said in the catalogue's words.

import { isOutOfDescriptors, messageOf, SandboxdError } from "../errors.ts";
import type { Waiting } from "./runtime.ts";

export type Verb =
  | "list"
  | "inspect"
  | "create"
  | "start"
  | "stop"
  | "remove"
  | "update"
  | "pull"
  | "pause"
  | "resume"
  | "exec";

/** The engine's HTTP status of a failed call, or undefined. */
export function statusOf(error: unknown): number | undefined {
  return error instanceof Error && "statusCode" in error && typeof error.statusCode === "number"
    ? error.statusCode
    : undefined;
}

const unreachable = new Set(["ENOENT", "ECONNREFUSED", "ECONNRESET", "EPIPE", "EACCES", "EPERM", "ENOTSOCK"]);

/** Whether the call failed with its connection, which was there before: the engine may be well. */
function isBrokenConnection(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return statusOf(error) === undefined && (code === "EPIPE" || code === "ECONNRESET");
}

/** What a failed call means; an answer with a status is left to the verb that knows it. */
export function engineError(verb: Verb, error: unknown): SandboxdError {
  if (error instanceof SandboxdError) return error;
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  const status = statusOf(error);
  if (
    status === undefined &&
    (unreachable.has(String(code)) ||
      isOutOfDescriptors(error) ||
      /socket hang up|aborted/.test(messageOf(error)))
  ) {
    return new SandboxdError("ENGINE_UNAVAILABLE", `the engine cannot be reached: ${messageOf(error)}`, {
      hint: "GetHost tells the condition; the daemon goes on by itself once the engine answers",
      retryDelayMs: 2_000,
      cause: error,
    });
  }
  return new SandboxdError("ENGINE_FAILED", `engine ${verb}: ${messageOf(error)}`, {
    ...(status === undefined ? {} : { metadata: { engine_status: String(status) } }),
    cause: error,
  });
}

export interface Calls {
  /**
   * Runs one call with the verb's deadline. The client's promise may never settle when the engine dies in the middle of a
   * body, so the deadline does not depend on it.
   */
  call<T>(
    verb: Verb,
    run: (signal: AbortSignal) => Promise<T>,
    options?: { readonly signal?: AbortSignal | undefined; readonly extraMs?: number },
  ): Promise<T>;
}

/** Deadlines in milliseconds by verb; `observe` is told each call's outcome and duration. */
export function createCalls(
  timeoutsMs: Readonly<Record<Verb, number>>,
  observe: (verb: Verb, outcome: "ok" | "error" | "timeout", seconds: number) => void,
): Calls {
  return {
    async call(verb, run, { signal, extraMs = 0 } = {}) {
      const limitMs = timeoutsMs[verb] + extraMs;
      const began = performance.now();
      const abort = new AbortController();
      let timer: NodeJS.Timeout | undefined;
      let outcome: "ok" | "error" | "timeout" = "error";
      const onAbort = () => abort.abort(signal?.reason);
      signal?.addEventListener("abort", onAbort, { once: true });
      const expired = new Promise<never>((_, reject) => {
        timer = setTimeout(() => {
          outcome = "timeout";
          reject(
            new SandboxdError("ENGINE_TIMEOUT", `engine ${verb}: no answer within ${limitMs} ms`, {
              hint: "what was asked may still happen; the daemon looks again by itself",
              retryDelayMs: 5_000,
            }),
          );
          abort.abort();
        }, limitMs);
        abort.signal.addEventListener("abort", () => reject(abort.signal.reason), { once: true });
      });
      try {
        signal?.throwIfAborted();
        const result = await Promise.race([run(abort.signal), expired]);
        outcome = "ok";
        return result;
      } finally {
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
        observe(verb, outcome, (performance.now() - began) / 1_000);
      }
    },
  };
}

/** Verbs that change nothing. */
const questions: ReadonlySet<Verb> = new Set(["list", "inspect"]);

/** One call, and of a question whose connection was broken, one more on a new one. Answers with a status fail as the client says it. */
export type Attempt = <T>(
  verb: Verb,
  run: (abortSignal: AbortSignal) => Promise<T>,
  options?: Waiting & { readonly extraMs?: number },
) => Promise<T>;

/** `dropKept` closes the connections that are kept between calls. */
export function createAttempt(calls: Calls, dropKept: () => void): Attempt {
  return async (verb, run, options = {}) => {
    const ask = () => calls.call(verb, run, options);
    try {
      return await ask().catch((error: unknown) => {
        // a kept connection that the engine has closed meanwhile is noticed by using it; a question may be asked again
        if (!questions.has(verb) || !isBrokenConnection(error)) throw error;
        // the engine that closed one has likely closed them all
        dropKept();
        return ask();
      });
    } catch (error) {
      options.signal?.throwIfAborted();
      throw statusOf(error) === undefined ? engineError(verb, error) : error;
    }
  };
}

/** The value, or undefined for an answer with one of these statuses. @throws SandboxdError for every other failure. */
export async function unless<T>(
  statuses: readonly number[],
  verb: Verb,
  promise: Promise<T>,
): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    const status = statusOf(error);
    if (status !== undefined && statuses.includes(status)) return undefined;
    throw engineError(verb, error);
  }
}

/** The value. @throws SandboxdError for every failure. */
export async function orFailure<T>(verb: Verb, promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    throw engineError(verb, error);
  }
}
