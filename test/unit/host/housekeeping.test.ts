import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { ImageStore, StoredImage } from "../../../src/engine/images.ts";
import { createHousekeeping } from "../../../src/host/housekeeping.ts";
import { createLog } from "../../../src/observe/log.ts";
import type { SandboxRecord } from "../../../src/sandbox/record.ts";
import { createRepository } from "../../../src/sandbox/repository.ts";
import type { Why } from "../../../src/sandbox/transition.ts";
import { configOf } from "../config/fixture.ts";
import { recordOf, temporaryStore } from "../sandbox/fixture.ts";

beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] }));
afterEach(() => void vi.useRealTimers());

const startMs = 1_800_000_000_000;
const atRest = { wanted: "STOPPED", state: "STOPPED" } as const;

function houseOf(toml: string, records: readonly Partial<SandboxRecord>[] = [], isUsable = true) {
  const store = temporaryStore();
  const repository = createRepository(store);
  for (const record of records) repository.insert(recordOf({ instance: record.id ?? "", ...record }));
  let nowMs = startMs;
  let stored: readonly StoredImage[] = [];
  const inUse = new Set<string>();
  const gone: { readonly id: string; readonly why: Why }[] = [];
  const removed: string[] = [];
  const lines: string[] = [];
  let usedPercent = 50;
  let config = configOf(toml);
  const images: ImageStore = {
    list: async () => stored,
    inUse: async () => inUse,
    async remove({ id }) {
      if (inUse.has(id)) return false;
      removed.push(id);
      stored = stored.filter((one) => one.id !== id);
      usedPercent -= 10;
      return true;
    },
  };
  const open = () =>
    createHousekeeping({
      rules: config.housekeeping,
      config: () => config,
      host: {
        isUsable: () => isUsable,
        engine: () => ({
          version: "",
          apiVersion: "",
          cgroupVersion: 2,
          cgroupDriver: "systemd",
          storageDriver: "overlay2",
          runtimes: [],
          dataRoot: "/data",
        }),
      },
      repository,
      store,
      images,
      clock: { nowMs: () => nowMs, wallMs: (ms) => ms },
      remove(id, why) {
        gone.push({ id, why });
        const record = repository.get(id);
        if (record !== undefined) repository.remove(record);
      },
      onRetired: () => undefined,
      onImageRemoved: () => undefined,
      usedPercent: async () => usedPercent,
      log: createLog({ level: "info", destination: { write: (line) => void lines.push(line) } }),
    });
  return {
    repository,
    inUse,
    gone,
    removed,
    open,
    dryLines: () => lines.filter((line) => line.includes("would")),
    ids: () => gone.map(({ id }) => id),
    hold: (images: readonly StoredImage[], percent: number) => {
      stored = images;
      usedPercent = percent;
    },
    reload: (changed: string) => {
      config = configOf(changed);
    },
    pass: (ms: number) => {
      nowMs += ms;
    },
  };
}

const stoppedAt = (timeMs: number) => ({ ...recordOf().transition, timeMs });

describe("sandboxes that have ended", () => {
  const hour = "[housekeeping]\nkeep_stopped_age = '1h'\nkeep_stopped_count = 2";

  test("are deleted after their time, by the daemon's own rules and with the reason", async () => {
    const house = houseOf(hour, [{ id: "runs" }, { id: "ended", ...atRest, transition: stoppedAt(startMs) }]);
    const housekeeping = house.open();
    house.pass(3_599_000);
    await housekeeping.tidy();
    expect(house.ids()).toEqual([]);
    house.pass(1_000);
    await housekeeping.tidy();
    expect(house.gone).toEqual([
      {
        id: "ended",
        why: {
          reason: "RETIRED",
          message: "no longer kept: stopped for 3600 s, and kept for 3600 s",
          actor: { kind: "POLICY", identity: "" },
        },
      },
    ]);
    await housekeeping.close();
  });

  test("beyond so many go before their time", async () => {
    const three = ["c", "a", "b"].map((id, index) => ({
      id,
      ...atRest,
      transition: stoppedAt(startMs - 10 + index),
    }));
    const house = houseOf(hour, three);
    const housekeeping = house.open();
    await housekeeping.tidy();
    expect(house.ids()).toEqual(["c"]);
    await housekeeping.close();
  });

  test("are not older for a wall clock that was set back or forward while the daemon saw them end", async () => {
    const house = houseOf(hour);
    const housekeeping = house.open();
    for (const timeMs of [0, startMs * 2]) {
      house.repository.insert(
        recordOf({ id: `at-${timeMs}`, instance: `at-${timeMs}`, ...atRest, transition: stoppedAt(timeMs) }),
      );
    }
    await housekeeping.tidy();
    expect(house.ids()).toEqual([]);
    house.pass(3_600_000);
    await housekeeping.tidy();
    expect(house.ids().toSorted()).toEqual(["at-0", `at-${startMs * 2}`]);
    await housekeeping.close();
  });

  test("are looked at every period, until it is closed", async () => {
    const house = houseOf(hour, [{ id: "ended", ...atRest, transition: stoppedAt(0) }]);
    const housekeeping = house.open();
    vi.advanceTimersByTime(60_000);
    await housekeeping.tidy();
    expect(house.ids()).toEqual(["ended"]);
    await housekeeping.close();
    house.repository.insert(recordOf({ id: "b", ...atRest, transition: stoppedAt(0) }));
    vi.advanceTimersByTime(600_000);
    await housekeeping.tidy();
    expect(house.ids()).toEqual(["ended"]);
  });

  test("stay while the engine cannot be used", async () => {
    const house = houseOf(hour, [{ id: "ended", ...atRest, transition: stoppedAt(0) }], false);
    const housekeeping = house.open();
    await housekeeping.tidy();
    expect(house.ids()).toEqual([]);
    await housekeeping.close();
  });

  test("are only named, once, in a dry run", async () => {
    const house = houseOf(`${hour}\ndry_run = true`, [{ id: "ended", ...atRest, transition: stoppedAt(0) }]);
    const housekeeping = house.open();
    await housekeeping.tidy();
    await housekeeping.tidy();
    expect(house.ids()).toEqual([]);
    expect(house.dryLines()).toEqual([expect.stringContaining('"sandbox":"ended"')]);
    await housekeeping.close();
  });
});

