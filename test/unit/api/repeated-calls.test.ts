import { create } from "@bufbuild/protobuf";
import { createContextValues } from "@connectrpc/connect";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  ProcessService,
  SendInputRequestSchema,
  SendInputResponseSchema,
} from "../../../gen/sandboxd/v1/process_service_pb.ts";
import { callerKey, devCaller, unixCaller } from "../../../src/api/caller.ts";
import { createAccessInterceptor } from "../../../src/api/interceptors/access.ts";
import { createRepeatedCalls } from "../../../src/api/interceptors/repeated-calls.ts";
import { SandboxdError } from "../../../src/errors.ts";

const minuteMs = 60_000;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function recorded() {
  const told: unknown[] = [];
  return { told, repeated: createRepeatedCalls((line) => told.push(line)) };
}

describe("calls that repeat", () => {
  test("are told: the first at once, the others once a minute with their number and what the last of them was", () => {
    const { told, repeated } = recorded();
    for (let count = 1; count <= 5; count += 1) repeated.add("a", { last: count });
    expect(told).toEqual([{ last: 1 }]);
    vi.advanceTimersByTime(minuteMs);
    repeated.add("a", { last: 6 });
    vi.advanceTimersByTime(minuteMs);
    expect(told).toEqual([{ last: 1 }, { last: 5, calls: 4 }, { last: 6, calls: 1 }]);
  });

  test("are told apart by their key", () => {
    const { told, repeated } = recorded();
    for (const key of ["a", "b", "a"]) repeated.add(key, { key });
    vi.advanceTimersByTime(minuteMs);
    expect(told).toEqual([{ key: "a" }, { key: "b" }, { key: "a", calls: 1 }]);
  });

  test("are a first again after a minute of none, and nothing goes on then", () => {
    const { told, repeated } = recorded();
    repeated.add("a", {});
    vi.advanceTimersByTime(minuteMs);
    expect(vi.getTimerCount()).toBe(0);
    repeated.add("a", {});
    expect(told).toEqual([{}, {}]);
  });

  test("are told one by one of more than a thousand at a time", () => {
    const { told, repeated } = recorded();
    for (let key = 0; key < 1_500; key += 1) repeated.add(String(key), {});
    for (let key = 0; key < 1_500; key += 1) repeated.add(String(key), {});
    expect(told).toHaveLength(2_000);
  });

  test("are told before the end", () => {
    const { told, repeated } = recorded();
    repeated.add("a", {});
    repeated.add("a", {});
    repeated.close();
    expect(told).toEqual([{}, { calls: 1 }]);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("the audit of input", () => {
  function audited() {
    const lines: Record<string, unknown>[] = [];
    const log = pino({ level: "info" }, { write: (line: string) => void lines.push(JSON.parse(line)) });
    const metrics = { callEnded: vi.fn(), streamsChanged: vi.fn(), connectionRefused: vi.fn() };
    const repeated = createRepeatedCalls((line) => log.info(line, "call"));
    const access = createAccessInterceptor(log, metrics, repeated);
    const send = (processId: string, caller = unixCaller, thrown?: Error) =>
      access(async (request) => {
        if (thrown !== undefined) throw thrown;
        const message = create(SendInputResponseSchema);
        const answered = { stream: false, message, header: new Headers(), trailer: new Headers() };
        return { ...answered, service: request.service, method: request.method } as never;
      })({
        stream: false,
        message: create(SendInputRequestSchema, { sandboxId: "s", processId, data: Buffer.from("hunter2") }),
        method: ProcessService.method.sendInput,
        service: ProcessService,
        contextValues: createContextValues().set(callerKey, caller),
        requestMethod: "POST",
        url: "http://sandboxd/",
        signal: new AbortController().signal,
        header: new Headers(),
      });
    return { lines, metrics, repeated, send };
  }

  test("has every call, by caller and process, and a line of its own for each that failed", async () => {
    const { lines, metrics, repeated, send } = audited();
    for (let count = 0; count < 10; count += 1) await send("one");
    await send("two");
    await send("one", devCaller);
    await send("one", unixCaller, new SandboxdError("INVALID_STATE", "ended")).catch(() => {});
    repeated.close();
    expect(
      lines.map(({ audit, caller, process_id, code, calls = 1 }) => [audit, caller, process_id, code, calls]),
    ).toEqual([
      [true, "unix", "one", "ok", 1],
      [true, "unix", "two", "ok", 1],
      [true, "dev", "one", "ok", 1],
      [true, "unix", "one", "internal", 1],
      [true, "unix", "one", "ok", 9],
    ]);
    expect(metrics.callEnded).toHaveBeenCalledTimes(13);
    expect(JSON.stringify(lines)).not.toContain("hunter2");
  });
});
