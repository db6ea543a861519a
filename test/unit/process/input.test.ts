// Input on its way to a keeper that the test plays: order, repetition, the window, and what an aborted call leaves.

import { expect, test } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { createInput, type InputCall, windowBytes } from "../../../src/process/input.ts";
import { frame, reader } from "../../../src/toolbox/protocol.ts";

function bench() {
  const input = createInput({
    isOpen: true,
    refusal: (why) => new SandboxdError("INVALID_STATE", why),
  });
  const sent: { offset: number; text: string }[] = [];
  const closes: number[] = [];
  const keeper = (bytes: Buffer) => {
    const payload = reader(bytes.subarray(5));
    if (bytes[4] === frame.closeInput) closes.push(payload.u64());
    else sent.push({ offset: payload.u64(), text: payload.rest().toString() });
  };
  const attach = (taken = 0) => input.attached(keeper, taken, true);
  const send = (text: string, change: Partial<InputCall> = {}) =>
    input.send({ data: Buffer.from(text), closes: false, ...change });
  return { input, sent, closes, attach, send };
}

const reasonOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "success",
    (error: unknown) => (error instanceof SandboxdError ? error.reason : String(error)),
  );

test("calls are sent in their order, each after the one before, and end when they were taken", async () => {
  const { input, sent, attach, send } = bench();
  const all = Promise.all([send("ab"), send("cde"), send("f")]);
  expect(sent, "there is no keeper yet").toEqual([]);
  attach();
  expect(sent).toEqual([
    { offset: 0, text: "ab" },
    { offset: 2, text: "cde" },
    { offset: 5, text: "f" },
  ]);
  input.taken(6, true);
  expect(await all).toEqual([6, 6, 6]);
});

test("a call that is repeated with its offset is sent once", async () => {
  const { input, sent, attach, send } = bench();
  attach();
  const first = send("hello", { offset: 0 });
  const again = send("hello world", { offset: 0 });
  input.taken(11, true);
  expect(await first).toBe(11);
  expect(await again).toBe(11);
  expect(await send("hello", { offset: 0 })).toBe(11);
  expect(sent).toEqual([
    { offset: 0, text: "hello" },
    { offset: 5, text: " world" },
  ]);
});

test("what begins beyond the input is refused, and says where the input is", async () => {
  const { attach, send } = bench();
  attach();
  const error = await send("x", { offset: 3 }).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({
    reason: "INPUT_OUT_OF_ORDER",
    details: { metadata: { expected_offset: "0" } },
  });
});

test("no more is on its way than the keeper takes", async () => {
  const { input, sent, attach, send } = bench();
  attach();
  const all = send("y".repeat(windowBytes + 10));
  const bytes = () => sent.reduce((sum, { text }) => sum + text.length, 0);
  expect(bytes()).toBe(windowBytes);
  input.taken(4, true);
  expect(bytes()).toBe(windowBytes + 4);
  input.taken(windowBytes + 4, true);
  input.taken(windowBytes + 10, true);
  expect(await all).toBe(windowBytes + 10);
});

test("an aborted call takes back what was not sent, and the next goes on from there", async () => {
  const { input, sent, attach, send } = bench();
  attach();
  const abort = new AbortController();
  const first = send("z".repeat(windowBytes + 100), { signal: abort.signal });
  const second = send("next");
  abort.abort(new Error("too late"));
  await expect(first).rejects.toThrow("too late");
  input.taken(windowBytes, true);
  expect(sent.at(-1)).toEqual({ offset: windowBytes, text: "next" });
  input.taken(windowBytes + 4, true);
  expect(await second).toBe(windowBytes + 4);
});

test("a call that waited behind another and was aborted is never sent", async () => {
  const { input, sent, attach, send } = bench();
  attach();
  const first = send("a".repeat(windowBytes + 1));
  const abort = new AbortController();
  const second = send("never", { signal: abort.signal });
  abort.abort(new Error("gone"));
  await expect(second).rejects.toThrow("gone");
  input.taken(windowBytes, true);
  input.taken(windowBytes + 1, true);
  await first;
  expect(sent.some(({ text }) => text.includes("never"))).toBe(false);
});

test("over a new connection, what was sent and not taken is sent again", async () => {
  const { input, sent, attach, send } = bench();
  attach();
  const call = send("abcdef");
  input.detached();
  sent.length = 0;
  const later = send("gh");
  attach(0);
  expect(sent).toEqual([
    { offset: 0, text: "abcdef" },
    { offset: 6, text: "gh" },
  ]);
  input.taken(8, true);
  expect(await Promise.all([call, later])).toEqual([8, 8]);
});

test("a daemon that was restarted goes on where the keeper is", async () => {
  const { sent, attach, input, send } = bench();
  attach(1_000);
  const call = send("more");
  expect(sent).toEqual([{ offset: 1_000, text: "more" }]);
  input.taken(1_004, true);
  expect(await call).toBe(1_004);
});

test("closing comes after all that was sent before, and what comes later is refused", async () => {
  const { input, closes, attach, send } = bench();
  attach();
  const call = send("end", { closes: true });
  expect(closes).toEqual([3]);
  expect(input.isOpen).toBe(false);
  expect(await reasonOf(send("x"))).toBe("INVALID_STATE");
  input.taken(3, true);
  expect(await Promise.race([call, "waits"])).toBe("waits");
  input.taken(3, false);
  expect(await call).toBe(3);
  expect(await send("", { closes: true }), "closed already is success").toBe(3);
  expect(await reasonOf(send("x"))).toBe("INVALID_STATE");
});

test("a program that closes its input, or ends, leaves nobody waiting", async () => {
  const first = bench();
  first.attach();
  const closed = reasonOf(first.send("abc"));
  first.input.taken(1, false);
  expect(await closed).toBe("INVALID_STATE");
  const second = bench();
  second.attach();
  const ended = reasonOf(second.send("abc"));
  second.input.end();
  expect(await ended).toBe("INVALID_STATE");
  expect(await reasonOf(second.send("abc"))).toBe("INVALID_STATE");
});

test("a keeper that says it took more than it was sent is not believed", async () => {
  const { input, attach, send } = bench();
  attach();
  const call = send("ab");
  input.taken(1_000_000, true);
  expect(await call).toBe(2);
  expect(input.takenBytes).toBe(2);
});