describe("images", () => {
  const collecting = "[housekeeping]\ncollect_images = true\nimages_minimum_age = '0s'";
  const image = (id: string, tags: readonly string[] = []): StoredImage => ({
    id,
    tags,
    digests: [],
    sizeBytes: 5,
  });
  const four = [image("a"), image("b", ["b:1"]), image("c", ["c:1"]), image("d", ["d:1"])];

  test("are left to the operator, unless the configuration says otherwise", async () => {
    const house = houseOf("");
    house.hold(four, 99);
    const housekeeping = house.open();
    await housekeeping.tidy();
    expect(house.removed).toEqual([]);
    await housekeeping.close();
  });

  test("stay below the high watermark, and are removed down to the low one above it", async () => {
    const house = houseOf(collecting);
    house.hold(four, 84);
    const housekeeping = house.open();
    await housekeeping.tidy();
    expect(house.removed).toEqual([]);
    house.hold(four, 91);
    await housekeeping.tidy();
    expect(house.removed).toEqual(["a", "b"]);
    await housekeeping.close();
  });

  test("of templates, of the allow-list, of sandboxes and of containers stay", async () => {
    const toml = `${collecting}\n[images]\nallow = ["b:1"]\n[templates.shell]\nimage = "c:1"`;
    const house = houseOf(toml, [{ id: "one", imageId: "sha256:d" }]);
    house.inUse.add("e");
    house.hold([image("b", ["b:1"]), image("c", ["c:1"]), image("sha256:d"), image("e"), image("f")], 99);
    const housekeeping = house.open();
    await housekeeping.tidy();
    expect(house.removed).toEqual(["f"]);
    await housekeeping.close();
  });

  test("that a reload has named stay from then on", async () => {
    const house = houseOf(collecting);
    const housekeeping = house.open();
    house.reload(`${collecting}\n[templates.shell]\nimage = "b:1"`);
    house.hold([image("b", ["b:1"]), image("c", ["c:1"])], 99);
    await housekeeping.tidy();
    expect(house.removed).toEqual(["c"]);
    await housekeeping.close();
  });

  test("that were used lately are remembered over a restart of the daemon", async () => {
    const toml = "[housekeeping]\ncollect_images = true\nimages_minimum_age = '1h'";
    const house = houseOf(toml);
    house.inUse.add("a");
    house.hold([image("a"), image("b")], 99);
    const first = house.open();
    await first.tidy();
    await first.close();
    house.inUse.clear();
    house.pass(3_599_000);
    const second = house.open();
    await second.tidy();
    expect(house.removed).toEqual([]);
    house.pass(1_000);
    await second.tidy();
    expect(house.removed[0]).toBe("b");
    await second.close();
  });

  test("are only named, once, in a dry run", async () => {
    const house = houseOf(`${collecting}\ndry_run = true`);
    house.hold(four, 99);
    const housekeeping = house.open();
    await housekeeping.tidy();
    await housekeeping.tidy();
    expect(house.removed).toEqual([]);
    expect(house.dryLines()).toHaveLength(4);
    await housekeeping.close();
  });
});
