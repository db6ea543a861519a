import { describe, expect, test } from "vitest";
import type { Candidate, EvictionCause } from "../../../src/host/eviction.ts";
import { createEvictor } from "../../../src/host/evictor.ts";
import type { Measure, PressureType } from "../../../src/host/pressure.ts";
import { createRepository } from "../../../src/sandbox/repository.ts";
import { recordOf, temporaryStore } from "../sandbox/fixture.ts";
import { silentLog } from "./fixture.ts";

const pauseMs = 10_000;
const usedBytes = 2 ** 20;

function hostOf(ids: readonly string[]) {
  const repository = createRepository(temporaryStore());
  for (const id of ids) repository.insert(recordOf({ id, instance: id }));
  let nowMs = 0;
  let active = new Map<PressureType, Measure>();
  const stopped: string[] = [];
  const messages: string[] = [];
  const counted: EvictionCause[] = [];
  let beforeUsage: () => void = () => undefined;
  const evictor = createEvictor({
    pressure: { active: (type) => active.get(type) },
    repository,
    clock: { nowMs: () => nowMs, wallMs: (ms) => ms },
    pauseMs,
    canRelieve: ({ directories }) => !directories.includes("/elsewhere"),
    async usage(record): Promise<Candidate> {
      await Promise.resolve();
      beforeUsage();
      return { record, workingSetBytes: usedBytes, writtenBytes: 1 };
    },
    stop(id, { message }, mostGraceMs) {
      stopped.push(id);
      messages.push(message);
      expect(mostGraceMs).toBe(10_000);
      repository.put(recordOf({ id, instance: id, wanted: "STOPPED", state: "STOPPING" }), "SANDBOX_UPDATED");
    },
    onEvicted: (cause) => counted.push(cause),
    log: silentLog,
  });
  return {
    repository,
    evictor,
    stopped,
    messages,
    counted,
    whileChoosing: (work: () => void) => {
      beforeUsage = work;
    },
    pressed(types: readonly PressureType[], isRelieved = false, directories: readonly string[] = []) {
      const measure = (type: PressureType) => ({
        type,
        isShort: !isRelieved,
        isRelieved,
        evidence: "little",
        directories,
      });
      active = new Map(types.map((type) => [type, measure(type)]));
    },
    end: (id: string) =>
      repository.put(recordOf({ id, instance: id, wanted: "STOPPED", state: "STOPPED" }), "SANDBOX_UPDATED"),
    stick: (id: string) =>
      repository.put(
        recordOf({
          id,
          instance: id,
          wanted: "STOPPED",
          state: "STOPPING",
          stuck: { sinceMs: 0, evidence: "D" },
        }),
        "SANDBOX_STUCK",
      ),
    /** One sample a second for so long. */
    async sample(seconds: number) {
      for (let second = 0; second < seconds; second++) {
        nowMs += 1_000;
        evictor.look();
        await evictor.idle();
      }
    },
  };
}

describe("an evictor", () => {
  test("does nothing while the host has enough, or is short of what no eviction helps", async () => {
    const host = hostOf(["a"]);
    await host.sample(100);
    host.pressed(["PID_PRESSURE", "STALLED"]);
    await host.sample(100);
    expect(host.stopped).toEqual([]);
  });

  test("ends nobody for a disk that no sandbox writes to, and looks on for what an end relieves", async () => {
    const host = hostOf(["a"]);
    host.pressed(["DISK_PRESSURE"], false, ["/elsewhere"]);
    await host.sample(100);
    expect(host.stopped).toEqual([]);
    host.pressed(["MEMORY_PRESSURE", "DISK_PRESSURE"]);
    await host.sample(1);
    expect(host.counted).toEqual(["MEMORY_PRESSURE"]);
  });

  test("ends one at once under memory pressure, and says why", async () => {
    const host = hostOf(["a", "b"]);
    host.pressed(["MEMORY_PRESSURE"]);
    await host.sample(1);
    expect(host.stopped).toHaveLength(1);
    expect(host.messages[0]).toMatch(/^evicted under MEMORY_PRESSURE: little; with priority 0/);
    expect(host.counted).toEqual(["MEMORY_PRESSURE"]);
  });

  test("waits until that one is gone, and a pause, before it ends the next", async () => {
    const host = hostOf(["a", "b", "c"]);
    host.pressed(["MEMORY_PRESSURE"]);
    await host.sample(60);
    expect(host.stopped).toHaveLength(1);
    host.end(host.stopped[0] ?? "");
    await host.sample(10);
    expect(host.stopped).toHaveLength(1);
    await host.sample(1);
    expect(host.stopped).toHaveLength(2);
  });

  test("does not wait for one that the kernel does not end", async () => {
    const host = hostOf(["a", "b"]);
    host.pressed(["MEMORY_PRESSURE"]);
    await host.sample(1);
    host.stick(host.stopped[0] ?? "");
    await host.sample(12);
    expect(host.stopped).toHaveLength(2);
  });

  test("ends nobody for a condition that lasts on although there is enough again", async () => {
    const host = hostOf(["a", "b"]);
    host.pressed(["MEMORY_PRESSURE"], true);
    await host.sample(100);
    expect(host.stopped).toEqual([]);
  });

  test("measures again: what is relieved by the first is no reason for a second", async () => {
    const host = hostOf(["a", "b"]);
    host.pressed(["MEMORY_PRESSURE"]);
    await host.sample(1);
    host.end(host.stopped[0] ?? "");
    await host.sample(5);
    host.pressed(["MEMORY_PRESSURE"], true);
    await host.sample(100);
    expect(host.stopped).toHaveLength(1);
  });

  test("leaves the housekeeping a pause to free the disk first", async () => {
    const host = hostOf(["a"]);
    host.pressed(["DISK_PRESSURE"]);
    await host.sample(10);
    expect(host.stopped).toEqual([]);
    await host.sample(1);
    expect(host.stopped).toEqual(["a"]);
  });

  test("ends nobody who changed while it was choosing", async () => {
    const host = hostOf(["a"]);
    host.whileChoosing(() => host.end("a"));
    host.pressed(["MEMORY_PRESSURE"]);
    await host.sample(3);
    expect(host.stopped).toEqual([]);
  });

  test("that was closed ends nobody, also not whom it was choosing", async () => {
    const host = hostOf(["a"]);
    host.pressed(["MEMORY_PRESSURE"]);
    host.whileChoosing(() => host.evictor.close());
    await host.sample(3);
    expect(host.stopped).toEqual([]);
  });

  test("tries again after a pause what could not be written", async () => {
    const host = hostOf(["a"]);
    let tries = 0;
    host.whileChoosing(() => {
      tries++;
      if (tries < 3) throw new Error("disk full");
    });
    host.pressed(["MEMORY_PRESSURE"]);
    await host.sample(10);
    expect([tries, host.stopped]).toEqual([1, []]);
    await host.sample(20);
    expect([tries, host.stopped]).toEqual([3, ["a"]]);
  });

  test("runs out of candidates without harm", async () => {
    const host = hostOf(["a"]);
    host.pressed(["MEMORY_PRESSURE"]);
    await host.sample(1);
    host.end("a");
    await host.sample(60);
    expect(host.stopped).toEqual(["a"]);
  });
});
