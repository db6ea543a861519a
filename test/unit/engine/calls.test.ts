import { getEventListeners } from "node:events";
import { describe, expect, test } from "vitest";
import { createCalls, engineError, statusOf, type Verb } from "../../../src/engine/calls.ts";
import { SandboxdError } from "../../../src/errors.ts";

const timeoutsMs: Readonly<Record<Verb, number>> = {
  list: 20,
  inspect: 10_000,
  create: 20,
  start: 20,
  stop: 20,
  remove: 20,
  update: 20,
  pause: 1_000,
  resume: 1_000,
  exec: 20,
  pull: 20,
};

function observedCalls() {
  const observed: (readonly [Verb, string])[] = [];
  const calls = createCalls(timeoutsMs, (verb, outcome, seconds) => {
    expect(seconds).toBeGreaterThanOrEqual(0);
    observed.push([verb, outcome]);
  });
  return { calls, observed };
}

const never = () => new Promise<never>(() => undefined);

test("a call's answer is handed on and observed", async () => {
  const { calls, observed } = observedCalls();
  expect(await calls.call("list", async () => "answer")).toBe("answer");
  expect(observed).toEqual([["list", "ok"]]);
});

test("a call's own failure is handed on as it is", async () => {
  const { calls, observed } = observedCalls();
  const failure = new Error("own");
  await expect(calls.call("list", () => Promise.reject(failure))).rejects.toBe(failure);
  expect(observed).toEqual([["list", "error"]]);
});

test("a call that never settles ends by its deadline, and is told to stop", async () => {
  const { calls, observed } = observedCalls();
  let given: AbortSignal | undefined;
  const call = calls.call("create", (signal) => {
    given = signal;
    return never();
  });
  await expect(call).rejects.toMatchObject({
    reason: "ENGINE_TIMEOUT",
    message: "engine create: no answer within 20 ms",
  });
  expect(given?.aborted).toBe(true);
  expect(observed).toEqual([["create", "timeout"]]);
});

test("a call that fails because it was told to stop is told as a timeout", async () => {
  const { calls } = observedCalls();
  const call = calls.call(
    "list",
    (signal) =>
      new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(new Error("aborted")))),
  );
  await expect(call).rejects.toMatchObject({ reason: "ENGINE_TIMEOUT" });
});

test("the deadline is longer by what the verb itself takes", async () => {
  const { calls } = observedCalls();
  await expect(calls.call("stop", never, { extraMs: 30 })).rejects.toThrow("no answer within 50 ms");
});

test("an abort ends the wait at once with its reason, and the call is told", async () => {
  const { calls, observed } = observedCalls();
  const abort = new AbortController();
  let given: AbortSignal | undefined;
  const call = calls.call(
    "inspect",
    (signal) => {
      given = signal;
      return never();
    },
    { signal: abort.signal },
  );
  const reason = new Error("caller left");
  abort.abort(reason);
  await expect(call).rejects.toBe(reason);
  expect(given?.reason).toBe(reason);
  expect(observed).toEqual([["inspect", "error"]]);
});

test("with a signal that is aborted already, nothing is asked", async () => {
  const { calls } = observedCalls();
  let asked = false;
  const call = calls.call(
    "list",
    async () => {
      asked = true;
    },
    { signal: AbortSignal.abort(new Error("gone")) },
  );
  await expect(call).rejects.toThrow("gone");
  expect(asked).toBe(false);
});

test("calls leave no listener on the caller's signal", async () => {
  const { calls } = observedCalls();
  const { signal } = new AbortController();
  await calls.call("list", async () => undefined, { signal });
  await expect(calls.call("list", never, { signal })).rejects.toThrow();
  expect(getEventListeners(signal, "abort")).toHaveLength(0);
});

describe("what a failure means", () => {
  const withCode = (code: string) => Object.assign(new Error(code), { code });
  const withStatus = (statusCode: number, message = "no such container") =>
    Object.assign(new Error(message), { statusCode });

  test.each(["ENOENT", "ECONNREFUSED", "ECONNRESET", "EPIPE", "EACCES", "EPERM", "ENOTSOCK"])(
    "%s: the engine is unavailable, worth another try",
    (code) => {
      const cause = withCode(code);
      expect(engineError("list", cause)).toMatchObject({
        reason: "ENGINE_UNAVAILABLE",
        details: { cause, retryDelayMs: 2_000 },
      });
    },
  );

  test("a connection that was hung up: unavailable", () => {
    expect(engineError("list", new Error("socket hang up")).reason).toBe("ENGINE_UNAVAILABLE");
  });

  test("an answer with a status: failed, naming verb and status, whatever its words", () => {
    const cause = withStatus(500, "socket hang up");
    expect(engineError("start", cause)).toMatchObject({
      reason: "ENGINE_FAILED",
      message: "engine start: socket hang up",
      details: { cause, metadata: { engine_status: "500" } },
    });
  });

  test("anything else: failed, without a status", () => {
    expect(engineError("pull", new Error("odd")).details.metadata).toBeUndefined();
    expect(engineError("pull", "text")).toMatchObject({
      reason: "ENGINE_FAILED",
      message: "engine pull: text",
    });
  });

  test("an error of the catalogue: itself", () => {
    const error = new SandboxdError("HARDENING_MISMATCH", "m");
    expect(engineError("create", error)).toBe(error);
  });

  test("a status is a number on an error, nothing else", () => {
    expect(statusOf(withStatus(404))).toBe(404);
    for (const other of [
      withCode("404"),
      { statusCode: 404 },
      Object.assign(new Error(), { statusCode: "404" }),
      null,
    ]) {
      expect(statusOf(other)).toBeUndefined();
    }
  });
});
