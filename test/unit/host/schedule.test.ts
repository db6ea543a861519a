import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createScheduling, type DrainRequest, type Scheduling } from "../../../src/host/schedule.ts";
import type { Actor } from "../../../src/sandbox/record.ts";
import { createRepository } from "../../../src/sandbox/repository.ts";
import type { Why } from "../../../src/sandbox/transition.ts";
import { recordOf, temporaryStore } from "../sandbox/fixture.ts";
import { silentLog } from "./fixture.ts";

const ann: Actor = { kind: "CALLER", identity: "ann" };
const bob: Actor = { kind: "CALLER", identity: "bob" };
const stopAll: DrainRequest = { policy: "STOP", withinMs: 60_000, reason: "new kernel", actor: ann };
const waitAMinute: DrainRequest = { ...stopAll, policy: "WAIT" };

beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] }));
afterEach(() => void vi.useRealTimers());

function hostOf(ids: readonly string[]) {
  const store = temporaryStore();
  const repository = createRepository(store);
  for (const id of ids) repository.insert(recordOf({ id, instance: id }));
  let nowMs = 1_000_000;
  const stopped: { readonly id: string; readonly why: Why }[] = [];
  const opened: Scheduling[] = [];
  const open = () => {
    const scheduling = createScheduling({
      store,
      repository,
      clock: { nowMs: () => nowMs, wallMs: (ms) => ms },
      stop: (id, why) => {
        stopped.push({ id, why });
        repository.put(
          recordOf({ id, instance: id, wanted: "STOPPED", state: "STOPPING" }),
          "SANDBOX_UPDATED",
        );
      },
      log: silentLog,
    });
    opened.push(scheduling);
    return scheduling;
  };
  return {
    store,
    repository,
    stopped,
    open,
    /** The daemon ends, and another begins on the same state. */
    reopen() {
      for (const one of opened.splice(0)) one.close();
      return open();
    },
    end: (id: string) =>
      repository.put(recordOf({ id, instance: id, wanted: "STOPPED", state: "STOPPED" }), "SANDBOX_UPDATED"),
    pass(ms: number) {
      nowMs += ms;
      vi.advanceTimersByTime(ms);
    },
    async schedules() {
      await store.durable();
      return store.events
        .readAfter(0, 1_000)
        .map(({ document }) => JSON.parse(document))
        .filter(({ type }) => type === "HOST_SCHEDULE_CHANGED")
        .map(({ schedule }) => schedule);
    },
  };
}

describe("a cordon", () => {
  test("refuses with its reason until the host is opened", async () => {
    const scheduling = hostOf([]).open();
    expect(() => scheduling.assertSchedulable()).not.toThrow();
    await scheduling.setSchedulable(false, "broken fan", ann);
    expect(() => scheduling.assertSchedulable()).toThrow("the host takes no new sandboxes: broken fan");
    await scheduling.setSchedulable(true, "", bob);
    expect(() => scheduling.assertSchedulable()).not.toThrow();
  });

  test("is told once, however often it is asked for", async () => {
    const host = hostOf(["one"]);
    const scheduling = host.open();
    const listener = vi.fn();
    scheduling.subscribe(listener);
    await scheduling.setSchedulable(false, "broken fan", ann);
    await scheduling.setSchedulable(false, "broken fan", bob);
    expect(listener).toHaveBeenCalledOnce();
    expect(await host.schedules()).toEqual([
      expect.objectContaining({ schedulable: false, reason: "broken fan", actor: ann, remaining: 1 }),
    ]);
  });

  test("outlives the daemon", async () => {
    const host = hostOf([]);
    await host.open().setSchedulable(false, "broken fan", ann);
    const scheduling = host.reopen();
    expect(scheduling.now()).toMatchObject({ schedulable: false, reason: "broken fan", actor: ann });
    expect(() => scheduling.assertSchedulable()).toThrow("broken fan");
  });

  test("that cannot be written does not hold", async () => {
    const host = hostOf([]);
    const scheduling = host.open();
    vi.spyOn(host.store, "transact").mockImplementation(() => {
      throw new Error("disk full");
    });
    await expect(scheduling.setSchedulable(false, "", ann)).rejects.toThrow("disk full");
    expect(scheduling.now().schedulable).toBe(true);
  });
});

