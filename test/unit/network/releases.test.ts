import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createReleases } from "../../../src/network/releases.ts";
import { createLog } from "../../../src/observe/log.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function released(outcomes: readonly ("fails" | "holds")[]) {
  const asked: (readonly string[])[] = [];
  const back = new Set<string>();
  const releases = createReleases({
    async remove(ids) {
      asked.push(ids);
      if (outcomes[asked.length - 1] === "fails") throw new Error("nft: busy");
    },
    isBack: (id) => back.has(id),
    log: createLog({ level: "fatal" }),
  });
  return { releases, asked, back };
}

test("rules that could not be removed are tried again until they are, with those that go meanwhile", async () => {
  const { releases, asked } = released(["fails", "fails", "holds"]);
  releases.add("one");
  await vi.advanceTimersByTimeAsync(0);
  releases.add("two");
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked).toEqual([["one"], ["one", "two"], ["one", "two"]]);
});

test("rules of a sandbox whose id is used again are not removed", async () => {
  const { releases, asked, back } = released(["fails"]);
  releases.add("one");
  await vi.advanceTimersByTimeAsync(0);
  back.add("one");
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked).toEqual([["one"]]);
});

test("nothing is tried after the end", async () => {
  const { releases, asked } = released(["fails"]);
  releases.add("one");
  await vi.advanceTimersByTimeAsync(0);
  releases.close();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked).toHaveLength(1);
});
