import fc from "fast-check";
import { expect, test } from "vitest";
import { processOf, startedBy } from "../../../src/engine/started-by.ts";

test("a process is read from its line, whatever its name is", () => {
  expect(processOf(7, "7 (sh) S 5 7 7 0 -1")).toEqual({ pid: 7, parent: 5, session: 7 });
  expect(processOf(7, "7 (a) R 1 1 1) S 5 6 3 0 -1")).toEqual({ pid: 7, parent: 5, session: 3 });
});

test("what a command started is its session and all that descends from it", () => {
  const members = [
    { pid: 1, parent: 0, session: 1 },
    { pid: 2, parent: 1, session: 2 },
    { pid: 22, parent: 20, session: 22 },
    { pid: 20, parent: 0, session: 20 },
    { pid: 21, parent: 1, session: 20 },
    { pid: 23, parent: 22, session: 22 },
  ];
  expect([...startedBy(20, members)].sort()).toEqual([20, 21, 22, 23]);
});

test("nothing else is, in whatever order they are listed", () => {
  const process = fc.record({ pid: fc.nat(30), parent: fc.nat(30), session: fc.nat(30) });
  fc.assert(
    fc.property(fc.nat(30), fc.uniqueArray(process, { selector: ({ pid }) => pid }), (leader, members) => {
      const found = startedBy(leader, members);
      for (const { pid, parent, session } of members) {
        const isStarted = pid === leader || session === leader || found.includes(parent);
        expect(found.includes(pid)).toBe(isStarted);
      }
      expect([...startedBy(leader, members.toReversed())].sort()).toEqual([...found].sort());
    }),
  );
});
