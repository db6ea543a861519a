import { afterEach, describe, expect, test, vi } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import { openPlaces } from "../../../src/logs/places.ts";
import { createLog } from "../../../src/observe/log.ts";

const log = createLog({ level: "fatal" });
const place = (sandboxId: string, sequence: bigint) => ({
  sandboxId,
  instance: "i",
  containerId: "c",
  sequence,
});

/** A state whose writes can be made to fail. */
function stateOf(initial?: string) {
  const state = { value: initial, writes: 0, isFull: false };
  return {
    ...{ state, meta: () => state.value },
    transact<T>(change: (transaction: never) => T): T {
      if (state.isFull) throw new SandboxdError("STATE_DISK_FULL", "full");
      state.writes += 1;
      const setMeta = (_: string, value: string) => {
        state.value = value;
      };
      return change({ setMeta } as never);
    },
  };
}

describe("places", () => {
  afterEach(() => void vi.useRealTimers());

  test("are known in another life, with numbers beyond 2^53, and those of sandboxes that are gone are not", () => {
    const store = stateOf();
    const places = openPlaces(store, log);
    places.put(place("one", 1_795_735_505_361_509_071n));
    places.put(place("two", 2n));
    places.remove("two");
    places.close();
    const again = openPlaces(store, log);
    expect(again.get("one")).toEqual(place("one", 1_795_735_505_361_509_071n));
    expect(again.get("two")).toBeUndefined();
    again.close();
    expect(store.state.writes, "nothing changed").toBe(1);
  });

  test("are written a moment after they changed, many changes at once, and again when that failed", () => {
    vi.useFakeTimers();
    const store = stateOf();
    const places = openPlaces(store, log);
    for (let sequence = 1n; sequence <= 100n; sequence += 1n) places.put(place("one", sequence));
    expect(store.state.writes).toBe(0);
    store.state.isFull = true;
    vi.advanceTimersByTime(1_000);
    store.state.isFull = false;
    vi.advanceTimersByTime(1_000);
    expect(store.state.writes).toBe(1);
    expect(store.state.value).toContain('"100"');
    places.close();
    expect(vi.getTimerCount()).toBe(0);
  });
});
