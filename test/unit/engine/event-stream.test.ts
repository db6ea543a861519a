import { getEventListeners } from "node:events";
import { Readable } from "node:stream";
import type Docker from "dockerode";
import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { readEvents, readLines } from "../../../src/engine/event-stream.ts";
import { anyPlaces, collect, cut, streamOf } from "./chunks.ts";

const anyLines = fc.array(
  fc.string({ unit: "binary" }).map((text) => text.replaceAll("\n", "").toWellFormed()),
  { maxLength: 10 },
);

test("lines are the same however the stream is cut into chunks", async () => {
  await fc.assert(
    fc.asyncProperty(anyLines, anyPlaces, async (lines, places) => {
      const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(""));
      expect(await collect(readLines(streamOf(cut(bytes, places))))).toEqual(lines);
    }),
  );
});

test("a line that was not ended is not told", async () => {
  expect(await collect(readLines(streamOf([Buffer.from("whole\nbroken")])))).toEqual(["whole"]);
});

test("a line without end is refused before it fills the memory", async () => {
  let given = 0;
  async function* endless(): AsyncIterable<Buffer> {
    for (;;) yield Buffer.alloc(1024 * 1024, given++ === 0 ? "a" : "b");
  }
  await expect(collect(readLines(endless()))).rejects.toThrow("a line of more than 4194304 bytes");
  expect(given).toBe(5);
});

/** An engine whose event stream is this one. Only what is asked of it is there. */
function engineWith(answer: () => Promise<Readable>) {
  const getEvents = vi.fn((_: object) => answer());
  return { docker: { getEvents } as unknown as Docker, getEvents };
}

function listen(answer: () => Promise<Readable>, options: { readonly sinceNanos?: bigint } = {}) {
  const { docker, getEvents } = engineWith(answer);
  const onOpen = vi.fn();
  const abort = new AbortController();
  const events = readEvents(docker, "a=b", { onOpen, signal: abort.signal, ...options });
  return { getEvents, onOpen, abort, events };
}

const line = (value: unknown) => Buffer.from(`${JSON.stringify(value)}\n`);

test("events of containers with the label are asked for, and told in words of our own", async () => {
  const source = Readable.from([
    line({ Type: "container", Action: "die", Actor: { ID: "c1", Attributes: { a: "b", exitCode: "1" } } }),
    Buffer.from("\n"),
    line({}),
  ]);
  const { events, getEvents, onOpen } = listen(async () => source);
  const told: unknown[] = [];
  const read = (async () => {
    for await (const event of events) told.push(event);
  })();
  await expect(read).rejects.toMatchObject({ reason: "ENGINE_UNAVAILABLE" });
  expect(told).toEqual([
    { containerId: "c1", action: "die", labels: { a: "b", exitCode: "1" }, timeNanos: 0n },
    { containerId: "", action: "", labels: {}, timeNanos: 0n },
  ]);
  expect(onOpen).toHaveBeenCalledOnce();
  expect(getEvents).toHaveBeenCalledWith(
    expect.objectContaining({
      filters: JSON.stringify({
        type: ["container"],
        label: ["a=b"],
        event: ["start", "die", "kill", "pause", "unpause", "destroy", "rename", "update"],
      }),
    }),
  );
});

test("events are told with their whole time, and can be asked for from a time on", async () => {
  const lines = [
    '{"Action":"die","Actor":{"Attributes":{"a":"\\"timeNano\\":5"}},"timeNano":1795507041569069753}\n',
    '{"Action":"kill","time":1795507041,"timeNano":1795507041000000001}\n',
  ];
  const source = Readable.from(lines.map((text) => Buffer.from(text)));
  const { events, getEvents } = listen(async () => source, { sinceNanos: 1_795_507_041_000_000_002n });
  const times: bigint[] = [];
  const read = (async () => {
    for await (const { timeNanos } of events) times.push(timeNanos);
  })();
  await expect(read).rejects.toMatchObject({ reason: "ENGINE_UNAVAILABLE" });
  expect(times).toEqual([1_795_507_041_569_069_753n, 1_795_507_041_000_000_001n]);
  expect(getEvents).toHaveBeenCalledWith(expect.objectContaining({ since: "1795507041.000000002" }));
});

test("an engine that cannot be reached is told as such, and never as open", async () => {
  const refused = Object.assign(new Error("connect"), { code: "ECONNREFUSED" });
  const { events, onOpen } = listen(() => Promise.reject(refused));
  await expect(collect(events)).rejects.toMatchObject({ reason: "ENGINE_UNAVAILABLE" });
  expect(onOpen).not.toHaveBeenCalled();
});

test("a connection that breaks ends the events with an error", async () => {
  const source = new Readable({ read: () => undefined });
  const { events, onOpen } = listen(async () => source);
  const read = collect(events);
  await vi.waitFor(() => expect(onOpen).toHaveBeenCalled());
  source.destroy(Object.assign(new Error("reset"), { code: "ECONNRESET" }));
  await expect(read).rejects.toMatchObject({ reason: "ENGINE_UNAVAILABLE" });
});

test("a line that is no JSON ends the events with an error", async () => {
  const { events } = listen(async () => Readable.from([Buffer.from("{\n")]));
  await expect(collect(events)).rejects.toMatchObject({ reason: "ENGINE_FAILED" });
});

test("an abort ends the events and closes the stream, and leaves no listener", async () => {
  const source = new Readable({ read: () => undefined });
  const { events, onOpen, abort } = listen(async () => source);
  const read = collect(events);
  await vi.waitFor(() => expect(onOpen).toHaveBeenCalled());
  abort.abort();
  await expect(read).rejects.toThrow();
  expect(source.destroyed).toBe(true);
  expect(getEventListeners(abort.signal, "abort")).toHaveLength(0);
});

test("a listener that stops early closes the stream", async () => {
  const source = Readable.from([line({ Action: "start" }), line({ Action: "die" })]);
  const { events } = listen(async () => source);
  for await (const _ of events) break;
  expect(source.destroyed).toBe(true);
});
