import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { StoredImage } from "../../../src/engine/images.ts";
import { type Collectable, chooseImages, noteUses } from "../../../src/image/collection.ts";

const hourMs = 3_600_000;
const nowMs = 100 * hourMs;
const image = (id: string, change: Partial<StoredImage> = {}): StoredImage => ({
  id: `sha256:${id}`,
  tags: [`${id}:latest`],
  digests: [],
  sizeBytes: 1,
  ...change,
});
const dangling = (id: string) => image(id, { tags: [] });

function chosen(images: readonly StoredImage[], change: Partial<Collectable> = {}): readonly string[] {
  const uses = Object.fromEntries(images.map(({ id }) => [id, { firstSeenMs: 0, lastUsedMs: 0 }]));
  const all = { images, inUse: new Set<string>(), named: [], canPull: true, minimumAgeMs: hourMs };
  return chooseImages({ ...all, uses, ...change }, nowMs).map(({ id }) => id.slice("sha256:".length));
}

describe("of images", () => {
  test("those without a name go first, then the least recently used", () => {
    const images = [image("b"), image("a"), dangling("c"), image("d")];
    const uses = {
      "sha256:a": { firstSeenMs: 0, lastUsedMs: 3 },
      "sha256:b": { firstSeenMs: 0, lastUsedMs: 2 },
      "sha256:c": { firstSeenMs: 0, lastUsedMs: 9 },
      "sha256:d": { firstSeenMs: 0, lastUsedMs: 1 },
    };
    expect(chosen(images, { uses })).toEqual(["c", "d", "b", "a"]);
  });

  test("none goes of which there is a container, of whomever", () => {
    expect(chosen([image("a"), dangling("b")], { inUse: new Set(["sha256:a", "sha256:b"]) })).toEqual([]);
  });

  test.each([
    ["its tag", "shell:1.2", { tags: ["shell:1.2", "other:1"] }],
    ["its name alone, which means latest", "shell", { tags: ["shell:latest"] }],
    ["its digest", "shell@sha256:77", { tags: [], digests: ["shell@sha256:77"] }],
    ["its id", "sha256:a", {}],
  ])("none goes that is named by %s", (_, name, change) => {
    expect(chosen([image("a", change)], { named: [name] })).toEqual([]);
    expect(chosen([image("a", change)], { named: ["else:1", "sha256:else"] })).toEqual(["a"]);
  });

  test("a pattern of the allow-list names none", () => {
    expect(chosen([image("a")], { named: ["*", "a:*"] })).toEqual(["a"]);
  });

  test("none goes that was seen for the first time, or last used, within the minimum age", () => {
    const images = [image("new"), image("used"), image("old"), image("unknown")];
    const uses = {
      "sha256:new": { firstSeenMs: nowMs - hourMs + 1, lastUsedMs: 0 },
      "sha256:used": { firstSeenMs: 0, lastUsedMs: nowMs - hourMs + 1 },
      "sha256:old": { firstSeenMs: 0, lastUsedMs: nowMs - hourMs },
    };
    expect(chosen(images, { uses })).toEqual(["old"]);
  });

  test("where none is pulled, only those go that nobody can name", () => {
    expect(chosen([image("a"), dangling("b")], { canPull: false })).toEqual(["b"]);
  });

  test("whatever there is: what is in use or named stays", () => {
    const some = fc.uniqueArray(fc.stringMatching(/^[a-f]{1,3}$/), { maxLength: 12 });
    fc.assert(
      fc.property(some, some, some, fc.boolean(), (names, used, named, canPull) => {
        const images = names.map((id, index) => (index % 3 === 0 ? dangling(id) : image(id)));
        const inUse = new Set(used.map((id) => `sha256:${id}`));
        for (const id of chosen(images, { inUse, named, canPull })) {
          expect(inUse.has(`sha256:${id}`)).toBe(false);
          const isNamed = images.find((one) => one.id === `sha256:${id}`)?.tags.includes(`${id}:latest`);
          expect(isNamed === true && named.includes(id)).toBe(false);
        }
      }),
    );
  });
});

test("uses are noted of images that are there, and forgotten with them", () => {
  const first = noteUses({}, [image("a"), image("b")], new Set(["sha256:a"]), 1_000);
  expect(first).toEqual({
    "sha256:a": { firstSeenMs: 1_000, lastUsedMs: 1_000 },
    "sha256:b": { firstSeenMs: 1_000, lastUsedMs: 0 },
  });
  expect(noteUses(first, [image("a")], new Set(), 2_000)).toEqual({
    "sha256:a": { firstSeenMs: 1_000, lastUsedMs: 1_000 },
  });
});