describe("a drain", () => {
  test("with STOP stops everything at once, for the reason and in the name of who asked", async () => {
    const host = hostOf(["a", "b"]);
    await host.open().drain(stopAll);
    const why = { reason: "DRAINED", message: "the host is drained: new kernel", actor: ann };
    expect(host.stopped).toEqual([
      { id: "a", why },
      { id: "b", why },
    ]);
  });

  test("with WAIT stops nothing before the deadline, and then what is left", async () => {
    const host = hostOf(["a", "b"]);
    await host.open().drain(waitAMinute);
    host.end("a");
    host.pass(59_000);
    expect(host.stopped).toEqual([]);
    host.pass(1_000);
    expect(host.stopped.map(({ id }) => id)).toEqual(["b"]);
  });

  test("counts what remains, and ends cordoned when nothing does", async () => {
    const host = hostOf(["a", "b"]);
    const scheduling = host.open();
    await scheduling.drain(stopAll);
    expect(scheduling.remaining().map(({ id }) => id)).toEqual(["a", "b"]);
    host.end("a");
    host.pass(1_000);
    expect(scheduling.remaining()).toHaveLength(1);
    expect(scheduling.now().drain).toBeDefined();
    host.end("b");
    host.pass(1_000);
    expect(scheduling.now()).toMatchObject({ schedulable: false, reason: "drained: new kernel", actor: ann });
    expect(scheduling.now().drain).toBeUndefined();
    expect((await host.schedules()).map(({ drain, remaining }) => [drain?.policy, remaining])).toEqual([
      ["STOP", 2],
      [undefined, 0],
    ]);
  });

  test("of an empty host is over at once", async () => {
    const scheduling = hostOf([]).open();
    await scheduling.drain({ ...stopAll, reason: "" });
    expect(scheduling.now()).toMatchObject({ schedulable: false, reason: "drained" });
  });

  test("goes on where it was after the daemon ended", async () => {
    const host = hostOf(["a", "b"]);
    await host.open().drain(waitAMinute);
    host.pass(30_000);
    const scheduling = host.reopen();
    host.pass(29_000);
    expect(host.stopped).toEqual([]);
    host.pass(1_000);
    expect(host.stopped.map(({ id }) => id)).toEqual(["a", "b"]);
    host.end("a");
    host.end("b");
    host.pass(1_000);
    expect(scheduling.now().drain).toBeUndefined();
  });

  test("is joined by the same policy, which moves its deadline", async () => {
    const host = hostOf(["a"]);
    const scheduling = host.open();
    await scheduling.drain(waitAMinute);
    host.pass(50_000);
    await scheduling.drain({ ...waitAMinute, actor: bob });
    host.pass(50_000);
    expect(host.stopped).toEqual([]);
    await scheduling.drain({ ...waitAMinute, withinMs: 0, actor: bob });
    expect(host.stopped).toEqual([{ id: "a", why: expect.objectContaining({ actor: bob }) }]);
  });

  test("refuses another policy, and goes on as it was", async () => {
    const host = hostOf(["a"]);
    const scheduling = host.open();
    await scheduling.drain(waitAMinute);
    await expect(scheduling.drain(stopAll)).rejects.toMatchObject({ reason: "INVALID_STATE" });
    expect(host.stopped).toEqual([]);
    expect(scheduling.now().drain?.policy).toBe("WAIT");
  });

  test("ends when the host is opened: nothing more is stopped", async () => {
    const host = hostOf(["a"]);
    const scheduling = host.open();
    await scheduling.drain(waitAMinute);
    await scheduling.setSchedulable(true, "", bob);
    host.pass(120_000);
    expect(host.stopped).toEqual([]);
    expect(scheduling.now()).toMatchObject({ schedulable: true, actor: bob });
    expect(scheduling.now().drain).toBeUndefined();
  });

  test("goes on when the host is cordoned with another reason", async () => {
    const host = hostOf(["a"]);
    const scheduling = host.open();
    await scheduling.drain(waitAMinute);
    await scheduling.setSchedulable(false, "it is urgent", bob);
    host.pass(60_000);
    expect(host.stopped[0]?.why.message).toBe("the host is drained: it is urgent");
  });

  test("that cannot be written now is tried again", async () => {
    const host = hostOf(["a"]);
    const scheduling = host.open();
    await scheduling.drain(stopAll);
    host.end("a");
    const full = vi.spyOn(host.store, "transact").mockImplementation(() => {
      throw new Error("disk full");
    });
    host.pass(3_000);
    expect(scheduling.now().drain).toBeDefined();
    full.mockRestore();
    host.pass(1_000);
    expect(scheduling.now().drain).toBeUndefined();
  });

  test("that was closed does nothing more", async () => {
    const host = hostOf(["a"]);
    const scheduling = host.open();
    await scheduling.drain(waitAMinute);
    scheduling.close();
    host.pass(120_000);
    expect(host.stopped).toEqual([]);
  });
});
