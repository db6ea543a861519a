import { setImmediate as turnOver } from "node:timers/promises";
import { expect, test } from "vitest";
import { createTurns } from "../../../src/api/turns.ts";

test("callers who come at once are let through in order, one per turn of the event loop", async () => {
  const turn = createTurns();
  const through: string[] = [];
  const come = async (name: string) => {
    await turn();
    through.push(name);
  };
  for (const name of ["first", "second", "third"]) void come(name);
  await Promise.resolve().then();
  expect(through, "the first waits for nothing").toEqual(["first"]);
  await turnOver();
  expect(through).toEqual(["first", "second"]);
  void come("fourth");
  await turnOver();
  await turnOver();
  await turnOver();
  expect(through).toEqual(["first", "second", "third", "fourth"]);
});

test("who comes alone waits for nothing, each time", async () => {
  const turn = createTurns();
  for (let time = 0; time < 3; time += 1) {
    let isThrough = false;
    void turn().then(() => {
      isThrough = true;
    });
    await Promise.resolve().then();
    expect(isThrough).toBe(true);
    await turnOver();
    await turnOver();
  }
});
